"""Pickles inside of model files, written opcode by opcode."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.pickles import read_pickle
from tests.exporting.check.tampering import SYSTEM_CALL


def written(value: object) -> bytes:
    """The pickle that torch writes for a value."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with zipfile.ZipFile(stream) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_pass(dtype: torch.dtype) -> None:
    read_pickle(written({"a.weight": torch.zeros(3, dtype=dtype), "b": torch.ones(2, 2)}), script=False)
    read_pickle(written({"p": torch.nn.Parameter(torch.ones(1))}), script=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SYSTEM_CALL, r"names 'os\.system'"),
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", r"names 'posix\.system'"),
        (b"\x80\x02cbuiltins\neval\n.", r"names 'builtins\.eval'"),
        (b"\x80\x02ctorch\nload\n.", r"names 'torch\.load'"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.os\n.", "names"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "protocol 4"),
        (b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.", "opcode INST"),
        (b"\x80\x02U\x02osU\x06system\x93.", "opcode"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02}b.", "opcode BUILD"),
        (b"\x80\x02N." + SYSTEM_CALL, "bytes behind its pickle"),
        (b"\x80\x02c__torch__.monai_fedlora.exporting.x\nX\n.", "names '__torch__"),
        (b"", "damaged pickle"),
        (b"\x80\x02cos", "damaged pickle"),
        (b"\xff\xff", "damaged pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged pickle"),
    ],
)
def test_anything_else_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        read_pickle(content, script=False)


def test_a_script_names_its_own_classes_only() -> None:
    read_pickle(b"\x80\x02c__torch__.monai_fedlora.networks.vit\nBlock\n)\x81}b.", script=True)
    read_pickle(b"\x80\x02c__torch__.torch.nn.modules.conv.___torch_mangle_1\nConv3d\n)\x81}b.", script=True)
    for name in (b"__torch__.torch.classes.profiling\nSourceStats", b"torch.jit._pickle\nother", b"os\nsystem"):
        with pytest.raises(ExportError, match="names"):
            read_pickle(b"\x80\x02c" + name + b"\n.", script=True)


@given(st.binary(), st.booleans())
def test_no_bytes_crash_the_check(content: bytes, script: bool) -> None:
    try:
        read_pickle(content, script=script)
    except ExportError:
        return
    assert content.endswith(b".")


@given(st.data())
def test_damage_of_a_real_pickle_never_lets_another_name_in(data: st.DataObject) -> None:
    content = bytearray(written({"a": torch.zeros(3), "b": torch.ones(2)}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(content), script=False)
    except ExportError:
        return
    assert b"os\nsystem" not in content
