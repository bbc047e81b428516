"""Temporary folders are private, and go however the work ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_fedlora.errors import FedLoraError
from monai_fedlora.scratch import private_folder

WORK = """
import os, signal, sys, time
from monai_fedlora.scratch import private_folder

for number in signal.SIGTERM, signal.SIGHUP:
    signal.signal(number, signal.SIG_DFL)  # nohup, under which tests may run, leaves SIGHUP ignored
with private_folder("outer-") as outer, private_folder("inner-") as inner:
    (inner / "model.ts").write_bytes(b"x")
    if sys.argv[1] == "child":
        ready, started = os.pipe()
        child = os.fork()
        if not child:
            os.write(started, b"x")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert inner.exists() and outer.exists()
        sys.exit(0)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    monkeypatch.undo()


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(place)}
    command = [sys.executable, "-c", WORK, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_only_this_user_can_look_into_it_and_it_goes(place: Path) -> None:
    with private_folder("x-") as folder:
        assert folder.parent == place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").mkdir()
        (folder / "a" / "b").write_bytes(b"x")
    assert list(place.iterdir()) == []


def test_it_goes_after_an_exception_and_in_a_thread(place: Path) -> None:
    def fail() -> None:
        with pytest.raises(KeyError), private_folder("x-"):
            raise KeyError

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_goes_before_a_signal_ends_the_process(place: Path, number: signal.Signals) -> None:
    with start(place, "wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(place.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(timeout=20) == -number
    assert list(place.iterdir()) == []


def test_a_child_that_is_ended_takes_nothing_with_it(place: Path) -> None:
    with start(place, "child") as process:
        assert process.wait(timeout=20) == 0
    assert list(place.iterdir()) == []


def test_handlers_are_as_before(place: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with private_folder("x-"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    mine = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with private_folder("x-"):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, mine)


def test_a_place_that_takes_nothing_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place / "gone"))
    with pytest.raises(FedLoraError, match=r"gone.*TMPDIR"), private_folder("x-"):
        pass
