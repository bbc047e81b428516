"""A method on a network of one's own, for a training loop of one's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.engines.modes import set_training_mode
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Penalty, Phase
from monai_fedlora.methods.choice import MethodChoice, check_attached
from monai_fedlora.networks.opened import OpenedNetwork
from monai_fedlora.scope import Manifest


class Attached:
    """A network with a method's trainable part in place; `monai_fedlora.attach` makes one.

    Names are those of the state dict of ``opened``; those of your own module begin with ``module.``.

    Attributes:
        network: your module, which now holds the adapters.
        opened: what is around it and gives logits; the module itself for a network of the catalogue.
        method: the method with its settings, where ``targets`` are whole dotted names.
        manifest: the names, shapes and types of what travels; nothing else can.
    """

    def __init__(self, opened: Any, choice: MethodChoice) -> None:
        self.opened = opened
        self.network: nn.Module = opened.module if isinstance(opened, OpenedNetwork) else opened
        self.method = choice.method
        self._scope = self.method.scope(opened)
        self.manifest: Manifest = self._scope.manifest
        self._tried = False

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, C, ...) of images (B, ...), by the personal model unless a view says otherwise.

        Raises:
            ConfigError: at the first call, see `monai_fedlora.methods.choice.check_attached`.
        """
        if not self._tried:
            check_attached(self.opened, images)
            self._tried = True
        logits: Tensor = self.opened(images)
        return logits

    def train(self) -> Attached:
        """Put what trains in training mode and the frozen rest in evaluation mode."""
        set_training_mode(self.opened)
        return self

    def eval(self) -> Attached:
        """Put everything in evaluation mode."""
        self.opened.eval()
        return self

    def to(self, device: torch.device | str) -> Attached:
        """Move everything to a device."""
        self.opened.to(device)
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name; the values are what an optimiser takes."""
        return {name: value for name, value in self.opened.named_parameters() if value.requires_grad}

    def initial(self) -> dict[str, np.ndarray]:
        """What a server sends first, so that all sites start alike: see `load_shared`."""
        return self._scope.initial_payload(self.opened)

    def shared(self) -> dict[str, np.ndarray]:
        """A copy of what goes to the server after a round: exactly what the manifest says goes up.

        Raises:
            PrivacyError: a value is not finite.
        """
        return self._scope.shared_payload(self.opened)

    def load_shared(self, tensors: Mapping[str, np.ndarray | Tensor]) -> None:
        """Take what came from the server, as arrays or tensors; what is not as the manifest says changes nothing.

        Raises:
            PrivacyError: a tensor is missing or unknown, has another shape, or is not finite.
        """
        entries = self.manifest.entries
        arrays = {}
        for name, value in tensors.items():
            array = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
            arrays[name] = np.asarray(array, dtype=entries[name].dtype if name in entries else None)
        self._scope.load_shared(self.opened, arrays)

    def combine(
        self, updates: Sequence[tuple[float, Mapping[str, np.ndarray]]], sent: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What the server makes of the sites' `shared` by the method's rule, to be loaded by all of them.

        Args:
            updates: of each site its weight, as a rule its number of training cases, and what it shared. Only the
                weights' proportions count.
            sent: what the sites had loaded before the round.

        Raises:
            ConfigError: a weight is negative, or they have no finite, positive sum.
            PrivacyError: a tensor of a site is missing or unknown, has another shape or type, or is not finite.
        """
        for _, shared in updates:
            self.manifest.up.check(shared)
        total = sum(weight for weight, _ in updates)
        if not 0 < total < float("inf") or min(weight for weight, _ in updates) < 0:
            raise ConfigError(
                f"the updates have the weights {[weight for weight, _ in updates]}; give numbers of cases"
            )
        return self.method.aggregate([(weight / total, shared) for weight, shared in updates], sent, self.manifest)

    def private(self) -> dict[str, Tensor]:
        """A copy of what trains and never leaves the site."""
        return self._scope.private_state(self.opened)

    def load_private(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `private` gave.

        Raises:
            PrivacyError: the names or shapes are others.
        """
        self._scope.load_private(self.opened, tensors)

    def begin_round(self, number: int, optimizer: Optimizer | None = None) -> None:
        """Do what the method does at the start of a round, once `load_shared` has been called.

        Args:
            number: of the round, from 0.
            optimizer: forgets what it remembers of parameters that start over in every round, as in FLoRA.
        """
        self.method.begin_round(self.opened, number)
        for name, parameter in self.trainable().items():
            if optimizer is not None and self.method.starts_over(name, self.opened):
                optimizer.state.pop(parameter, None)

    def phases(self) -> Sequence[Phase]:
        """What trains in which part of a round; empty where everything trains all the time.

        A loop of your own runs ``phase.share`` of its steps inside ``phase.view()``, and sets ``grad`` to None before
        the step for every parameter of `trainable` for whose name ``phase.trains(name)`` is false.
        """
        return self.method.phases(self.opened)

    def penalty(self) -> AbstractContextManager[Penalty]:
        """Context of a round's training that gives a function: the term to add to the loss after each forward pass.

        What the term compares with is the network as it is when the context is entered. A method without one gives 0.
        """
        return self.method.penalty(self.opened) or nullcontext(lambda: torch.zeros(()))

    def personal(self) -> AbstractContextManager[None]:
        """Context in which calls give the personal model's logits, as they do outside of any context."""
        return nullcontext()

    def shared_view(self) -> AbstractContextManager[None]:
        """Context in which calls give the logits of the model that a new site would get, without private parts.

        Raises:
            ConfigError: the method has no such model.
        """
        view = self.method.shared_only(self.opened)
        if view is None:
            raise ConfigError(f"{self.method.name} has no model without its private part, such as a head in the site")
        return view

    def merged(self) -> nn.Module:
        """A copy of your module, of its own class and with its own state-dict keys, that computes the personal model.

        In evaluation mode, and with gradients for all parameters.

        Raises:
            ConfigError: a side network is a part of the model, so that your module alone cannot compute it.
        """
        if self.opened.side is not None:
            raise ConfigError(
                f"{self.method.name} computes with a network beside yours, which cannot be merged into it; use the "
                "attached network itself"
            )
        plain = merge_lora(copy.deepcopy(self.opened)).requires_grad_(True).eval()
        return plain.module if isinstance(plain, OpenedNetwork) else plain


def attach(network: nn.Module, method: MethodChoice, *, images: Tensor | None = None, seed: int = 0) -> Attached:
    """Attach a method to a network, in place, for a training loop of your own.

    The network may be any ``torch.nn.Module``. Its logits are what it returns where this is a tensor, the first element
    of a tuple or list, and ``.logits`` or ``["logits"]`` of anything else.

    Args:
        network: maps a batch of images (B, ...) to logits; it is changed.
        method: from `monai_fedlora.method`.
        images: of the shape (B, ...) that the network takes, to try it at once on random values; otherwise the first
            call does.
        seed: of the initial values of what the method adds.

    Raises:
        ConfigError: a name is nowhere in the network (the nearest are given), a layer cannot have an adapter, the
            network never calls it, or the output is no logits.

    Examples:
        >>> import torch
        >>> import monai_fedlora as fl
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))
        >>> attached = fl.attach(network, fl.method("dual_lora", rank=2, targets="1", head="2"))
        >>> sorted(attached.shared())  # doctest: +NORMALIZE_WHITESPACE
        ['module.1.lora_A.shared.weight', 'module.1.lora_B.shared.weight', 'module.2.bias', 'module.2.weight']
        >>> sorted(attached.private())
        ['module.1.lora_A.private.weight', 'module.1.lora_B.private.weight']
        >>> optimizer = torch.optim.AdamW(attached.trainable().values())
        >>> with attached.penalty() as penalty:
        ...     loss = attached.train()(torch.rand(4, 1, 4, 4)).square().mean() + penalty()
        ...     loss.backward()
        ...     optimizer.step()
        >>> attached.load_shared(attached.shared())
        >>> [name for name, _ in attached.merged().named_parameters()]
        ['1.weight', '1.bias', '2.weight', '2.bias']
    """
    if not isinstance(method, MethodChoice):
        raise ConfigError(f"the method is a {type(method).__name__}; give what fl.method(...) returns")
    opened, chosen = method.attach(network, images=images, seed=seed)
    attached = Attached(opened, MethodChoice(chosen, method.layers, method.head_word))
    attached._tried = images is not None
    return attached
