"""An encoded update is as close as its bytes allow, forgets nothing for good, and has no room for anything else."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_fedlora.encoding import BLOCK, Encoding, encode_with_memory
from monai_fedlora.errors import PrivacyError

INT8 = Encoding(values="int8")
KINDS = ("int8", "float16", "float32")
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
encodings = st.builds(
    Encoding, values=st.sampled_from(KINDS), kept=st.sampled_from([0.01, 0.1, 0.5, 1.0]) | st.floats(0.001, 1)
)
sizes = st.floats(-1e4, 1e4, allow_nan=False)
updates = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=sizes))
seeds = st.integers(0, 2**32 - 1)


def drawn(size: int, seed: int = 0, *, spread: float = 1.0) -> np.ndarray:
    """Values whose sizes lie ``spread`` powers of e around 1."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=size) * np.exp(spread * generator.normal(size=size))


def read(message: bytes, encoding: Encoding, size: int) -> list[float]:
    """A second reader of the format, one value at a time."""
    count = min(size, max(1, round(encoding.kept * size)))
    place = 0
    scales: tuple[float, ...] = ()
    if encoding.values == "int8":
        scales = struct.unpack_from(f"<{-(-count // 64)}f", message, place)
        place += 4 * len(scales)
    letter = {"int8": "b", "float16": "e", "float32": "f"}[encoding.values]
    values: list[float] = list(struct.unpack_from(f"<{count}{letter}", message, place))
    place += count * struct.calcsize(letter)
    if scales:
        values = [code * scales[number // 64] for number, code in enumerate(values)]
    rest = message[place:]
    number = "H" if size <= 65536 else "I"
    if count == size:
        places = list(range(size))
    elif len(rest) == math.ceil(size / 8) <= count * struct.calcsize(number):
        places = [bit for bit in range(size) if rest[bit // 8] >> bit % 8 & 1]
    else:
        places = list(struct.unpack(f"<{count}{number}", rest))
    decoded = [0.0] * size
    for where, value in zip(places, values, strict=True):
        decoded[where] = value
    return decoded


# ---- what is read is what was written -------------------------------------------------------------------


@given(updates, encodings)
def test_a_message_has_the_announced_length_and_is_read_alike_by_two_readers(
    update: np.ndarray, encoding: Encoding
) -> None:
    message = encoding.encode(update)
    assert message.dtype == np.uint8
    assert message.shape == (encoding.nbytes(update.size),)
    decoded = encoding.decode(message, update.shape)
    assert decoded.dtype == np.float64
    assert decoded.shape == update.shape
    assert decoded.ravel().tolist() == read(message.tobytes(), encoding, update.size)


@pytest.mark.parametrize("kept", [1 / 70_000, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 70_000])
def test_places_of_large_tensors_are_read_alike_by_two_readers(size: int, kept: float) -> None:
    encoding = Encoding(values="int8", kept=kept)
    update = drawn(size)
    message = encoding.encode(update)
    assert encoding.decode(message, (size,)).tolist() == read(message.tobytes(), encoding, size)


@given(st.integers(0, 400), seeds, st.floats(0, 8))
def test_a_value_is_off_by_at_most_half_a_step_of_its_block(size: int, seed: int, spread: float) -> None:
    update = drawn(size, seed, spread=spread)
    decoded = INT8.decode(INT8.encode(update), (size,))
    for start in range(0, size, BLOCK):
        block = slice(start, start + BLOCK)
        step = np.abs(update[block]).max() / 127
        assert np.abs(decoded[block] - update[block]).max() <= step / 2 * (1 + 1e-4)


@given(updates)
def test_zero_stays_zero_and_no_sign_turns(update: np.ndarray) -> None:
    decoded = INT8.decode(INT8.encode(update), update.shape)
    assert (decoded * update >= 0).all()
    assert not decoded[update == 0].any()


@given(hnp.arrays(np.float64, 130, elements=st.floats(-1e-30, 1e-30)))
def test_changes_too_small_for_a_scale_are_nothing(update: np.ndarray) -> None:
    decoded = INT8.decode(INT8.encode(update * 1e-12), update.shape)
    assert not decoded.any()


@given(updates)
def test_values_that_are_steps_of_their_scale_come_back_to_the_bit(update: np.ndarray) -> None:
    message = INT8.encode(update)
    decoded = INT8.decode(message, update.shape)
    again = INT8.encode(decoded)
    assert again.tobytes() == message.tobytes()


@given(updates.map(lambda update: update.astype(np.float16)), st.sampled_from(["float16", "float32"]))
def test_values_of_the_type_that_travels_come_back_to_the_bit(update: np.ndarray, values: str) -> None:
    encoding = Encoding(values=values)
    assert (encoding.decode(encoding.encode(update), update.shape) == update).all()


# ---- the largest changes --------------------------------------------------------------------------------


@given(st.integers(1, 300), seeds, st.floats(0.001, 1))
def test_the_largest_changes_are_kept_and_of_equal_ones_the_first(size: int, seed: int, kept: float) -> None:
    update = np.round(3 * drawn(size, seed)).clip(-5, 5)  # many are equal
    encoding = Encoding(values="float32", kept=kept)
    count = encoding.count(size)
    chosen = np.argsort(-np.abs(update), kind="stable")[:count]
    expected = np.zeros(size)
    expected[chosen] = update[chosen]
    assert (encoding.decode(encoding.encode(update), (size,)) == expected).all()


@given(st.integers(0, 10**6), st.floats(0.0001, 1))
def test_the_share_is_met_but_something_is_always_sent(size: int, kept: float) -> None:
    count = Encoding(values="int8", kept=kept).count(size)
    assert min(size, 1) <= count <= size
    assert abs(count - kept * size) <= 0.5 or count == 1


@pytest.mark.parametrize(
    ("values", "kept", "expected"),
    [
        ("int8", 1.0, 6144 + 4 * 96),
        ("float16", 0.1, 2 * 614 + 6144 // 8),
        ("int8", 0.1, 614 + 4 * 10 + 6144 // 8),
        ("int8", 0.01, 61 + 4 + 2 * 61),
    ],
)
def test_the_bytes_of_a_lora_factor_of_a_768_wide_layer(values: str, kept: float, expected: int) -> None:
    assert Encoding(values=values, kept=kept).nbytes(8 * 768) == expected


def test_eight_bits_take_little_more_than_half_of_float16() -> None:
    for size in (64, 6144, 768 * 768):
        assert INT8.nbytes(size) / (2 * size) == pytest.approx(0.53125)


# ---- the memory -----------------------------------------------------------------------------------------


def send_all(changes: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Sums of what a server decodes after each round, and the last memory."""
    total, residual, sums = np.zeros(changes.shape[1]), None, []
    for change in changes:
        message, residual = encode_with_memory(encoding, change, sent=None, residual=residual)
        total = total + encoding.decode(message, change.shape)
        sums.append(total)
    assert residual is not None
    return np.array(sums), residual


@given(seeds, encodings, st.integers(1, 200))
def test_nothing_is_lost_but_what_the_memory_holds(seed: int, encoding: Encoding, size: int) -> None:
    changes = 0.01 * drawn(8 * size, seed).reshape(8, size)
    sums, residual = send_all(changes, encoding)
    np.testing.assert_allclose(sums[-1] + residual, changes.sum(axis=0), atol=1e-6 * np.abs(changes).sum())


@pytest.mark.parametrize("encoding", [INT8, *(Encoding(values=v, kept=0.1) for v in KINDS)], ids=str)
def test_the_sum_of_what_arrives_approaches_the_sum_of_the_true_updates(encoding: Encoding) -> None:
    """A memory that stays bounded: what is missing from the sum becomes a vanishing part of it."""
    rounds, truth = 400, drawn(150)
    sums, _ = send_all(np.tile(truth, (rounds, 1)), encoding)
    missing = [np.abs(sums[t] / (t + 1) - truth).max() / np.abs(truth).max() for t in (19, rounds - 1)]
    assert missing[1] < missing[0] / 4
    assert missing[1] < 0.02


def test_without_a_memory_small_changes_would_never_arrive() -> None:
    """What the test above would not see if it held anyway."""
    encoding, truth = Encoding(values="int8", kept=0.1), drawn(150)
    alone = encoding.decode(encoding.encode(truth), truth.shape)
    assert (alone == 0).sum() == 135


def test_the_change_is_one_from_what_was_sent() -> None:
    encoding = Encoding(values="float32")
    values, sent, residual = (drawn(10, seed).astype(np.float32) for seed in range(3))
    message, remains = encode_with_memory(encoding, values, sent=sent, residual=residual)
    expected = values.astype(np.float64) - sent + residual
    np.testing.assert_allclose(encoding.decode(message, (10,)), expected, rtol=1e-7)
    assert remains.dtype == np.float32
    assert (sent == drawn(10, 1).astype(np.float32)).all()


def test_a_scalar_has_a_memory_too() -> None:
    message, remains = encode_with_memory(INT8, np.float32(0.3) * np.ones(()), sent=None, residual=None)
    assert message.shape == (5,)
    assert remains.shape == ()


@pytest.mark.parametrize("part", ["sent", "residual"])
def test_a_memory_of_another_size_is_refused(part: str) -> None:
    parts: dict[str, Any] = {"sent": None, "residual": None, part: np.zeros((1,), np.float32)}
    with pytest.raises(PrivacyError, match="size"):
        encode_with_memory(INT8, np.zeros((4,), np.float32), **parts)


# ---- refusals -------------------------------------------------------------------------------------------


@given(st.data(), encodings, updates.filter(lambda update: update.size > 0))
def test_a_change_that_is_not_finite_is_refused(data: st.DataObject, encoding: Encoding, update: np.ndarray) -> None:
    update.flat[data.draw(st.integers(0, update.size - 1))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with pytest.raises(PrivacyError, match="NaN or infinity"):
        encoding.encode(update)


def test_a_change_beyond_the_type_that_travels_is_refused() -> None:
    with pytest.raises(PrivacyError, match="float16"):
        Encoding(values="float16", kept=0.5).encode(np.array([1e5, 0.0]))


@given(encodings, updates, st.integers(-5, 5).filter(bool))
def test_a_message_of_another_length_is_refused(encoding: Encoding, update: np.ndarray, more: int) -> None:
    message = encoding.encode(update)
    wrong = message[:more] if more < 0 else np.concatenate([message, np.zeros(more, np.uint8)])
    assume(wrong.size != message.size)
    with pytest.raises(PrivacyError, match="length"):
        encoding.decode(wrong, update.shape)


@pytest.mark.parametrize("dtype", ["int8", "float16", "uint16", "bool", "O"])
def test_a_message_of_another_type_is_refused(dtype: str) -> None:
    message = INT8.encode(drawn(100))
    with pytest.raises(PrivacyError, match="length"):
        INT8.decode(message.astype(dtype), (100,))
    with pytest.raises(PrivacyError, match="length"):
        INT8.decode(message[None], (100,))


@given(seeds, st.integers(1, 200), st.data())
def test_a_dense_message_that_passes_is_the_only_one_for_its_values(seed: int, size: int, data: st.DataObject) -> None:
    """Nothing can hide in it: whoever reads the values could have written the message."""
    message = INT8.encode(drawn(size, seed))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, message.size - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = INT8.decode(message, (size,))
    except PrivacyError:
        with pytest.raises(PrivacyError):
            INT8.check(message, (size,))
        return
    INT8.check(message, (size,))
    assert INT8.encode(decoded).tobytes() == message.tobytes()


@given(st.binary(min_size=1, max_size=90))
def test_any_bytes_are_refused_or_finite_values(raw: bytes) -> None:
    for encoding in (Encoding(values=values, kept=kept) for values in KINDS for kept in (0.05, 0.3, 1.0)):
        size = next((size for size in range(400) if encoding.nbytes(size) == len(raw)), None)
        if size is None:
            continue
        message = np.frombuffer(raw, np.uint8)
        try:
            decoded = encoding.decode(message, (size,))
        except PrivacyError as error:
            with pytest.raises(PrivacyError, match=re.escape(str(error))):
                encoding.check(message, (size,))
            continue
        encoding.check(message, (size,))
        assert np.isfinite(decoded).all()
        assert np.count_nonzero(decoded) <= encoding.count(size)


def scale(message: np.ndarray, value: float) -> np.ndarray:
    return np.concatenate([np.array([value], "<f4").view(np.uint8), message[4:]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0, 1e-40])
def test_a_scale_that_none_would_write_is_refused(value: float) -> None:
    message = INT8.encode(drawn(10))
    with pytest.raises(PrivacyError, match="scale"):
        INT8.decode(scale(message, value), (10,))


@pytest.mark.parametrize("codes", [[-128, 127], [1, 2], [0, 0], [126, -126]])
def test_codes_that_do_not_use_their_scale_are_refused(codes: list[int]) -> None:
    message = np.concatenate([np.array([0.5], "<f4").view(np.uint8), np.array(codes, np.int8).view(np.uint8)])
    with pytest.raises(PrivacyError, match="do not use their scale"):
        INT8.decode(message, (2,))


def test_codes_without_a_scale_are_refused() -> None:
    """They would travel, and decode to nothing."""
    with pytest.raises(PrivacyError, match="do not use their scale"):
        INT8.decode(scale(INT8.encode(drawn(64)), 0.0), (64,))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("values", ["float16", "float32"])
def test_a_value_that_is_not_finite_is_refused(values: str, value: float) -> None:
    encoding = Encoding(values=values, kept=0.5)
    message = encoding.encode(drawn(4))
    width = np.dtype(values).itemsize
    message[:width] = np.array([value], values).view(np.uint8)
    with pytest.raises(PrivacyError, match="NaN or infinity"):
        encoding.decode(message, (4,))


@pytest.mark.parametrize("places", [[5, 5], [7, 3], [3, 100], [3, 65535], [100, 101]], ids=str)
def test_numbers_of_places_that_none_would_write_are_refused(places: list[int]) -> None:
    encoding = Encoding(values="float32", kept=0.02)
    message = encoding.encode(drawn(100))
    assert message.size == 2 * 4 + 2 * 2
    message[8:] = np.array(places, "<u2").view(np.uint8)
    with pytest.raises(PrivacyError, match="places"):
        encoding.decode(message, (100,))


@pytest.mark.parametrize("bits", [[0b1, 0], [0b111, 0], [0b1, 0b100], [0b1, 0b10000000], [0, 0]], ids=str)
def test_bits_of_places_that_none_would_write_are_refused(bits: list[int]) -> None:
    encoding = Encoding(values="float32", kept=0.2)
    message = encoding.encode(drawn(10))
    assert message.size == 2 * 4 + 2
    message[8:] = bits
    with pytest.raises(PrivacyError, match="places"):
        encoding.decode(message, (10,))
    message[8:] = 0b1, 0b10
    assert encoding.decode(message, (10,)).nonzero()[0].tolist() == [0, 9]


# ---- settings -------------------------------------------------------------------------------------------


@given(encodings)
def test_an_encoding_survives_json(encoding: Encoding) -> None:
    assert Encoding.from_json(encoding.to_json()) == encoding


@pytest.mark.parametrize(
    "value",
    [
        None,
        "int8",
        {},
        {"values": "int8"},
        {"values": "int8", "kept": 1.0, "block": 64},
        {"values": "int4", "kept": 1.0},
        {"values": None, "kept": 1.0},
        {"values": ["int8"], "kept": 1.0},
        *({"values": "int8", "kept": kept} for kept in (0, -0.1, 1.5, math.nan, math.inf, True, "1", None)),
    ],
    ids=str,
)
def test_what_is_no_encoding_is_refused(value: Any) -> None:
    with pytest.raises(PrivacyError, match="an encoding"):
        Encoding.from_json(value)
