"""What a federated method is: which parameters train, which of them travel, how they are averaged."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.methods.rules import Payload, Updates, average, change_length
from monai_fedlora.scope import Manifest, Scope

_BEYOND_NUMBERS = 2**63
_REGISTRY: dict[str, type[Method]] = {}

Penalty = Callable[[], Tensor]
"""The term to add to the loss of the current batch, a scalar; called after the forward pass."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a site's local training in which only some parameters move.

    The forward and backward pass are those of the whole network in the phase's view; parameters that do not train in it
    lose their gradient before the step.

    Attributes:
        share: of the round's steps, above 0; the shares of a round's phases add up to 1. In rounds with fewer steps
            than phases these take turns, see :class:`monai_fedlora.engines.method.Turns`.
        trains: whether the parameter of this state-dict key moves.
        view: context in which the network computes during the phase.
    """

    share: float
    trains: Callable[[str], bool]
    view: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters of a method and the two functions that define it: :meth:`attach` and :meth:`is_shared`.

    All other functions have a default that most methods keep. Subclasses are frozen dataclasses of numbers, strings and
    tuples, so that a job can hold them as JSON. A network computes its site's personal model once a method is attached.
    Where this has no part in common with what is shared, ``personal_apart`` says so: training it further after the last
    round would divide its steps with a model that nobody uses any more.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    most_sites: ClassVar[int | None] = None
    personal_apart: ClassVar[bool] = False

    @property
    def reads_text(self) -> bool:
        """Whether images are compared with texts about the classes, in place of a linear head."""
        return False

    @property
    def writes_text(self) -> bool:
        """Whether these texts change in training, so that the network needs the tower that reads them."""
        return False

    @property
    def why_not_noised(self) -> str | None:
        """Why what a site sends cannot be trained under a budget for privacy; None where it can.

        It can where the shared part trains in the view of :meth:`shared_only`, without anything that stays in the site:
        a private part has seen every patient without noise, so that one patient would change the gradients of all
        others through it.
        """
        return "it does not say that its shared part can be trained without any part that stays in the site"

    @property
    def rule(self) -> str | None:
        """Name of the rule by which :meth:`aggregate` goes, in :data:`monai_fedlora.methods.rules.RULES`, if any."""
        return None

    @abstractmethod
    def attach(self, network: Any) -> None:
        """Add the trainable part to ``network`` in place and set ``requires_grad`` everywhere."""

    @abstractmethod
    def is_shared(self, key: str, network: Any) -> bool:
        """Whether the trained parameter ``key`` travels; what is not claimed here stays private."""

    def shared_only(self, network: Any) -> AbstractContextManager[None] | None:
        """Context in which ``network`` computes the model an unseen site would get.

        None where a method has no such model, because its head or everything is private.
        """
        return nullcontext()

    def travels(self, key: str, network: Any) -> str | None:
        """Which way a tensor travels where it is not both ways: "up", "down", or None for the rule.

        A frozen tensor for which this says "down" comes from the server without being trained.
        """
        return None

    def begin_round(self, network: Any, round_number: int) -> None:  # noqa: B027  (most methods have nothing to do)
        """Prepare ``network``, in place, once it holds the server's and the site's tensors of a round.

        A final evaluation counts as the round after the last.
        """

    def starts_over(self, key: str, network: Any) -> bool:
        """Whether the trained parameter ``key`` gets a new value at the start of every round.

        The optimiser's state of such a parameter (AdamW's moments) belongs to the old value and is dropped.
        """
        return False

    def phases(self, network: Any) -> Sequence[Phase]:
        """What trains in which part of a round, in order; empty: everything trains all the time."""
        return ()

    def penalty(self, network: Any) -> AbstractContextManager[Penalty] | None:
        """Context, entered when a round's training starts, that gives the term to add to the loss; None for none."""
        return None

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Combine the updates of a round on the server, in float64.

        Args:
            updates: accepted updates in the order of the sites' names, with weights n_k / n that add up to 1. An
                update above the limit on its length keeps a part of its weight; the rest goes to ``reference``, which
                is then the last update of the list.
            reference: what was sent to the sites.
            manifest: what travels.

        Returns:
            Everything that travels down.
        """
        return average(updates, manifest.down.entries)

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Euclidean length of an update's change to the tensors that :meth:`aggregate` combines.

        Args:
            tensors: of one site.
            reference: what was sent to the sites.
            manifest: what travels.
        """
        return change_length(tensors, reference, manifest.up.entries)

    def for_site(self, index: int) -> Method:
        """The method with the settings of the site at this place in the federation's list."""
        return self

    def check_sites(self, count: int) -> None:
        """Refuse more sites than the method is made for.

        Raises:
            ConfigError: there are more than :attr:`most_sites`.
        """
        if self.most_sites is not None and count > self.most_sites:
            raise ConfigError(f"{self.name} takes {self.most_sites} site, not {count}: {self.summary}")

    def scope(self, network: Any, *, wire_dtype: str = "float32") -> Scope:
        """Roles of an attached network's tensors."""
        return Scope.of(
            network,
            lambda key: self.is_shared(key, network),
            wire_dtype=wire_dtype,
            travels=lambda key: self.travels(key, network),
        )


def register(method: type[Method]) -> type[Method]:
    """Class decorator that makes a method of this package known by its ``name``; a plug-in's needs none."""
    if method.name in _REGISTRY:
        raise ConfigError(f"two methods are called {method.name!r}")
    _REGISTRY[method.name] = method
    return method


def _problem(found: Any, name: str) -> str | None:
    if not isinstance(found, type) or not issubclass(found, Method) or inspect.isabstract(found):
        return f"{found!r:.80}, which is no class of a method with attach and is_shared"
    if not dataclasses.is_dataclass(found):
        return f"the class {found.__qualname__}, which is no frozen dataclass"
    if unsaid := [word for word in ("name", "summary", "source") if not isinstance(getattr(found, word, None), str)]:
        return f"the class {found.__qualname__}, which does not say its {unsaid[0]}"
    return f"a method that calls itself {found.name!r}" if found.name != name else None


METHODS: Catalogue[type[Method]] = Catalogue("methods", word="method", built_in=_REGISTRY, problem=_problem)
"""All methods by name."""


def method_names() -> list[str]:
    """Names of all methods, those of plug-ins among them, sorted."""
    return METHODS.names()


def get_method(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Method:
    """Build a method.

    Raises:
        ConfigError: unknown name or hyper-parameter (the nearest one is suggested), or a bad value; or a plug-in that
            cannot be used.
        PolicyError: it is a plug-in's, which this process does not trust.
    """
    method = METHODS[name]
    values = dict(hyperparameters or {})
    fields = {field.name: field for field in dataclasses.fields(method)}
    known = list(fields)
    for key in values:
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}{nearest(key, known)}")
        parts = values[key] if isinstance(values[key], (list, tuple)) else [values[key]]
        if any(isinstance(part, int) and abs(part) >= _BEYOND_NUMBERS for part in parts):
            raise ConfigError(f"{key} holds a number of 2^63 or more, which is none that {name} can compute with")
        default = fields[key].default
        if isinstance(default, tuple) and not isinstance(values[key], (list, tuple)):
            example = ",".join(map(str, default)) or "2,5"
            raise ConfigError(
                f"{key} is {values[key]!r}, and {name} takes a list there, such as {example} or, for one, "
                f"{example.partition(',')[0]}, with the comma"
            )
    return method(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
