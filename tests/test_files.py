"""Readers never see half a file, and a damaged file is named."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(old=st.binary(max_size=200), new=st.binary(max_size=200), data=st.data())
def test_exception_in_the_middle_leaves_the_old_file(
    tmp_path: Path, old: bytes, new: bytes, data: st.DataObject
) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(old)
    written = data.draw(st.integers(0, len(new)))
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_bytes(new[:written])
        raise RuntimeError
    assert target.read_bytes() == old
    assert os.listdir(tmp_path) == ["result.bin"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_disk_error_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    target = tmp_path / "result.json"
    files.write_json(target, {"round": 1})

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="no space"):
        files.write_json(target, {"round": 2})
    assert files.read_json(target) == {"round": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    files.write_json(target, {"round": 1})
    program = (
        "import os, signal, sys; from monai_fedlora.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('{\"rou'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)], check=False).returncode == -9
    assert files.read_json(target) == {"round": 1}


def test_missing_folders_are_made(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é".encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@same_folder
@given(value=json_values)
def test_json_is_read_back_as_written(tmp_path: Path, value: Any) -> None:
    files.write_json(tmp_path / "value.json", value)
    assert files.read_json(tmp_path / "value.json") == value


def test_json_bytes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": 1, "y": [1, 2]})
    files.write_json(tmp_path / "b.json", {"y": [1, 2], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_other_readers_cannot_parse(tmp_path: Path, value: float) -> None:
    files.write_json(tmp_path / "value.json", {"dice": 0.5})
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "value.json", {"dice": value})
    assert files.read_json(tmp_path / "value.json") == {"dice": 0.5}


@same_folder
@given(value=st.dictionaries(st.text(), st.floats(0, 1) | st.text(), min_size=1, max_size=3), data=st.data())
def test_truncated_json_is_named(tmp_path: Path, value: Any, data: st.DataObject) -> None:
    path = tmp_path / "value.json"
    whole = json.dumps(value).encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(FedLoraError, match=r"value\.json"):
        files.read_json(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"not json"])
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "value.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FedLoraError, match=r"value\.json"):
        files.read_json(path)


@same_folder
@given(content=st.binary(max_size=5000))
def test_sha256_is_that_of_the_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 3), max_size=3)


@pytest.mark.slow
@same_folder
@given(
    specs=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(\.[a-z0-9]{1,8}){0,3}", fullmatch=True), st.tuples(dtypes, shapes), min_size=1
    ),
    metadata=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_tensors_are_read_back_bit_for_bit(
    tmp_path: Path, specs: dict[str, tuple[torch.dtype, list[int]]], metadata: dict[str, str]
) -> None:
    tensors = {key: torch.randint(0, 2, shape).to(dtype) for key, (dtype, shape) in specs.items()}
    files.save_tensors(tmp_path / "adapter.safetensors", tensors, metadata)
    loaded, loaded_metadata = files.load_tensors(tmp_path / "adapter.safetensors")
    assert loaded_metadata == metadata
    assert loaded.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)


def test_views_of_one_storage_are_saved_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    files.save_tensors(tmp_path / "t.safetensors", {"whole": whole, "column": whole[:, 1], "turned": whole.T}, {})
    loaded, _ = files.load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(loaded["column"], torch.tensor([1.0, 4.0]))
    assert torch.equal(loaded["turned"], whole.T)


def test_tensors_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    files.save_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(1)}, {})
    assert stat.S_IMODE((tmp_path / "t.safetensors").stat().st_mode) == 0o600


@pytest.mark.slow
@same_folder
@given(data=st.data())
def test_truncated_tensors_are_named(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "adapter.safetensors"
    files.save_tensors(path, {"a.weight": torch.ones(4, 3), "b.weight": torch.zeros(2)}, {"method": "dual_lora"})
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(WeightsError, match=r"adapter\.safetensors"):
        files.load_tensors(path)


@pytest.mark.slow
@same_folder
@given(data=st.data())
def test_damaged_tensors_never_raise_anything_but_a_weights_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "adapter.safetensors"
    files.save_tensors(path, {"a.weight": torch.ones(4, 3)}, {"method": "dual_lora"})
    whole = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        files.load_tensors(path)
    except WeightsError as error:
        assert "adapter.safetensors" in str(error)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"adapter\.safetensors does not exist"):
        files.load_tensors(tmp_path / "adapter.safetensors")


def test_a_csv_quotes_what_needs_it_and_ends_every_line_alike() -> None:
    assert files.csv_text([("a", 1, 0.5), ("b,c", None, 'say "x"')]) == 'a,1,0.5\n"b,c",,"say ""x"""\n'


def test_cells_of_a_csv_have_six_digits_and_nothing_for_what_is_unknown() -> None:
    cells = [files.csv_cell(value) for value in (1 / 3, 12, "LV", None, float("nan"), 0.0)]
    assert cells == ["0.333333", 12, "LV", "", "", "0"]
