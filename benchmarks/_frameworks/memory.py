"""Memory of all processes that a command has started, however deep, with pages that they share counted once."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

import psutil

MARK = "FRAMEWORKS_RUN"
"""Environment variable that a command's processes inherit."""
_SHARE_OF_TIME = 0.1


class Sampler:
    """The highest sum of proportional set sizes while its context lasts.

    Reading a process's pages takes time and stops it, so that a sample waits ten times as long as the last one took.

    Args:
        mark: value of ``MARK`` in the environment of the processes.
        interval: seconds between two samples at least.
    """

    def __init__(self, mark: str, *, interval: float = 0.5) -> None:
        self.peak_bytes = 0
        self.processes = 0
        self._mark = mark
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            sizes = [size for process in marked(self._mark) if (size := proportional_size(process))]
            if sum(sizes) > self.peak_bytes:
                self.peak_bytes, self.processes = sum(sizes), len(sizes)
            self._stop.wait(max(self._interval, (time.perf_counter() - started) / _SHARE_OF_TIME))


def marked(mark: str) -> list[psutil.Process]:
    """Processes of this user with the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def proportional_size(process: psutil.Process) -> int:
    """Bytes of a process, of pages that others share its part; 0 where it has ended."""
    try:
        size: int = process.memory_full_info().pss
    except (psutil.Error, OSError):
        return 0
    return size


def end_all(mark: str) -> None:
    """End what a command has left behind."""
    for process in marked(mark):
        if process.pid != os.getpid():
            try:
                process.kill()
            except psutil.Error:
                continue
