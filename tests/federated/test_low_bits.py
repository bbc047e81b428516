"""What rounding by chance leaves of a value and of a hidden picture, and that nobody can wear the chance down.

The smuggler of these tests hides a picture of 4 kB in an update of the size of a small adapter; the accomplice reads
it from what has passed the gate. Capacity is that of a binary symmetric channel with the share of wrong bits that was
counted; how far the update lies from the honest one is told in lengths of the honest change.
"""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvflare.apis.dxo import DataKind
from nvflare.apis.filter import ContentBlockedException, FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import open_message, weights_message
from monai_fedlora.federated.low_bits import KEY_NAME, rounded, rounded_payload, site_key
from monai_fedlora.files import write_json
from monai_fedlora.scope import Entry, Manifest
from tests.helpers import make_plan

VALUES = 18_820
PICTURE = np.unpackbits(np.random.default_rng(4).integers(0, 256, 4096, dtype=np.uint8))
MANIFEST = Manifest({"a": Entry((VALUES,), "float16")})
KEY = bytes(32)
halves = st.floats(-65504, 65504, width=16)
singles = st.floats(-(2.0**127), 2.0**127, width=32)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(halves, min_size=1, max_size=20), st.integers(1, 12), st.integers(0, 99))
def test_a_value_becomes_one_of_its_neighbours_with_so_many_bits(values: list[float], bits: int, seed: int) -> None:
    before = np.array(values, np.float16)
    after = rounded(before, bits=bits, random=random(seed))
    assert after.dtype == before.dtype and np.isfinite(after).all()
    steps = np.ldexp(1.0, np.frexp(before.astype(float))[1] - bits - 1)
    assert (np.abs(after.astype(float) - before) < steps + 1e-30).all()
    places = np.ldexp(np.frexp(after.astype(float))[0], bits + 1)
    np.testing.assert_array_equal(places, np.round(places))
    np.testing.assert_array_equal(rounded(after, bits=bits, random=random(seed + 1)), after)


@given(st.lists(singles, min_size=1, max_size=20))
def test_values_of_single_precision_stay_finite_and_zero_stays_zero(values: list[float]) -> None:
    after = rounded(np.array([*values, 0.0, -3.4028e38], np.float32), bits=3, random=random())
    assert np.isfinite(after).all() and after[-2] == 0


def test_the_mean_of_many_roundings_is_the_value() -> None:
    value, bits = np.full(40_000, -0.3137, np.float32), 2
    found = rounded(value, bits=bits, random=random(1)).astype(float)
    assert len(np.unique(found)) == 2
    assert found.mean() == pytest.approx(-0.3137, abs=5 * found.std() / 200)


def test_chance_comes_from_the_secret_and_the_message() -> None:
    payload = {"b": np.linspace(0.1, 1, 500, dtype=np.float16), "a": np.ones((2, 3), np.float32) / 3}
    once, again = (rounded_payload(payload, bits=3, key=KEY) for _ in range(2))
    assert list(once) == list(payload)
    other = rounded_payload(payload, bits=3, key=bytes([1] * 32))
    changed = rounded_payload({**payload, "a": payload["a"] * 2}, bits=3, key=KEY)
    for name in payload:
        np.testing.assert_array_equal(once[name], again[name])  # what is sent again tells nothing more
    assert (once["b"] != other["b"]).any() and (once["b"] != changed["b"]).any()


def test_the_secret_is_drawn_once_and_is_the_owners(tmp_path: Path) -> None:
    key = site_key(tmp_path)
    assert site_key(tmp_path) == key and len(key) == 32 and key != bytes(32)
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert site_key(tmp_path / "other") != key
    (tmp_path / KEY_NAME).write_bytes(key[:-1])
    with pytest.raises(PrivacyError, match=r"low_bits.key does not hold 32 bytes"):
        site_key(tmp_path)


# ---- at the gate ----------------------------------------------------------------------------------------


@pytest.fixture
def fl_ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FLContext:
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "private"))
    context = FLContext()
    write_json(tmp_path / "config" / "plan.json", make_plan().to_json())
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    return context


def through(payload: dict[str, np.ndarray], fl_ctx: FLContext, folder: Path, kept: int | None, **more: object) -> dict:
    """What a message's tensors are after the site's gate."""
    path = folder / "approved.json"
    write_json(path, (more.get("manifest") or MANIFEST).to_json())
    gate = SharedOnly(manifest=str(path), classes=2, kept_bits=kept)
    gate.set_prop(FilterContextKey.CHAIN_TYPE, more.get("chain", FilterChainType.TASK_RESULT_CHAIN))
    return open_message(gate.process(weights_message(payload), fl_ctx), DataKind.WEIGHTS).data


def test_the_gate_rounds_what_leaves_and_nothing_else(fl_ctx: FLContext, tmp_path: Path) -> None:
    honest, _ = update()
    before = {key: value.copy() for key, value in honest.items()}
    left = through(honest, fl_ctx, tmp_path, 5)
    np.testing.assert_array_equal(honest["a"], before["a"])  # the site keeps what it has trained
    assert (left["a"] != honest["a"]).mean() > 0.9
    np.testing.assert_array_equal(left["a"], through(honest, fl_ctx, tmp_path, 5)["a"])
    came = through(honest, fl_ctx, tmp_path, 5, chain=FilterChainType.TASK_DATA_CHAIN)
    np.testing.assert_array_equal(came["a"], honest["a"])


def test_encoded_changes_do_not_pass_a_gate_that_rounds(fl_ctx: FLContext, tmp_path: Path) -> None:
    encoding = Encoding(values="int8")
    payload = {"a": encoding.encode(random().normal(size=VALUES))}
    with pytest.raises(ContentBlockedException, match=r"'a' is an encoded change.*wire_dtype 'float16'.*kept_bits"):
        through(payload, fl_ctx, tmp_path, 5, manifest=MANIFEST.encoded(encoding))


@pytest.mark.parametrize("bits", [0, -1, 2.0, True, "4"])
def test_a_number_of_bits_that_is_none_is_refused(bits: object) -> None:
    with pytest.raises(ConfigError, match="kept_bits is"):
        SharedOnly(kept_bits=bits)  # type: ignore[arg-type]


# ---- smuggling ------------------------------------------------------------------------------------------


def update() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """An honest update, and its change: a fourteenth of the values, as of an adapter's factor in a round."""
    rng = random(7)
    reference = 0.06 * rng.normal(size=VALUES)
    change = 0.004 * rng.normal(size=VALUES)
    return {"a": (reference + change).astype(np.float16)}, change


def hidden(values: np.ndarray, bits: np.ndarray, *, lowest: int, width: int = 2) -> np.ndarray:
    """Values of which bits ``lowest`` and up of the first mantissas say ``width`` bits each, and the lower are zero."""
    raw = values.view(np.uint16).copy()
    said = bits.reshape(-1, width) @ (1 << np.arange(width))
    raw[: len(said)] = (raw[: len(said)] & ~np.uint16((1 << (lowest + width)) - 1)) | (said << lowest).astype(np.uint16)
    return raw.view(np.float16)


def read(values: np.ndarray, count: int, *, lowest: int, width: int = 2) -> np.ndarray:
    """The bits that :func:`hidden` has written."""
    raw = values.view(np.uint16)[: count // width] >> lowest
    return ((raw[:, None] >> np.arange(width)) & 1).ravel().astype(np.uint8)


def capacity(said: np.ndarray, heard: np.ndarray) -> float:
    """Bits that arrive."""
    wrong = float((said != heard).mean())
    if wrong in (0.0, 1.0):
        return float(said.size)
    return said.size * (1 + wrong * np.log2(wrong) + (1 - wrong) * np.log2(1 - wrong))


def test_a_picture_in_the_two_lowest_bits_passes_a_gate_that_does_not_round_and_none_of_it_one_that_does(
    fl_ctx: FLContext, tmp_path: Path
) -> None:
    honest, change = update()
    sent = {"a": hidden(honest["a"], PICTURE, lowest=0)}
    assert distance(sent["a"], honest["a"], change) < 0.02  # nobody would notice
    for kept, most, least in ((None, PICTURE.size, PICTURE.size), (5, 0.001 * PICTURE.size, 0)):
        heard = read(through(sent, fl_ctx, tmp_path, kept)["a"], PICTURE.size, lowest=0)
        assert least <= capacity(PICTURE, heard) <= most


def test_who_knows_of_the_gate_still_smuggles_in_the_bits_it_keeps_but_changes_the_update_for_it(
    fl_ctx: FLContext, tmp_path: Path
) -> None:
    """As far from honest as the hidden picture, a hundredth of it passes; all of it costs a fifth of the change."""
    honest, change = update()
    unseen = distance(hidden(honest["a"], PICTURE, lowest=0), honest["a"], change)
    few = PICTURE[: VALUES // 60]
    frugal = hidden(honest["a"], few, lowest=5, width=1)
    assert distance(frugal, honest["a"], change) > unseen
    for sent, said, width in ((frugal, few, 1), (hidden(honest["a"], PICTURE, lowest=5), PICTURE, 2)):
        heard = read(through({"a": sent}, fl_ctx, tmp_path, 5)["a"], said.size, lowest=5, width=width)
        assert capacity(said, heard) == said.size
    assert few.size < 0.01 * PICTURE.size
    assert distance(sent, honest["a"], change) > 0.2 > 10 * unseen


def distance(sent: np.ndarray, honest: np.ndarray, change: np.ndarray) -> float:
    """How far a message lies from the honest one, in lengths of the honest change."""
    return float(np.linalg.norm(sent.astype(float) - honest.astype(float)) / np.linalg.norm(change))


def test_no_message_has_more_values_than_the_kept_bits_can_say() -> None:
    everything = np.arange(2**16, dtype=np.uint16).view(np.float16)
    everything = everything[np.isfinite(everything)]
    for bits in (1, 3, 5):
        found = np.unique(rounded(everything, bits=bits, random=random(bits)).view(np.uint16))
        normal = 2 * 30 * 2**bits
        assert len(found) <= normal + 2 * 2**10 and len(np.unique(everything.view(np.uint16))) > 63_000
