"""Files go with the process, also with one that crashed."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from monai_fedlora.serve.storage import PREFIX, Storage, remove_leftovers

CRASH = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from monai_fedlora.serve.storage import Storage
storage = Storage()
(storage.root / "patient").write_text("private")
os._exit(1)
"""


def test_folder_is_private_and_removed_at_the_end(scratch: Path) -> None:
    with Storage() as storage:
        (storage.root / "study").mkdir()
        (storage.root / "study" / "file").write_bytes(b"x")
        assert stat.S_IMODE(storage.root.stat().st_mode) == 0o700
        assert storage.root.parent == scratch
    assert list(scratch.iterdir()) == []
    storage.close()


def test_next_start_removes_what_a_crashed_process_left(scratch: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, str(scratch)], check=False)
    (left,) = scratch.iterdir()
    assert (left / "patient").read_text() == "private"
    with Storage() as storage:
        assert list(scratch.iterdir()) == [storage.root]


def test_running_servers_keep_their_folders(scratch: Path) -> None:
    with Storage() as one, Storage() as other:
        assert one.root != other.root
        assert one.root.is_dir()
        assert remove_leftovers() == 0
    assert list(scratch.iterdir()) == []


def test_what_is_not_a_folder_of_ours_is_left_alone(scratch: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "file").write_bytes(b"x")
    (scratch / f"{PREFIX}link").symlink_to(target)
    (scratch / f"{PREFIX}file").write_bytes(b"x")
    (scratch / "other").mkdir()
    assert remove_leftovers() == 0
    assert (target / "file").exists()
    assert {path.name for path in scratch.iterdir()} == {f"{PREFIX}link", f"{PREFIX}file", "other"}
