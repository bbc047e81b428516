"""Temporary folders that only this user can read and that are removed however the work in them ends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from monai_fedlora.errors import FedLoraError

_SIGNALS = signal.SIGTERM, signal.SIGHUP


class _Ended(BaseException):
    """A signal asked the process to end."""


@contextmanager
def private_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder (mode 0700) in the system's temporary folder, which ``TMPDIR`` chooses.

    It is removed with all it holds at the end of the block, after an exception, and, in a process that does not
    handle these signals itself, before SIGTERM or SIGHUP end it. Nothing can be removed after SIGKILL.

    Args:
        prefix: of its name.

    Raises:
        FedLoraError: no folder can be made there.
    """
    with _Signals() as signals:
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix))
        except OSError as error:
            raise FedLoraError(f"no temporary folder can be made ({error}); choose a place with TMPDIR") from error
        try:
            yield folder
        finally:
            signals.leave()
            shutil.rmtree(folder, ignore_errors=True)


class _Signals:
    """Until :meth:`leave` a signal raises an exception; after it, signals are delivered at the end of the block."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._received: list[int] = []
        self._leaving = False
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
        for number in self._taken:
            signal.signal(number, self._handle)
        return self

    def leave(self) -> None:
        self._leaving = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number in self._taken:
            signal.signal(number, signal.SIG_DFL)
        if self._received:
            signal.raise_signal(self._received[0])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child process, which must not remove the folder
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._received.append(number)
        if not self._leaving and len(self._received) == 1:
            raise _Ended
