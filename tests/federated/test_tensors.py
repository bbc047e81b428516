"""Tensors travel as one safetensors file inside NVFlare's own message, and arrive as they left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from nvflare.apis.dxo import DataKind
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import numpy_decomposers
from nvflare.fuel.f3.cellnet.utils import decode_payload, encode_payload
from nvflare.fuel.f3.message import Message
from nvflare.fuel.utils import fobs

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated import tensors
from monai_fedlora.federated.flare_context import open_message, weights_message
from monai_fedlora.federated.tensors import Tensors, TensorsDecomposer, limit_messages, most_bytes
from monai_fedlora.scope import Entry, Manifest
from monai_fedlora.site_report import MOST_CASES, MetricsForm

REPORT = {"round": 3, "cases": 5}
DTYPES = (np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32)


@pytest.fixture(scope="module", autouse=True)
def nvflare_types() -> None:
    flare_decomposers.register()
    numpy_decomposers.register()


def travel(payload: dict[str, Any]) -> Any:
    return fobs.loads(fobs.dumps(weights_message(payload, REPORT)))


def any_array() -> st.SearchStrategy[np.ndarray]:
    shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    return st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, shapes))


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: key != "__metadata__"), any_array()))
def test_tensors_arrive_as_they_left(payload: dict[str, np.ndarray]) -> None:
    dxo = open_message(travel(payload), DataKind.WEIGHTS)
    assert dxo.meta == {"report": REPORT}
    assert dxo.data.keys() == payload.keys()
    for key, array in payload.items():
        found = dxo.data[key]
        assert type(found) is np.ndarray
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


def test_a_transposed_tensor_keeps_its_values() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(travel({"a": array})["DXO"]["data"]["a"], array)


def test_around_small_tensors_there_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = {f"encoder.blocks.{n}.attn.q.lora_A.shared.weight": np.ones((8, 96), np.float16) for n in range(12)}
    data = sum(array.nbytes for array in payload.values())
    together = len(fobs.dumps(weights_message(payload))) - data
    monkeypatch.setattr(tensors, "LARGEST", 0)
    apart = len(fobs.dumps(weights_message(payload))) - data
    assert together < 12 * 120 + 500
    assert together < apart / 2


@pytest.mark.parametrize("size", [tensors.LARGEST, tensors.LARGEST + 1])
def test_large_tensors_are_left_to_nvflare(size: int) -> None:
    payload = {"a": np.zeros(size - 8, np.uint8), "b": np.zeros(1)}
    found = TensorsDecomposer().decompose(Tensors(payload))
    assert type(found) is (dict if size > tensors.LARGEST else bytes)
    assert travel(payload)["DXO"]["data"]["a"].nbytes == size - 8


def test_what_is_no_array_reaches_the_gate_as_it_is() -> None:
    assert travel({"a": np.zeros(2), "b": "patient007"})["DXO"]["data"]["b"] == "patient007"


@given(st.data())
def test_damaged_bytes_are_refused_or_tensors(data: st.DataObject) -> None:
    file = bytearray(safetensors.numpy.save({"a": np.ones((2, 3), np.float16), "b": np.zeros(4, np.float32)}))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file[: data.draw(st.integers(0, len(file)))])
    found = TensorsDecomposer().recompose(damaged)
    if type(found) is Tensors:
        assert all(type(array) is np.ndarray for array in found.values())
    else:
        assert found == damaged
        message = weights_message({})
        message["DXO"]["data"] = found
        with pytest.raises(PrivacyError, match="not a DXO"):
            open_message(message, DataKind.WEIGHTS)


@pytest.mark.parametrize("data", [3, "text", [1]])
def test_other_kinds_of_data_are_refused(data: Any) -> None:
    message = weights_message({})
    message["DXO"]["data"] = TensorsDecomposer().recompose(data)
    with pytest.raises(PrivacyError, match="not a DXO"):
        open_message(message, DataKind.WEIGHTS)


# ---- messages that are too long -------------------------------------------------------------------------


def arrive(payload: dict[str, Any], *, most: int, report: dict[str, Any] | None = None) -> Any:
    """Send a message to a cell with a limit, as NVFlare's streams do."""
    context: dict[str, Any] = {}
    limit_messages(SimpleNamespace(update_fobs_context=context.update), most)  # type: ignore[arg-type]
    message = Message({}, weights_message(payload, report or REPORT))
    encode_payload(message, fobs_ctx={})
    decode_payload(message, fobs_ctx=context)
    return message.payload


@pytest.mark.parametrize("classes", [2, 40])
def test_the_longest_honest_answer_is_read(classes: int) -> None:
    manifest = Manifest(
        {f"encoder.blocks.{n}.attn.q.lora_A.shared.weight": Entry((8, 96), "float16") for n in range(24)}
    )
    matrix = [[MOST_CASES] * classes] * classes
    views = {view: {"confusion_matrix": matrix, "n": MOST_CASES, "auroc": 0.5} for view in ("personal", "shared")}
    payload = {key: np.ones(entry.shape, entry.dtype) for key, entry in manifest.entries.items()}
    answer = arrive(
        payload, most=most_bytes(manifest, form=MetricsForm(classes=classes)), report={**REPORT, "validation": views}
    )
    assert open_message(answer, DataKind.WEIGHTS).data.keys() == payload.keys()


def test_a_longer_message_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest({"a": Entry((4,), "float32")})
    most = most_bytes(manifest, form=MetricsForm(classes=2))
    read: list[int] = []
    load = safetensors.numpy.load
    monkeypatch.setattr(safetensors.numpy, "load", lambda data: (read.append(len(data)), load(data))[1])
    long = {"a": np.zeros(most, np.uint8)}
    padded = {**REPORT, "note": "x" * most}
    for message in (arrive(long, most=most), arrive({"a": np.zeros(4, "f4")}, most=most, report=padded)):
        with pytest.raises(PrivacyError, match=r"not a DXO with tensors, but with .* bytes that were not read"):
            open_message(message, DataKind.WEIGHTS)
    assert read == []
    assert arrive({"a": np.zeros(4, "f4")}, most=most)["DXO"]["data"].keys() == {"a"}
