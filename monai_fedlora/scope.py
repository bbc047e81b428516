"""The privacy boundary: what may leave a site, by name, shape and dtype.

Every tensor of a network has one :class:`Role`. The shared ones are listed in the :class:`Manifest`. A site builds its
payload from it, and every gate (site filter, server filter, aggregator) checks the payload against it again. All checks
are allow-lists and fail closed: a message with anything undeclared is refused as a whole, and the error names the
offending keys, never their values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from monai_fedlora.encoding import Encoding, encode_with_memory
from monai_fedlora.errors import PrivacyError
from monai_fedlora.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

_Read = TypeVar("_Read")
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
        shape: shape of the tensor.
        dtype: numpy name of the type in which it is sent.
        travels: "up" from the sites to the server, "down" from the server to the sites, or "both" ways.
        encoding: how a site encodes its change of the tensor, which it then sends instead of the tensor; None sends the
            tensor itself.
    """

    shape: tuple[int, ...]
    dtype: str
    travels: str = BOTH
    encoding: Encoding | None = None

    def __str__(self) -> str:
        tensor = f"{self.dtype}{list(self.shape)}"
        if self.encoding is None:
            return tensor
        count = self.encoding.count(math.prod(self.shape))
        return f"{tensor}, of which {count} changes go up as {self.encoding.values}, {self.nbytes} bytes"

    @property
    def form(self) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and shape of the array that is sent."""
        if self.encoding is None:
            return np.dtype(self.dtype), self.shape
        return np.dtype("uint8"), (self.encoding.nbytes(math.prod(self.shape)),)

    @property
    def nbytes(self) -> int:
        """Bytes of the array that is sent."""
        dtype, shape = self.form
        return math.prod(shape) * dtype.itemsize

    def check(self, array: np.ndarray) -> None:
        """Refuse an array of :attr:`form` that holds NaN or infinity, or that the encoding cannot have written."""
        if self.encoding is not None:
            self.encoding.check(array, self.shape)
        elif not np.isfinite(array).all():
            raise PrivacyError("contains NaN or infinity; training diverged or the file is damaged")

    def open(self, array: np.ndarray, sent: np.ndarray | None) -> np.ndarray:
        """The tensor behind an array, in float64 if it was encoded; see :meth:`Manifest.open`."""
        if self.encoding is None:
            self.check(array)
            return array
        before = np.float64(0) if sent is None else sent.astype(np.float64)
        tensor = np.asarray(self.encoding.decode(array, self.shape) + before)
        if (np.abs(tensor) > np.finfo(self.dtype).max).any():
            raise PrivacyError(f"changed to values that {self.dtype} cannot hold")
        return tensor

    def encoded(self, encoding: Encoding) -> Entry:
        """The entry with this encoding if the tensor is sent by sites and takes fewer bytes encoded; else unchanged."""
        entry = dataclasses.replace(self, encoding=encoding)
        return self if self.travels == DOWN or entry.nbytes >= self.nbytes else entry

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form."""
        more: dict[str, Any] = {} if self.travels == BOTH else {"travels": self.travels}
        if self.encoding is not None:
            more["encoding"] = self.encoding.to_json()
        return {"shape": list(self.shape), "dtype": self.dtype, **more}

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        """Parse :meth:`to_json`'s form.

        Raises:
            PrivacyError: the value is not an entry.
        """
        if not isinstance(value, Mapping) or set(value) - {"travels", "encoding"} != {"shape", "dtype"}:
            raise PrivacyError("needs a shape and a dtype alone")
        shape, dtype, travels = value["shape"], value["dtype"], value.get("travels", BOTH)
        if travels not in (BOTH, UP, DOWN):
            raise PrivacyError("travels neither up nor down nor both ways")
        if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
            raise PrivacyError("has a shape that is no list of sizes")
        if dtype not in _WIRE_DTYPES:
            raise PrivacyError(f"has a dtype that is none of {', '.join(_WIRE_DTYPES)}")
        if "encoding" in value and travels == DOWN:
            raise PrivacyError("only comes down and has an encoding")
        encoding = Encoding.from_json(value["encoding"]) if "encoding" in value else None
        return cls(tuple(shape), dtype, travels, encoding)


@dataclass(frozen=True)
class Manifest:
    """The complete list of tensors that may travel between a site and the server."""

    entries: Mapping[str, Entry]

    @property
    def up(self) -> Manifest:
        """The tensors that a site sends, all of them, encoded where the manifest has an encoding."""
        return self._going(UP)

    @property
    def down(self) -> Manifest:
        """The tensors that the server sends, all of them, without encoding."""
        entries = self._going(DOWN).entries
        return Manifest({key: dataclasses.replace(entry, encoding=None) for key, entry in entries.items()})

    def encoded(self, encoding: Encoding) -> Manifest:
        """The manifest for sites that encode their updates wherever this saves bytes."""
        return Manifest({key: entry.encoded(encoding) for key, entry in self.entries.items()})

    def _going(self, way: str) -> Manifest:
        return Manifest({key: entry for key, entry in self.entries.items() if entry.travels in (BOTH, way)})

    @property
    def nbytes(self) -> int:
        """Bytes of the declared arrays, without message overhead."""
        return sum(entry.nbytes for entry in self.entries.values())

    @property
    def digest(self) -> str:
        """SHA-256 over keys, shapes, dtypes and encodings, for comparing two ends."""
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
        entries = {}
        for key, entry in value.items():
            with _about(f"not a manifest of shared tensors: {key!r}:"):
                entries[key] = Entry.from_json(entry)
        return cls(entries)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest file; errors name it."""
        try:
            return cls.from_json(read_json(path))
        except PrivacyError as error:
            raise PrivacyError(f"{path}: {error}") from error

    def check(self, payload: Any) -> None:
        """Accept ``payload`` only if it holds exactly the declared tensors, all finite, or their declared encodings.

        For gates, which check a message before the aggregator or the site opens it; no value is decoded.

        Args:
            payload: mapping from key to ``numpy.ndarray``.

        Raises:
            PrivacyError: a key is undeclared or missing, a value is not an array, its shape, dtype or finiteness is
                wrong, or the encoding cannot have written it. The message names keys, never values.
        """
        self._each(payload, {}, lambda entry, array, sent: entry.check(array))

    def open(self, payload: Any, sent: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check a payload and decode its tensors.

        Args:
            payload: mapping from key to ``numpy.ndarray``, as it was received.
            sent: the tensors that the server has sent before; a missing one counts as zero.

        Returns:
            Tensors of the declared shapes, all finite; encoded ones in float64, the others unchanged.

        Raises:
            PrivacyError: :meth:`check` refuses the payload, or a changed value exceeds the range of the tensor's type.
        """
        return self._each(payload, sent, Entry.open)

    def _each(
        self,
        payload: Any,
        sent: Mapping[str, np.ndarray],
        read: Callable[[Entry, np.ndarray, np.ndarray | None], _Read],
    ) -> dict[str, _Read]:
        """Apply ``read`` to every declared array, after checking that it is there and has its declared form."""
        if not isinstance(payload, Mapping):
            raise PrivacyError(f"the payload is a {type(payload).__name__}, not a mapping of tensors")
        if unknown := payload.keys() - self.entries.keys():
            raise PrivacyError(f"undeclared keys: {_names(unknown)}; only the manifest's keys may travel")
        if missing := self.entries.keys() - payload.keys():
            raise PrivacyError(f"missing keys: {_names(missing)}; the two ends run different methods or settings")
        found = {}
        for key, entry in self.entries.items():
            array = payload[key]
            if type(array) is not np.ndarray:
                raise PrivacyError(f"{key!r} is a {type(array).__name__}, not a numpy array")
            dtype, shape = entry.form
            if array.dtype != dtype or array.shape != shape:
                raise PrivacyError(f"{key!r} is {array.dtype}{list(array.shape)}, declared as {dtype}{list(shape)}")
            with _about(repr(key)):
                found[key] = read(entry, array, sent.get(key))
        return found


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Prefix the message of a `PrivacyError` raised inside the block."""
    try:
        yield
    except PrivacyError as error:
        raise PrivacyError(f"{what} {error}") from None


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

        A trained parameter is shared if ``is_shared(key)`` and private otherwise. Everything else is frozen, and
        ``is_shared`` is not called for it.

        Args:
            network: attached network; parameters with ``requires_grad`` are trained.
            is_shared: whether a trained parameter is shared.
            wire_dtype: floating-point type in which shared tensors are sent.
            travels: the direction of a tensor, None for both. "up" is for shared ones. A tensor that is not trained can
                only come "down", which makes it shared too. Ignored for private ones.
        """
        named = network.named_parameters(remove_duplicate=False)  # tied weights have several names
        trained = {name for name, parameter in named if parameter.requires_grad}
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
        """Sorted state-dict keys with this role."""
        return sorted(key for key, value in self.roles.items() if value is role)

    def shared_payload(self, network: nn.Module) -> dict[str, np.ndarray]:
        """The payload of :meth:`update` for a server that has sent nothing and without a residual."""
        return self.update(network, sent={}, residual={})[0]

    def update(
        self, network: nn.Module, *, sent: Mapping[str, np.ndarray], residual: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Copy the shared tensors out of ``network`` as arrays; no other tensor is read.

        Args:
            network: the network after the round's training.
            sent: the tensors that the server has sent for the round.
            residual: residuals of earlier rounds (error feedback), by key.

        Returns:
            The payload, and the new residuals, which stay in the site.

        Raises:
            PrivacyError: a value is not finite, or too large for the type in which it is sent.
        """
        state = network.state_dict()
        payload, remains = {}, {}
        for key, entry in self.manifest.up.entries.items():
            tensor = state[key].detach().cpu()
            values = (tensor.float() if tensor.element_size() < 4 else tensor).numpy()  # numpy has no bfloat16
            with (
                _about(repr(key)),
                np.errstate(over="ignore"),
            ):  # an overflow gives infinity, which the check refuses
                if entry.encoding is None:
                    payload[key] = np.array(values, dtype=entry.dtype)
                    entry.check(payload[key])
                else:
                    payload[key], remains[key] = encode_with_memory(
                        entry.encoding, values, sent=sent.get(key), residual=residual.get(key)
                    )
        return payload, remains

    def initial_payload(self, network: nn.Module) -> dict[str, np.ndarray]:
        """The first payload of a server: the values in ``network`` of all tensors that are sent to sites."""
        return Scope(self.roles, Manifest(_both_ways(self.manifest.down))).shared_payload(network)

    def private_state(self, network: nn.Module) -> dict[str, Tensor]:
        """Copy the private tensors out of ``network``."""
        state = network.state_dict()
        return {key: state[key].detach().cpu().clone() for key in self.keys(Role.PRIVATE)}

    def load_shared(self, network: nn.Module, payload: Mapping[str, np.ndarray]) -> None:
        """Check a payload from the server and write it into ``network``; a refused payload changes nothing.

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
