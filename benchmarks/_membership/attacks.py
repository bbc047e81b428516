"""What a server that looks at one site's answers can compute about a photograph that it holds.

The attacker knows the plan, the frozen backbone, what was sent to the site and what the site answered, round by
round, and the candidates with their classes; not the site's private part. Every score is a sum over rounds, so that no
round is chosen after the fact. It also sees the other sites' answers to the same tensors, which no candidate of this
site has moved: a calibrated score is the score less its mean over those (difficulty calibration, Watson et al., ICLR
2022, with the other sites in place of reference models). What those say alone is the control, which should be guessing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from _membership.centres import Candidates
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from monai_fedlora.auditing.lira import scaled_confidence
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods.base import Method
from monai_fedlora.networks.backbone import Features
from monai_fedlora.privacy.gradients import unit_gradients

BATCH, RIDGE = 16, 0.1
"""Candidates whose mean gradient stands for that of a step, and the penalty of the regression (ours)."""
Payload = Mapping[str, np.ndarray]
Round = tuple[Payload, Mapping[str, Payload]]
"""What the server sent, and what every site answered."""


class Server:
    """The attacker's copy of the network.

    Args:
        plan: the experiment.
        network: as the run begins, with the method attached; a copy is used.
        candidates: of one site.
        blocks: number of the last blocks that have adapters.
    """

    def __init__(self, plan: Plan, network: Any, candidates: Candidates, *, blocks: int) -> None:
        self._method: Method = plan.build_method()
        self._network = copy.deepcopy(network).eval()
        self._sent = plan.scope(self._network).manifest.up.entries
        self._depth = len(self._network.blocks) - blocks
        self._labels = candidates.labels
        with torch.no_grad():
            parts = [self._network.prefix(some, self._depth) for some in candidates.images.split(64)]
        self._features = Features(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _shared(self, payload: Payload) -> dict[str, Tensor]:
        """Put values into the network as they were decoded; returns those that a site trains."""
        named = self._network.state_dict()
        with torch.no_grad():
            for name, values in payload.items():
                named[name].copy_(torch.from_numpy(np.asarray(values, np.float32)))
        return {name: p.detach().clone() for name, p in self._network.named_parameters() if name in self._sent}

    def gradients(self, payload: Payload) -> Tensor:
        """Of every candidate's loss by what a site sends: (N, P)."""
        parameters = self._shared(payload)
        called = partial(functional_call, self._network, tie_weights=False)

        def loss(given: Mapping[str, Tensor], inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
            return cross_entropy(called(dict(given), (Features(*inputs), self._depth)), targets)

        with self._method.shared_only(self._network) or nullcontext():
            chunks = unit_gradients(
                loss, parameters, inputs=self._features, targets=self._labels, sizes=[1] * len(self._labels)
            )
            return torch.cat([torch.cat([g.flatten(1) for g in found.gradients.values()], 1) for found in chunks])

    @torch.no_grad()
    def logits(self, payload: Payload) -> Tensor:
        """What the shared model says of the candidates, (N, classes)."""
        self._shared(payload)
        with self._method.shared_only(self._network) or nullcontext():
            found: Tensor = self._network(self._features, self._depth)
        return found

    def change(self, sent: Payload, answer: Payload) -> Tensor:
        """Of what a site sends, (P,), in the order of :meth:`gradients`."""
        before, after = self._shared(sent), self._shared(answer)
        return torch.cat([(after[name] - before[name]).flatten() for name in before])


def shares(update: Tensor, gradients: Tensor) -> Tensor:
    """How much of each candidate an update is made of, (N,), when it is taken for a sum of their gradients.

    AdamW divides every parameter's gradient by the root of its mean square, which is undone first, as the candidates'
    gradients have it. The sum is then told apart by ridge regression, of gradients of length one.

    Args:
        update: (P,) the change of the parameters.
        gradients: (N, P) of the candidates' losses.
    """
    steps = torch.stack([part.mean(0) for part in gradients.split(BATCH)]).square().mean(0).sqrt()
    unit = -gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
    told = (unit @ unit.T).double() + RIDGE * torch.eye(len(unit), dtype=torch.float64)
    return torch.linalg.solve(told, (unit @ (update * steps)).double())


def scores(server: Server, rounds: Sequence[Round], site: str, labels: Tensor) -> dict[str, Tensor]:
    """By the attack's name, (N,) each, higher for likelier members."""
    losses = partial(cross_entropy, target=labels, reduction="none")
    found: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        found[name] = found.get(name, torch.zeros(len(labels), dtype=torch.float64)) + values.double()

    for sent, answers in rounds:
        gradients, before = server.gradients(sent), server.logits(sent)
        unit = -gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
        by_site: dict[str, dict[str, Tensor]] = {}
        for name, answer in answers.items():
            step, after = server.change(sent, answer), server.logits(answer)
            step = step / step.norm().clamp(min=1e-12)
            by_site[name] = {
                "loss": losses(before) - losses(after),
                "confidence": scaled_confidence(after, labels) - scaled_confidence(before, labels),
                "gradient": unit @ step,
                "share": shares(step, gradients),
            }
        for attack, values in by_site[site].items():
            add(attack, values)
            others = torch.stack([by_site[name][attack] for name in by_site if name != site]).mean(0)
            add(f"{attack}, calibrated", values - others)
            add(f"{attack}, others alone", others)
    return found
