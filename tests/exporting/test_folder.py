"""The exported folder appears complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.folder import new_folder


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "B"
    with new_folder(target) as folder:
        assert folder.name == "B"
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        assert not target.exists()
    assert (target / "deep" / "file").read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in target.parent.iterdir()] == ["B"]


def test_nothing_remains_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "B") as folder:
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_existing_output_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "B"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("x")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="B exists"), new_folder(target):
        pass


def test_parent_that_is_a_file_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be created"), new_folder(tmp_path / "file" / "B"):
        pass
