"""A folder as one zip file: the same bytes each time, and complete or absent."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_zip import pack


def folder(root: Path) -> Path:
    for name, content in (("b.json", b"{}"), ("a/c.bin", bytes(100_000)), ("a/d.md", b"text")):
        (root / "B" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "B" / name).write_bytes(content)
    return root / "B"


def test_the_zip_holds_the_folder_with_its_name(tmp_path: Path) -> None:
    pack(folder(tmp_path), tmp_path / "B.zip")
    with zipfile.ZipFile(tmp_path / "B.zip") as archive:
        assert archive.namelist() == ["B/a/c.bin", "B/a/d.md", "B/b.json"]
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert (tmp_path / "out" / "B" / "a" / "c.bin").read_bytes() == bytes(100_000)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        pack(folder(tmp_path / name), tmp_path / f"{name}.zip")
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "B.zip").write_text("precious")
    with pytest.raises(ExportError, match="exists"):
        pack(folder(tmp_path), tmp_path / "B.zip")
    assert (tmp_path / "B.zip").read_text() == "precious"
