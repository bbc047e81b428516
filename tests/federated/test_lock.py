"""A folder belongs to one process at a time, and to nobody once that process is gone, however it went."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from monai_fedlora.federated import lock as module
from monai_fedlora.federated.lock import LOCK_NAME, Busy, FolderLock, in_use
from monai_fedlora.federated.site_state import SiteStore
from tests.helpers import make_plan

HOLDER = """
import sys, time
from pathlib import Path
from monai_fedlora.federated.lock import FolderLock
held = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen:
    """Another process that holds ``tmp_path``."""
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_with_the_process_until_that_is_killed(
    holder: subprocess.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Busy, match=f"process {holder.pid} on "):
        FolderLock(tmp_path)
    assert in_use(tmp_path) is True
    holder.send_signal(signal.SIGKILL)
    monkeypatch.setattr(module, "_PATIENCE", 10.0)
    with FolderLock(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK_NAME).read_text()
        assert in_use(tmp_path) is True
    assert in_use(tmp_path) is False
    holder.wait()


def test_a_lock_file_that_was_removed_while_it_was_waited_for_lets_no_second_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lock = tmp_path / "run", module._lock
    folder.mkdir()

    def removed(descriptor: int, path: Path) -> None:
        monkeypatch.setattr(module, "_lock", lock)
        path.unlink()
        folder.rmdir()
        lock(descriptor, path)

    monkeypatch.setattr(module, "_lock", removed)
    with FolderLock(folder), open(folder / LOCK_NAME, "rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_was_never_locked_is_in_nobodys_known_use(tmp_path: Path) -> None:
    assert in_use(tmp_path) is None


def test_a_second_run_in_this_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(Busy, match="in this process"):
        FolderLock(tmp_path)
    with FolderLock(tmp_path):
        pass


def test_what_a_damaged_lock_file_says_is_not_repeated(holder: subprocess.Popen, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("\x1b[31m" * 50)
    with pytest.raises(Busy, match="in use by another process"):
        FolderLock(tmp_path)
    holder.kill()
    holder.wait()


def test_the_tasks_of_one_site_share_its_folder_and_the_last_one_lets_go(tmp_path: Path) -> None:
    one, other = (SiteStore(root=tmp_path, plan=make_plan(), site="north") for _ in range(2))
    one.claim()
    other.claim()
    other.claim()
    assert stat.S_IMODE((one.folder / LOCK_NAME).stat().st_mode) == 0o600
    one.release()
    assert not free(one.folder)
    other.release()
    assert free(one.folder)
    del one, other


def free(folder: Path) -> bool:
    """Whether another process could lock the folder."""
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", program, folder / LOCK_NAME], capture_output=True).returncode == 0


def test_clearing_keeps_the_lock(tmp_path: Path) -> None:
    store = SiteStore(root=tmp_path, plan=make_plan(), site="north")
    store.claim()
    store.clear()
    assert not free(store.folder)


def test_a_disk_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with caplog.at_level(logging.WARNING), FolderLock(tmp_path):
        assert "No locks available" in caplog.text
        assert "no second run" in caplog.text
