"""Compression of updates: eight-bit values with a scale per block, and only the largest changes of a tensor.

The encoded value is a difference: a site's tensor minus the one that the server sent, plus the residual of earlier
rounds (error feedback). It is sent as one array of bytes per tensor, little-endian, whose length follows from the
tensor's shape:

    scales   with int8 values: float32, one for each block of 64 values
    values   int8, float16 or float32, in the order of their places in the flattened tensor
    places   unless all values are sent: one bit per place or a list of numbers, whichever takes fewer bytes

A block is 64 consecutive values (ours; the last one of a tensor may be shorter); if the width of a matrix is a multiple
of 64, no block crosses its rows. A value is its code, from -127 to 127, times the block's scale, with an error of at
most half a scale. Block-wise scales: Dettmers et al., ICLR 2022; sending the largest values with a residual: Stich et
al., NeurIPS 2018; that a residual compensates for what an encoding leaves out: Karimireddy et al., ICML 2019.

Encoding is part of the site and of the aggregation, not a filter of the job: NVFlare runs a site's own filters before
those of the job, so that a site's privacy filter would not see the output of an encoding filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import PrivacyError

BLOCK = 64
_VALUES = {"int8": "<i1", "float16": "<f2", "float32": "<f4"}
_LARGEST_CODE = 127
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the update of a tensor is encoded.

    Args:
        values: "int8", in blocks with a float32 scale, "float16" or "float32".
        kept: share of a tensor's values that is sent, above 0 and at most 1; at least one value is sent.
    """

    values: str
    kept: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.values, str) or self.values not in _VALUES:
            raise PrivacyError(f"an encoding has values of {', '.join(_VALUES)}, no others")
        if type(self.kept) not in (int, float) or not 0 < self.kept <= 1:
            raise PrivacyError("an encoding keeps a share of the values above 0 and at most 1")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form; :meth:`from_json` is its inverse."""
        return {"values": self.values, "kept": self.kept}

    @classmethod
    def from_json(cls, value: Any) -> Encoding:
        """Parse :meth:`to_json`'s form.

        Raises:
            PrivacyError: the value is not an encoding.
        """
        if not isinstance(value, Mapping) or set(value) != {"values", "kept"}:
            raise PrivacyError("an encoding says which values are sent and which share is kept, nothing else")
        return cls(**value)

    def count(self, size: int) -> int:
        """Number of values that are sent of a tensor with ``size`` values."""
        return min(size, max(1, round(self.kept * size)))

    def nbytes(self, size: int) -> int:
        """Bytes of the encoded update of a tensor with ``size`` values."""
        return sum(self._lengths(size))

    def _lengths(self, size: int) -> tuple[int, int, int]:
        """Bytes of scales, values and places."""
        count = self.count(size)
        scales = 4 * math.ceil(count / BLOCK) if self.values == "int8" else 0
        places = min(math.ceil(size / 8), count * _number_type(size).itemsize) if count < size else 0
        return scales, count * np.dtype(_VALUES[self.values]).itemsize, places

    def encode(self, update: np.ndarray) -> np.ndarray:
        """Encode an update; of equally large changes the first ones are sent.

        Returns:
            uint8 array of :meth:`nbytes` bytes.

        Raises:
            PrivacyError: a value is not finite, or larger than the type of the values can hold.
        """
        flat = np.asarray(update, dtype=np.float64).ravel()
        if not np.isfinite(flat).all():
            raise PrivacyError("contains NaN or infinity; training diverged")
        count = self.count(flat.size)
        places = _largest(np.abs(flat), count)
        parts: list[np.ndarray] = []
        if self.values == "int8":
            parts += _quantise(flat[places])
        else:
            with np.errstate(over="ignore"):
                parts.append(flat[places].astype(_VALUES[self.values]))
            if not np.isfinite(parts[0]).all():
                raise PrivacyError(f"changed by more than {self.values} can hold; training diverged")
        if count < flat.size:
            parts.append(_write_places(places, flat.size))
        return np.concatenate([np.frombuffer(part.tobytes(), np.uint8) for part in parts])

    def check(self, message: np.ndarray, shape: tuple[int, ...]) -> None:
        """Refuse a message that :meth:`encode` cannot have written, without decoding its values.

        Raises:
            PrivacyError: see :meth:`decode`, which accepts the same messages.
        """
        self._parts(message, math.prod(shape))

    def decode(self, message: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Decode an update to float64; values that were not sent are zero.

        Args:
            message: an array from :meth:`encode`.
            shape: shape of the tensor.

        Raises:
            PrivacyError: the message has another form or length, a scale or value is not finite, a block does not use
                its scale, or the places are out of range, repeated, unsorted or of another number.
        """
        size = math.prod(shape)
        scales, sent, places = self._parts(message, size)
        values = sent * _per_value(scales, sent.size) if self.values == "int8" else sent.astype(np.float64)
        if places is None:
            return values.reshape(shape)
        update = np.zeros(size)
        update[places] = values
        return update.reshape(shape)

    def _parts(self, message: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Check a message and split it into scales, codes or values, and places (None where all values are sent)."""
        scales, values, places = self._lengths(size)
        if message.dtype != np.uint8 or message.shape != (scales + values + places,):
            raise PrivacyError("is not of the encoding's length")
        message = np.ascontiguousarray(message)
        steps, sent = message[:scales].view("<f4"), message[scales : scales + values].view(_VALUES[self.values])
        if self.values == "int8":
            _check_codes(steps, sent)
        elif not np.isfinite(sent).all():
            raise PrivacyError("contains NaN or infinity; training diverged or the file is damaged")
        return steps, sent, _read_places(message[scales + values :], size, self.count(size)) if places else None


def encode_with_memory(
    encoding: Encoding, values: np.ndarray, *, sent: np.ndarray | None, residual: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Encode a site's change of a tensor plus the residual of earlier rounds (error feedback).

    Args:
        encoding: the tensor's encoding.
        values: the tensor of the site.
        sent: the tensor that the server has sent; None counts as zero.
        residual: what earlier rounds have not sent; None for nothing.

    Returns:
        The message, and the new residual: float32, of the tensor's shape.

    Raises:
        PrivacyError: the change cannot be encoded, or the residual has another shape.
    """
    update = values.astype(np.float64)
    for part, sign in ((sent, -1), (residual, 1)):
        if part is not None and part.shape != values.shape:
            raise PrivacyError("was of another size when the round started")
        update = update if part is None else update + sign * part.astype(np.float64)
    message = encoding.encode(update)
    return message, np.asarray(update - encoding.decode(message, values.shape), dtype=np.float32)


def _quantise(values: np.ndarray) -> list[np.ndarray]:
    """Scales and codes; a block whose scale would be subnormal is sent as zeros."""
    largest = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, BLOCK)) if values.size else values
    scales = (largest / _LARGEST_CODE).astype("<f4")
    scales[scales < _SMALLEST_SCALE] = 0
    steps = _per_value(scales, values.size)
    codes = np.divide(values, steps, out=np.zeros(values.size), where=steps > 0)
    return [scales, np.clip(np.rint(codes), -_LARGEST_CODE, _LARGEST_CODE).astype("<i1")]


def _check_codes(scales: np.ndarray, codes: np.ndarray) -> None:
    """Refuse blocks that :func:`_quantise` does not write."""
    if not np.isfinite(scales).all() or np.signbit(scales).any():
        raise PrivacyError("has a scale that is not finite or negative")
    sizes = np.abs(codes).view(np.uint8)  # uint8, because the absolute value of -128 exceeds int8
    largest = np.maximum.reduceat(sizes, np.arange(0, codes.size, BLOCK)) if codes.size else sizes
    used = np.where(scales >= _SMALLEST_SCALE, _LARGEST_CODE, 0)
    if (largest != used).any() or ((scales > 0) & (scales < _SMALLEST_SCALE)).any():
        raise PrivacyError("has codes that do not use their scale")


def _per_value(scales: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(scales.astype(np.float64), BLOCK)[:count]


def _largest(sizes: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` largest values, ascending; of equal values the first."""
    if count == sizes.size:
        return np.arange(count)
    least = np.partition(sizes, sizes.size - count)[sizes.size - count]
    above = np.flatnonzero(sizes > least)
    return np.sort(np.concatenate([above, np.flatnonzero(sizes == least)[: count - above.size]]))


def _number_type(size: int) -> np.dtype:
    return np.dtype("<u2" if size <= 2**16 else "<u4")


def _as_bitmap(size: int, count: int) -> bool:
    return math.ceil(size / 8) <= count * _number_type(size).itemsize


def _write_places(places: np.ndarray, size: int) -> np.ndarray:
    if not _as_bitmap(size, places.size):
        return places.astype(_number_type(size))
    bits = np.zeros(size, dtype=bool)
    bits[places] = True
    return np.packbits(bits, bitorder="little")


def _read_places(message: np.ndarray, size: int, count: int) -> np.ndarray:
    if _as_bitmap(size, count):
        places = np.flatnonzero(np.unpackbits(message, bitorder="little"))
    else:
        places = message.view(_number_type(size)).astype(np.int64)
    if places.size != count or places[-1] >= size or (np.diff(places) <= 0).any():
        raise PrivacyError("has places that are out of range, repeated, unsorted or of another number")
    return places
