"""What a federated method is: which parameters train, which of them travel, how they are averaged."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from monai_fedlora.errors import ConfigError
from monai_fedlora.scope import Scope

_REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters of a method and the two functions that define it.

    Subclasses are frozen dataclasses of plain numbers, words and tuples, so that a job can carry them.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

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

    def scope(self, network: Any, *, wire_dtype: str = "float32") -> Scope:
        """Roles of an attached network's tensors."""
        return Scope.of(network, lambda key: self.is_shared(key, network), wire_dtype=wire_dtype)


def register(method: type[Method]) -> type[Method]:
    """Class decorator that makes a method known by its ``name``."""
    if method.name in _REGISTRY:
        raise ConfigError(f"two methods are called {method.name!r}")
    _REGISTRY[method.name] = method
    return method


def method_names() -> list[str]:
    """Names of all registered methods, sorted."""
    return sorted(_REGISTRY)


def get_method(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Method:
    """Build a registered method.

    Raises:
        ConfigError: unknown name or hyper-parameter (the nearest one is suggested), or a bad value.
    """
    if name not in _REGISTRY:
        raise ConfigError(f"no method is called {name!r}{_nearest(name, method_names())}")
    method = _REGISTRY[name]
    values = dict(hyperparameters or {})
    known = [field.name for field in dataclasses.fields(method)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}{_nearest(key, known)}")
    return method(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}"
