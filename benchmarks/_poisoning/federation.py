"""One run of a federation of which some sites are malicious, and what it has done to the others.

Methods, what travels, limits and rules are those of a federation; a site trains by a plain loop on the kept outputs of
the frozen blocks, so that a run takes seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from _poisoning.attacks import TARGET, Attack, triggered
from _poisoning.skin import CLASSES, Photographs, Sites
from torch import Tensor
from torch.nn.functional import cross_entropy

from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.seeds import mix
from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.in_memory import weights_digest
from monai_fedlora.federated.low_bits import rounded_payload
from monai_fedlora.federated.plan import OWN_NETWORK, Plan
from monai_fedlora.federated.start import Start
from monai_fedlora.federated.update import Update
from monai_fedlora.methods.base import Method
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.site_report import Report

BLOCKS = 1
"""The last ones, which have adapters."""
VIEWS = ("shared", "personal")
Payload = Mapping[str, np.ndarray]


def network(size: str, seed: int) -> Any:
    """The packaged backbone, with a head that the seed draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = build_backbone(size, out_chans=len(CLASSES))
    load_backbone(found, demo_weights(size), heads=False)
    return found


class Kept:
    """What the frozen blocks make of photographs, computed once."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened.eval()
        self._kept: dict[int, tuple[Tensor, Features]] = {}

    @torch.no_grad()
    def of(self, images: Tensor) -> Features:
        """Of images (N, 3, H, W), found by where they lie."""
        found = self._kept.get(id(images))
        if found is None:
            parts = [self.opened.prefix(some, len(self.opened.blocks) - BLOCKS) for some in images.split(64)]
            found = images, Features(*(torch.cat(column) for column in zip(*parts, strict=True)))
            self._kept[id(images)] = found
        return found[1]


def plan_of(sites: Sites, opened: Any, *, method: str, rule: str, bound: float, seed: int, rounds: int) -> Plan:
    """The experiment."""
    return Plan(
        experiment="poisoning",
        bundle="image_2d_fedopal_classification",
        method=method,
        method_args={"averaging": rule, "blocks": BLOCKS},
        sites=tuple(sites),
        classes=CLASSES,
        rounds=rounds,
        size=OWN_NETWORK,
        backbone_sha256=weights_digest(opened),
        seed=seed,
        declared_cases={site: len(parts["training"].labels) for site, parts in sites.items()},
        update_bound=bound,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a site trains.

    Attributes:
        epochs: of a round.
        learning_rate: of AdamW, constant.
        batch_size: photographs of a step.
    """

    epochs: int
    learning_rate: float
    batch_size: int


class Member:
    """A site: its network with the private part, its optimiser and its photographs."""

    def __init__(
        self, name: str, plan: Plan, attached: Any, method: Method, own: Photographs, kept: Kept, training: Training
    ) -> None:
        self.network = copy.deepcopy(attached)
        self.scope = plan.scope(self.network)
        self._own, self._features, self._training, self._method = own, kept.of(own.images), training, method
        self._optimiser = adamw(network=self.network, learning_rate=training.learning_rate)
        self._random = np.random.default_rng(mix(plan.seed, name))
        counts = torch.bincount(own.labels, minlength=len(CLASSES)).double()
        self._weights = (len(own.labels) / ((counts > 0).sum() * counts.clamp(min=1))).float()

    def open(self, shared: Payload, number: int) -> None:
        """Put what the server sent beside the private part."""
        self.scope.load_shared(self.network, shared)
        self._method.begin_round(self.network, number)
        for name, parameter in self.network.named_parameters():
            if self._method.starts_over(name, self.network):
                self._optimiser.state.pop(parameter, None)

    def train_round(self, number: int, shared: Payload) -> Update:
        """What the site sends after its epochs."""
        self.open(shared, number)
        self.network.train()
        with self._method.penalty(self.network) or nullcontext() as penalty:
            for _ in range(self._training.epochs):
                order = torch.from_numpy(self._random.permutation(len(self._own.labels)))
                for places in order.split(self._training.batch_size):
                    features = Features(*(part[places] for part in self._features))
                    logits = self.network(features, len(self.network.blocks) - BLOCKS)
                    loss = cross_entropy(logits, self._own.labels[places], weight=self._weights)
                    loss = loss + penalty() if penalty else loss
                    self._optimiser.zero_grad()
                    loss.backward()
                    self._optimiser.step()
        tensors, _ = self.scope.update(self.network, sent=shared, residual={})
        return Update(tensors, Report(round=number, cases=len(self._own.labels)))

    @torch.no_grad()
    def told(self, features: Features, view: str) -> Tensor:
        """The classes (N,) that the personal model, or the shared one alone, takes photographs for."""
        self.network.eval()
        with (self._method.shared_only(self.network) if view == "shared" else None) or nullcontext():
            logits: Tensor = self.network(features, len(self.network.blocks) - BLOCKS)
        return logits.argmax(1)


def run(
    plan: Plan,
    sites: Sites,
    kept: Kept,
    *,
    attack: Attack,
    malicious: Sequence[str],
    training: Training,
    kept_bits: int | None = None,
) -> dict[str, Any]:
    """Run all rounds, and measure the honest sites' models.

    Args:
        plan: the experiment.
        sites: honest and malicious ones.
        kept: outputs of the frozen blocks.
        attack: of the malicious.
        malicious: their names.
        training: of all.
        kept_bits: to which every site's gate rounds what leaves, see :mod:`monai_fedlora.federated.low_bits`.

    Returns:
        ``refused`` and ``clipped``, answers of the malicious; by view ``accuracy``, balanced over all photographs of
        the honest sites, each told by its own site's model, and ``success``, the share of their photographs of another
        class that get the target's with the trigger.
    """
    honest = [site for site in plan.sites if site not in malicious]
    method, attached = plan.build_method(), copy.deepcopy(kept.opened)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        method.attach(attached)
    members = {}
    for site, parts in sites.items():
        own = attack.trains_on(parts["training"]) if site in malicious else parts["training"]
        members[site] = Member(site, plan, attached, method, own, kept, training)
    start = Start.of_network(plan, attached)
    average, shared = SharedAverage.of(plan, start.manifest), start.shared
    counts = {"refused": 0, "clipped": 0}
    for number in range(plan.rounds):
        average.begin(number, shared)
        answers = {site: member.train_round(number, shared) for site, member in members.items()}
        if kept_bits is not None:
            answers = {site: _through_gate(update, kept_bits, site) for site, update in answers.items()}
        sent = attack.sends([answers[site].tensors for site in malicious], shared)
        for site in honest:
            average.accept(site, answers[site])
        for site, tensors in zip(malicious, sent, strict=False):
            try:
                average.accept(site, Update(tensors, answers[site].report))
            except Refusal:
                counts["refused"] += 1
        counts["clipped"] += len(set(malicious) & set((average.limits() or {}).get("clipped", ())))
        shared = average.aggregate()
    for site in honest:
        members[site].open(shared, plan.rounds)
    return {**counts, **_measured({site: (members[site], sites[site]["test"]) for site in honest}, kept)}


def _through_gate(update: Update, bits: int, site: str) -> Update:
    """What a site's gate lets through, with a key that stands for its secret."""
    return replace(update, tensors=rounded_payload(update.tensors, bits=bits, key=site.encode()))


def _measured(honest: Mapping[str, tuple[Member, Photographs]], kept: Kept) -> dict[str, Any]:
    """Accuracy and the trigger's success, by view."""
    labels = torch.cat([own.labels for _, own in honest.values()])
    found: dict[str, Any] = {"accuracy": {}, "success": {}}
    for view in VIEWS:
        right = torch.cat([member.told(kept.of(own.images), view) == own.labels for member, own in honest.values()])
        led = torch.cat([member.told(kept.of(triggered(own.images)), view) for member, own in honest.values()])
        each = [right[labels == label].double().mean() for label in labels.unique()]
        found["accuracy"][view] = float(np.mean(each))
        found["success"][view] = float((led == TARGET)[labels != TARGET].double().mean())
    return found
