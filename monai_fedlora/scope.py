"""The privacy boundary: what may leave a site, by name, shape and dtype.

Every tensor of a network plays one :class:`Role`. The shared ones make up the :class:`Manifest`, which the
site builds its payload from and which every gate (site filter, server filter, aggregator) checks again. All
checks are allow-lists and fail closed: whatever is not declared is refused, whole message, with the names of
the offending keys and never their values.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_fedlora.errors import PrivacyError
from monai_fedlora.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAMES_SHOWN = 8
_WIRE_DTYPES = ("float16", "float32", "float64")
BOTH, UP, DOWN = "both", "up", "down"


class Role(str, Enum):
    """What may happen to a tensor: averaged across sites, kept in the site, or never trained."""

    SHARED = "shared"
    PRIVATE = "private"
    FROZEN = "frozen"


def _names(keys: Any) -> str:
    ordered = sorted(map(repr, keys))
    more = f" and {len(ordered) - _NAMES_SHOWN} more" if len(ordered) > _NAMES_SHOWN else ""
    return ", ".join(ordered[:_NAMES_SHOWN]) + more


@dataclass(frozen=True, slots=True)
class Entry:
    """Shape and numpy dtype name of one shared tensor, and which way it travels.

    Attributes:
        shape: its sizes.
        dtype: numpy name of the type it travels in.
        travels: "up" from the sites to the server, "down" from the server to the sites, or "both" ways.
    """

    shape: tuple[int, ...]
    dtype: str
    travels: str = BOTH

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form."""
        way = {} if self.travels == BOTH else {"travels": self.travels}
        return {"shape": list(self.shape), "dtype": self.dtype, **way}


@dataclass(frozen=True)
class Manifest:
    """The complete list of tensors that may travel between a site and the server."""

    entries: Mapping[str, Entry]

    @property
    def up(self) -> Manifest:
        """What a site may send, and has to."""
        return self._going(UP)

    @property
    def down(self) -> Manifest:
        """What the server may send, and has to."""
        return self._going(DOWN)

    def _going(self, way: str) -> Manifest:
        return Manifest({key: entry for key, entry in self.entries.items() if entry.travels in (BOTH, way)})

    @property
    def nbytes(self) -> int:
        """Bytes of the declared tensors, without any framing."""
        return sum(math.prod(e.shape) * np.dtype(e.dtype).itemsize for e in self.entries.values())

    @property
    def digest(self) -> str:
        """SHA-256 over keys, shapes and dtypes, for comparing two ends."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form; :meth:`from_json` is its inverse."""
        return {key: entry.to_json() for key, entry in sorted(self.entries.items())}

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Parse :meth:`to_json`'s form.

        Raises:
            PrivacyError: the value is not a manifest.
        """
        if not isinstance(value, Mapping):
            raise PrivacyError("not a manifest of shared tensors, but a JSON value of another kind")
        for key, entry in value.items():
            if not isinstance(entry, Mapping) or set(entry) - {"travels"} != {"shape", "dtype"}:
                raise PrivacyError(f"not a manifest of shared tensors: {key!r} needs a shape and a dtype alone")
            if entry.get("travels", BOTH) not in (BOTH, UP, DOWN):
                raise PrivacyError(
                    f"not a manifest of shared tensors: {key!r} travels neither up nor down nor both ways"
                )
            shape = entry["shape"]
            if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
                raise PrivacyError(f"not a manifest of shared tensors: the shape of {key!r} is no list of sizes")
            if entry["dtype"] not in _WIRE_DTYPES:
                raise PrivacyError(
                    f"not a manifest of shared tensors: the dtype of {key!r} is none of {', '.join(_WIRE_DTYPES)}"
                )
        return cls(
            {
                key: Entry(tuple(entry["shape"]), entry["dtype"], entry.get("travels", BOTH))
                for key, entry in value.items()
            }
        )

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest file; errors name it."""
        try:
            return cls.from_json(read_json(path))
        except PrivacyError as error:
            raise PrivacyError(f"{path}: {error}") from error

    def check(self, payload: Any) -> None:
        """Accept ``payload`` only if it holds exactly the declared tensors, all finite.

        Args:
            payload: mapping from key to ``numpy.ndarray``.

        Raises:
            PrivacyError: a key is undeclared or missing, a value is not an array, or its shape, dtype or
                finiteness is wrong. The message names keys, never values.
        """
        if not isinstance(payload, Mapping):
            raise PrivacyError(f"the payload is a {type(payload).__name__}, not a mapping of tensors")
        if unknown := payload.keys() - self.entries.keys():
            raise PrivacyError(f"undeclared keys: {_names(unknown)}; only the manifest's keys may travel")
        if missing := self.entries.keys() - payload.keys():
            raise PrivacyError(f"missing keys: {_names(missing)}; the two ends run different methods or settings")
        for key, entry in self.entries.items():
            array = payload[key]
            if type(array) is not np.ndarray:
                raise PrivacyError(f"{key!r} is a {type(array).__name__}, not a numpy array")
            if array.dtype != np.dtype(entry.dtype) or array.shape != entry.shape:
                raise PrivacyError(
                    f"{key!r} is {array.dtype}{list(array.shape)}, declared as {entry.dtype}{list(entry.shape)}"
                )
            if not np.isfinite(array).all():
                raise PrivacyError(f"{key!r} contains NaN or infinity; training diverged or the file is damaged")


@dataclass(frozen=True)
class Scope:
    """Role of every entry of a network's state dict."""

    roles: Mapping[str, Role]
    manifest: Manifest

    @classmethod
    def of(
        cls,
        network: nn.Module,
        is_shared: Callable[[str], bool],
        *,
        wire_dtype: str = "float32",
        travels: Callable[[str], str | None] = lambda key: None,
    ) -> Scope:
        """Classify the state dict of ``network``.

        A parameter that trains is shared where ``is_shared(key)`` says so and private otherwise; everything
        else is frozen, and ``is_shared`` is not asked about it.

        Args:
            network: attached network; ``requires_grad`` says what trains.
            is_shared: whether a trained parameter travels.
            wire_dtype: floating-point type in which shared tensors travel.
            travels: which way a tensor goes where it is not both. "up" is for shared ones; a tensor that does not
                train can only come "down", which makes it shared too. A private one has no say.
        """
        trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        state = network.state_dict()
        roles = {
            key: Role.PRIVATE
            if key in trained and not is_shared(key)
            else Role.SHARED
            if key in trained or travels(key) == DOWN
            else Role.FROZEN
            for key in state
        }
        shared = sorted(key for key, role in roles.items() if role is Role.SHARED)
        entries = {key: Entry(tuple(state[key].shape), wire_dtype, travels(key) or BOTH) for key in shared}
        return cls(roles, Manifest.from_json(Manifest(entries).to_json()))

    def keys(self, role: Role) -> list[str]:
        """Sorted state-dict keys that play ``role``."""
        return sorted(key for key, value in self.roles.items() if value is role)

    def shared_payload(self, network: nn.Module) -> dict[str, np.ndarray]:
        """Copy the shared tensors out of ``network`` as arrays; nothing else is ever read here.

        Raises:
            PrivacyError: a value is not finite, or too large for the type in which it travels.
        """
        state = network.state_dict()
        with np.errstate(over="ignore"):  # what overflows becomes infinity, which the check refuses
            payload = {
                key: np.array(state[key].detach().cpu().numpy(), dtype=entry.dtype)
                for key, entry in self.manifest.up.entries.items()
            }
        self.manifest.up.check(payload)
        return payload

    def initial_payload(self, network: nn.Module) -> dict[str, np.ndarray]:
        """What a server sends first: the values in ``network`` of everything that travels down."""
        return Scope(self.roles, Manifest(_both_ways(self.manifest.down))).shared_payload(network)

    def private_state(self, network: nn.Module) -> dict[str, Tensor]:
        """Copy the private tensors out of ``network``."""
        state = network.state_dict()
        return {key: state[key].detach().cpu().clone() for key in self.keys(Role.PRIVATE)}

    def load_shared(self, network: nn.Module, payload: Mapping[str, np.ndarray]) -> None:
        """Check a payload from the server and write it into ``network``; a refused one changes nothing.

        Raises:
            PrivacyError: the payload is not exactly what the manifest declares.
        """
        import torch

        self.manifest.down.check(payload)
        _write(network, {key: torch.from_numpy(np.array(array)) for key, array in payload.items()})

    def load_private(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Write private tensors back into ``network``.

        Raises:
            PrivacyError: the keys or shapes are not this network's private ones.
        """
        state, expected = network.state_dict(), set(self.keys(Role.PRIVATE))
        if tensors.keys() != expected:
            raise PrivacyError(
                f"private tensors of another method or experiment: {_names(tensors.keys() ^ expected)} do not match"
            )
        if wrong := [key for key in expected if tensors[key].shape != state[key].shape]:
            raise PrivacyError(f"private tensors of another size: {_names(wrong)}")
        _write(network, tensors)


def _both_ways(manifest: Manifest) -> dict[str, Entry]:
    return {key: Entry(entry.shape, entry.dtype) for key, entry in manifest.entries.items()}


def _write(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    import torch

    state = network.state_dict()
    with torch.no_grad():
        for key, value in tensors.items():
            state[key].copy_(value)


_COUNTS = ("round", "cases")
_NUMBERS = ("seconds", "train_loss")
_METRIC_GROUPS = ("validation", "test")
_METRIC_VIEWS = ("private_on", "private_off")
_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece", "accuracy")
_LARGEST_COUNT = 2**31 - 1
_MOST_CLASSES = 32


def check_report(report: Any) -> None:
    """Accept what a site says about a round beside its tensors: a few named numbers and nothing else.

    Allowed are the counts ``round`` and ``cases``, the numbers ``seconds`` and ``train_loss``, and the metrics of
    ``{validation, test} x {private_on, private_off}``: in [-1, 1], or null where undefined, with the number of
    cases ``n`` and a square confusion matrix of counts for at most 32 classes. No text can pass, so no file name
    or path can; neither can text or an image spelt as one long number or a large matrix.

    Raises:
        PrivacyError: an entry is undeclared or not such a number.
    """
    if not isinstance(report, Mapping):
        raise PrivacyError(f"the report is a {type(report).__name__}, not a mapping")
    for key, value in report.items():
        if key in _COUNTS:
            _check_count(key, value)
        elif key in _NUMBERS:
            _check_number(key, value)
        elif key in _METRIC_GROUPS:
            _check_metrics(key, value)
        else:
            raise PrivacyError(f"undeclared report entry {key!r}")


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
        raise PrivacyError(f"report entry {name!r} must be a whole number from 0 to {_LARGEST_COUNT}")


def _check_number(name: str, value: Any, *, largest: float = _LARGEST_COUNT) -> None:
    if type(value) not in (int, float) or not -largest <= value <= largest:
        raise PrivacyError(f"report entry {name!r} must be a finite number from {-largest} to {largest}")


def _check_metrics(group: str, views: Any) -> None:
    if not isinstance(views, Mapping) or set(views) - set(_METRIC_VIEWS):
        raise PrivacyError(f"report entry {group!r} may only hold {', '.join(_METRIC_VIEWS)}")
    for view, metrics in views.items():
        if not isinstance(metrics, Mapping):
            raise PrivacyError(f"report entry {group}.{view} is not a mapping of metrics")
        for name, value in metrics.items():
            if name == "confusion_matrix":
                _check_confusion(f"{group}.{view}.{name}", value)
            elif name == "n":
                _check_count(f"{group}.{view}.{name}", value)
            elif name not in _METRICS:
                raise PrivacyError(f"undeclared metric {group}.{view}.{name!r}")
            elif value is not None:
                _check_number(f"{group}.{view}.{name}", value, largest=1)


def _check_confusion(name: str, rows: Any) -> None:
    square = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(rows) for row in rows)
    if not square or not 1 <= len(rows) <= _MOST_CLASSES:
        raise PrivacyError(f"report entry {name!r} must be a square list of lists for at most {_MOST_CLASSES} classes")
    for cell in (cell for row in rows for cell in row):
        _check_count(name, cell)
