"""What trainings of one process may keep for each other: images as preprocessed, and outputs of frozen blocks.

Both are pure functions of files and frozen weights, so that they are computed once and used by all. Nothing is kept
unless a :class:`Memory` is in use, and it is forgotten with it. It has a limit; what does not fit is computed again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_fedlora.catalogues import code_of
from monai_fedlora.engines.memory_room import room_in_memory
from monai_fedlora.environment import CACHE_MEMORY

_T = TypeVar("_T")
_PLAIN = (type(None), bool, int, float, str, bytes, Enum, torch.dtype, torch.device, np.dtype)
_NO_SETTINGS = (np.random.RandomState, threading.local)
"""What MONAI's transforms carry, or get when they are first used, without computing anything else for it."""
_ROOMS = ("builtins.", "monai.", "monai_fedlora.", "numpy.", "torch.")


class Memory:
    """Results of pure computations, by what they were computed from.

    All of a process together take at most a share of the memory that is available
    (:func:`~monai_fedlora.engines.memory_room.room_in_memory`). What came first stays: in a training that asks for the
    same results in every epoch, one that made room for another would be gone whenever it is asked for.

    Attributes:
        seconds: spent computing what is kept.
        nbytes: what is kept takes.
        left_out: bytes of each result that found no room, which is computed at every call.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.nbytes = 0
        self.left_out: dict[Hashable, int] = {}
        self._kept: dict[Hashable, Any] = {}
        self._is_full = False
        _all.add(self)

    def recall(self, key: Hashable, make: Callable[[], _T], *, measure: Callable[[Any], int] | None = None) -> _T:
        """Return what is kept under ``key``; the first time, compute it, and keep it where there is room.

        Args:
            key: of what it is computed from.
            make: computes it.
            measure: bytes that keeping it takes; those of its tensors and arrays unless given.
        """
        if key not in self._kept:
            before, started = self.seconds, time.perf_counter()
            made = make()
            if not self.keep(key, made, size=(measure or size_of)(made)):
                return made
            self.seconds = before + time.perf_counter() - started  # with what making it has made on the way
        kept: _T = self._kept[key]
        return kept

    def get(self, key: Hashable) -> Any:
        """What is kept under ``key``, or None."""
        return self._kept.get(key)

    def keep(self, key: Hashable, made: Any, *, size: int | None = None) -> bool:
        """Keep what was computed for ``key``; False where there is no room for it.

        Args:
            key: of what it was computed from.
            made: what was computed.
            size: bytes that keeping it takes; those of its tensors and arrays unless given.
        """
        size = size_of(made) if size is None else size
        if not self._has_room(size):
            self.left_out[key] = size
            return False
        self._kept[key] = made
        self.nbytes += size
        return True

    def told_room(self) -> str:
        """What there is room for, in words, with the setting that gives more."""
        return f"memory has room for {self.nbytes / 1e6:,.1f} MB ({CACHE_MEMORY}, a share of what is available)"

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def _has_room(self, size: int) -> bool:
        if size and not self._is_full:
            held = sum(memory.nbytes for memory in _all)
            self._is_full = held + size > room_in_memory(held)
        return not (size and self._is_full)


_all: WeakSet[Memory] = WeakSet()


def size_of(value: Any) -> int:
    """Bytes of all tensors and arrays in a value, in mappings and sequences too."""
    if isinstance(value, (Tensor, np.ndarray)):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, (list, tuple)) else 0


_active: ContextVar[Memory | None] = ContextVar("memory", default=None)


def active_memory() -> Memory | None:
    """The memory in use, if any."""
    return _active.get()


@contextmanager
def using(memory: Memory) -> Iterator[Memory]:
    """Let every data set and inferer that is built in this context keep its results in ``memory``."""
    token = _active.set(memory)
    try:
        yield memory
    finally:
        _active.reset(token)


def fingerprint(value: Any) -> str | None:
    """Hash of what a transform, a sequence of them, or settings compute: classes and all of their values.

    Returns:
        Hexadecimal digits, equal for two that were built alike; None where a part of it cannot be described: a function
        defined inside another one, or code of neither this package, PyTorch, MONAI nor a plug-in, which may change
        while its name stays.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for part in _describe(value):
            digest.update(part)
    except _Unknown:
        return None
    return digest.hexdigest()


class _Unknown(Exception):
    pass


def _describe(value: Any) -> Iterator[bytes]:
    kind = type(value)
    yield f"<{kind.__module__}.{kind.__qualname__}>".encode()
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
    elif isinstance(value, MetaTensor):
        yield from _describe((value.as_tensor(), value.meta, value.applied_operations))
    elif isinstance(value, (np.ndarray, Tensor)):
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        yield f"{array.dtype}{array.shape}".encode()
        yield array.tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _describe(key)
            yield from _describe(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _describe(item)
    elif isinstance(value, (set, frozenset)):
        yield from _describe(sorted(map(repr, value)))
    elif isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        known = _is_torchs(value) if isinstance(value, BuiltinFunctionType) else is_known(value.__module__)
        if "<" in value.__qualname__ or not known:
            raise _Unknown
        yield f"{value.__module__}.{value.__qualname__}{code_of(value.__module__ or '')}".encode()
    elif is_dataclass(value) and is_known(kind.__module__):
        yield code_of(kind.__module__).encode()
        yield from _describe({field.name: getattr(value, field.name) for field in fields(value)})
    elif is_known(kind.__module__) and hasattr(value, "__dict__"):
        yield code_of(kind.__module__).encode()
        yield from _describe({name: part for name, part in vars(value).items() if not isinstance(part, _NO_SETTINGS)})
    else:
        raise _Unknown
    yield b"</>"


def is_known(module: str | None) -> bool:
    """Whether what is kept is found by the version of a module's code, so that a change of it is noticed."""
    return f"{module}.".startswith(_ROOMS) or bool(code_of(module or ""))


def _is_torchs(function: BuiltinFunctionType) -> bool:
    """Whether a function in C is one of torch, which has nothing but its name."""
    return f"{function.__module__}".startswith("torch.") or function.__qualname__.startswith("_VariableFunctionsClass.")
