"""What a server that looks at one site's answers can compute about a case that it holds.

The attacker knows the plan, the frozen backbone, what was sent to the site and what the site answered, round by
round, and the candidates with their classes; not the site's private part. Every score is a sum over rounds, so that no
round is chosen after the fact. It also sees the other sites' answers to the same tensors, which no candidate of this
site has moved: a calibrated score is the score less its mean over those (difficulty calibration, Watson et al., ICLR
2022, with the other sites in place of reference models). What those say alone is the control, which should be guessing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from monai_fedlora.auditing.lira import scaled_confidence
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.errors import ExportError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.seen_rounds import Payload, SeenRound
from monai_fedlora.methods.base import Method
from monai_fedlora.privacy.gradients import unit_gradients

CALIBRATED, CONTROL = "calibrated", "others alone"
"""After an attack's name and a comma: less the other sites' scores, and those scores by themselves."""
BATCH, RIDGE = 16, 0.1
"""Candidates whose mean gradient stands for that of a step, and the penalty of the regression (ours)."""
_AT_ONCE = 64


class Server:
    """The attacker's copy of the network.

    Args:
        plan: the experiment.
        network: as the run begins, with the method attached; a copy is used.
        images: (N, ...) candidates as the network takes them.
        labels: (N,) their classes.

    Raises:
        ExportError: the method has no model without private parts, or sends nothing that trains, so that a server
            cannot compute a candidate's gradient.
    """

    def __init__(self, plan: Plan, network: Any, images: Tensor, labels: Tensor) -> None:
        self._method: Method = plan.build_method()
        self._network = copy.deepcopy(network).eval()
        self.labels = labels
        view = self._method.shared_only(self._network)
        if view is None:
            raise ExportError(f"a server has no model of {plan.method} to compute with: a part of every view stays")
        sent = plan.scope(self._network).manifest.up.entries
        self.trained = [name for name, p in self._network.named_parameters() if name in sent and p.requires_grad]
        if not self.trained:
            raise ExportError(f"{plan.method} sends nothing that it trains")
        self._part = frozen_part(self._network)
        with torch.no_grad():
            self._inputs: Sequence[Tensor] = (images,)
            if self._part is not None:
                computed = [self._part.compute(some) for some in images.split(_AT_ONCE)]
                self._inputs = [torch.cat(column) for column in zip(*computed, strict=True)]

    @property
    def numbers(self) -> int:
        """Length P of a gradient."""
        named = dict(self._network.named_parameters())
        return sum(named[name].numel() for name in self.trained)

    def gradients(self, payload: Payload, places: Tensor | None = None) -> Tensor:
        """Of every candidate's loss by what a site trains and sends: (N, P), or of those at some places (M, P)."""
        parameters = self._shared(payload)
        chosen = torch.arange(len(self.labels)) if places is None else places

        def loss(given: Mapping[str, Tensor], inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
            return cross_entropy(self._run(given, inputs), targets)

        with self._method.shared_only(self._network) or nullcontext():
            chunks = unit_gradients(
                loss,
                parameters,
                inputs=[part[chosen] for part in self._inputs],
                targets=self.labels[chosen],
                sizes=[1] * len(chosen),
            )
            return torch.cat([torch.cat([g.flatten(1) for g in found.gradients.values()], 1) for found in chunks])

    def gradient_of(self, payload: Payload, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """From other images (n, ...) of these classes to the gradient (P,) of their mean loss, differentiable itself.

        Args:
            payload: values at which it is taken.
            labels: (n,).
        """
        parameters = {name: value.requires_grad_() for name, value in self._shared(payload).items()}

        def found(images: Tensor) -> Tensor:
            with self._method.shared_only(self._network) or nullcontext(), sdpa_kernel(SDPBackend.MATH):
                logits = functional_call(self._network, parameters, (images,), tie_weights=False)
                loss = cross_entropy(logits, labels)
                parts = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
            return torch.cat([part.flatten() for part in parts])

        return found

    @torch.no_grad()
    def logits(self, payload: Payload) -> Tensor:
        """What the shared model says of the candidates, (N, classes)."""
        parameters = self._shared(payload)
        with self._method.shared_only(self._network) or nullcontext():
            return self._run(parameters, self._inputs)

    def change(self, sent: Payload, answer: Payload) -> Tensor:
        """Of what a site trains and sends, (P,), in the order of :meth:`gradients`."""
        before, after = self._shared(sent), self._shared(answer)
        return torch.cat([(after[name] - before[name]).flatten() for name in before])

    def _run(self, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Tensor:
        def called(*args: Any) -> Any:
            return functional_call(self._network, dict(parameters), args, tie_weights=False)

        found: Tensor = called(*inputs) if self._part is None else self._part.logits(inputs, called)  # type: ignore
        return found

    def _shared(self, payload: Payload) -> dict[str, Tensor]:
        """Put values into the network as they were decoded; returns those that a site trains."""
        named = self._network.state_dict()
        with torch.no_grad():
            for name, values in payload.items():
                named[name].copy_(torch.from_numpy(np.asarray(values, np.float32)))
        parameters = dict(self._network.named_parameters())
        return {name: parameters[name].detach().clone() for name in self.trained}


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


def scores(server: Server, rounds: Iterable[SeenRound], site: str) -> dict[str, Tensor]:
    """By the attack's name, (N,) each, higher for likelier members.

    Args:
        server: with the candidates.
        rounds: that the site has answered; others are passed over.
        site: whose answers are attacked. Where no other site has answered a round, nothing is calibrated in it.
    """
    labels = server.labels
    losses = partial(cross_entropy, target=labels, reduction="none")
    found: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        found[name] = found.get(name, torch.zeros(len(labels), dtype=torch.float64)) + values.double()

    for seen in rounds:
        if site not in seen.answers:
            continue
        gradients, before = server.gradients(seen.sent), server.logits(seen.sent)
        unit = -gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
        by_site: dict[str, dict[str, Tensor]] = {}
        for name, answer in seen.answers.items():
            step, after = server.change(seen.sent, answer), server.logits(answer)
            step = step / step.norm().clamp(min=1e-12)
            by_site[name] = {
                "loss": losses(before) - losses(after),
                "confidence": scaled_confidence(after, labels) - scaled_confidence(before, labels),
                "gradient": unit @ step,
                "share": shares(step, gradients),
            }
        for attack, values in by_site[site].items():
            add(attack, values)
            others = [by_site[name][attack] for name in by_site if name != site]
            if others:
                mean = torch.stack(others).mean(0)
                add(f"{attack}, {CALIBRATED}", values - mean)
                add(f"{attack}, {CONTROL}", mean)
    return found
