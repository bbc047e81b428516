"""Sites of a federation on networks and images that take milliseconds, trained by the real trainer."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from torch import Tensor
from torch.utils.data import Dataset

from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.method import MethodHandler
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.precision import Precision
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.methods import Method, method_names
from monai_fedlora.scope import Scope
from tests.helpers import (
    CLIP_TOWER,
    ROTARY,
    make_update,
    tiny_clip,
    tiny_images,
    tiny_network,
    tiny_photographs,
    tiny_vit,
)

Payload = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of backbone: how to build a small one, and images for it."""

    build: Callable[..., Any]
    images: Callable[..., Tensor]


FAMILIES = {"convvit": Family(tiny_network, tiny_images), "vit": Family(tiny_vit, tiny_photographs)}
"""With a linear head, which most methods run on."""
READOUTS = {
    "convvit": Family(tiny_network, tiny_images),
    "convvit-cls": Family(partial(tiny_network, readout="cls"), tiny_images),
    "vit": Family(tiny_vit, tiny_photographs),
    "vit-mean": Family(partial(tiny_vit, readout="mean"), tiny_photographs),
    "clip-tower": Family(partial(tiny_vit, **CLIP_TOWER), tiny_photographs),
    "dinov2": Family(partial(tiny_vit, layer_scale=True), tiny_photographs),
    "dinov3": Family(partial(tiny_vit, **ROTARY), tiny_photographs),
}
"""Every kind of backbone and readout, with a linear head."""
CLIP = Family(tiny_clip, tiny_photographs)
NETWORKS = {**FAMILIES, "clip": CLIP}
"""The families, and one that compares with texts."""
BACKBONES = {**READOUTS, "clip": CLIP}
"""All that methods are tried on."""
NEED_TEXTS = ("clip_adapter", "clip_zero_shot", "prompt_tuning")


def families(name: str) -> list[str]:
    """What a method runs on."""
    return ["clip"] if name in NEED_TEXTS else list(FAMILIES)


PAIRS = [(name, family) for name in method_names() for family in families(name)]
"""Every method with every family that it runs on."""


def attached(method: Method, family: str = "convvit", *, seed: int = 3) -> Any:
    """The same backbone every time; head and adapters from ``seed``."""
    return copy.deepcopy(_attached(method, family, seed))


@functools.cache
def _attached(method: Method, family: str, seed: int) -> Any:
    network = BACKBONES[family].build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.attach(network)
    return network


def logits(network: Any, family: str = "convvit", *, count: int = 2) -> Tensor:
    """What a network says to a few images, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return network(BACKBONES[family].images(count))


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    """Tensors as bytes, to compare without tolerance."""
    return {key: value.detach().numpy().tobytes() for key, value in tensors.items()}


class Cases(Dataset):
    """Images of two classes that differ in brightness, which a site's ``seed`` draws."""

    def __init__(self, family: str, count: int, seed: int) -> None:
        self.images = BACKBONES[family].images(count, seed=seed)
        self.images[::2] += 0.5

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": index % 2, "subject": str(index)}


class Member:
    """What :class:`monai_fedlora.federated.federated_site.Site` does in a round, without files.

    Args:
        method: of this site.
        family: of the backbone.
        seed: of the site's initial values and data.
        cases: in the site; two make a batch, and a round is one pass.
        learning_rate: of AdamW.
    """

    def __init__(
        self,
        method: Method,
        family: str = "convvit",
        *,
        seed: int = 3,
        cases: int = 4,
        learning_rate: float = 0.02,
        weight_decay: float = 0.05,
        mixed_precision: Precision = "off",
    ) -> None:
        self.method, self.family, self.cases = method, family, cases
        self.network = attached(method, family, seed=seed)
        self.scope: Scope = method.scope(self.network)
        self.optimiser = adamw(network=self.network, learning_rate=learning_rate, weight_decay=weight_decay)
        handler = MethodHandler(network=self.network, method=method.name, method_args=dataclasses.asdict(method))
        self.trainer = CaseTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=case_loader(Cases(family, cases, seed), batch_size=2, shuffle=True, seed=seed),
            network=self.network,
            optimizer=self.optimiser,
            loss_function=cross_entropy(num_classes=2),
            seed=seed,
            train_handlers=[handler],
            mixed_precision=mixed_precision,
        )

    def open(self, number: int, shared: Payload) -> None:
        """Take what the server sent."""
        self.scope.load_shared(self.network, shared)
        self.method.begin_round(self.network, number)
        for name, parameter in self.network.named_parameters():
            if self.method.starts_over(name, self.network):
                self.optimiser.state.pop(parameter, None)

    def train(self, number: int, shared: Payload) -> Payload:
        """Train a round and return what goes to the server."""
        self.open(number, shared)
        self.trainer.run_epochs(1)
        self.network.eval()
        return self.scope.shared_payload(self.network)

    def initial(self) -> Payload:
        """What a server with this network would send first."""
        return self.scope.initial_payload(self.network)

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any], int]:
        """What a site keeps between two rounds: its private tensors, the optimiser's and the epoch."""
        optimiser = {
            name: {slot: torch.as_tensor(value).clone() for slot, value in self.optimiser.state[p].items()}
            for name, p in self.network.named_parameters()
            if p in self.optimiser.state
        }
        return self.scope.private_state(self.network), optimiser, self.trainer.state.epoch

    def restore(self, stored: tuple[dict[str, Tensor], dict[str, Any], int]) -> None:
        """Go on from what another process stored."""
        private, optimiser, epoch = stored
        self.scope.load_private(self.network, private)
        for name, slots in optimiser.items():
            self.optimiser.state[self.network.get_parameter(name)] = slots
        self.trainer.set_epoch(epoch)


def watched(member: Member) -> list[set[str]]:
    """Names of the parameters that each step of the member moves."""
    log: list[set[str]] = []
    state: dict[str, torch.Tensor] = {}

    def before() -> None:
        state.update({name: p.detach().clone() for name, p in member.network.named_parameters()})

    def after() -> None:
        log.append({name for name, p in member.network.named_parameters() if not p.equal(state[name])})

    member.trainer.add_event_handler(Events.ITERATION_STARTED, before)
    member.trainer.add_event_handler(Events.ITERATION_COMPLETED, after)
    return log


def disturbed(member: Member, part: str) -> Member:
    """The member, with noise on the trained parameters whose name holds ``part``."""
    with torch.no_grad():
        for name, parameter in member.network.named_parameters():
            if part in name and parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return member


def aggregated(method: Method, scope: Scope, updates: dict[str, tuple[int, Payload]], reference: Payload) -> Payload:
    """What the server makes of updates: cases and tensors by site."""
    server = SharedAverage(method=method, manifest=scope.manifest, sites=tuple(updates), max_update_rms=1e3)
    server.begin(0, reference)
    for site, (cases, payload) in updates.items():
        server.accept(site, make_update(payload, {"round": 0, "cases": cases}))
    return server.aggregate()


def alone(member: Member, number: int, shared: Payload) -> Payload:
    """A round of a federation of one site: what the server sends next."""
    update = {"only": (member.cases, member.train(number, shared))}
    return aggregated(member.method, member.scope, update, shared)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network of one's own, and its scope."""

    network: Any
    scope: Scope


def trained(method: Method, family: str = "convvit", *, seed: int = 3) -> Trained:
    """A site's network after its first round; the round is computed once per method."""
    member = _after_one_round(method, family, seed)
    return Trained(copy.deepcopy(member.network), member.scope)


@functools.cache
def _after_one_round(method: Method, family: str, seed: int) -> Member:
    member = Member(method, family, seed=seed)
    member.train(0, member.initial())
    return member


def run_federation(
    method: Method, family: str, *, rounds: int = 2, cases: tuple[int, ...] = (8, 12), **settings: Any
) -> tuple[list[Member], Payload]:
    """Run a federation of sites with so many cases each; returns the sites as they end, and the last shared tensors."""
    members = [
        Member(method.for_site(index), family, seed=10 + index, cases=count, **settings)
        for index, count in enumerate(cases)
    ]
    shared = Member(method, family, seed=1).initial()
    for number in range(rounds):
        updates = {
            f"site-{index}": (member.cases, member.train(number, shared)) for index, member in enumerate(members)
        }
        shared = aggregated(method, members[0].scope, updates, shared)
    for member in members:
        member.open(rounds, shared)
        member.network.eval()
    return members, shared
