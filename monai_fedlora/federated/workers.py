"""A worker as its site's NVFlare client sees it: asked a question, it answers, or has died."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from monai_fedlora.errors import Aborted, WorkerDied
from monai_fedlora.federated.channel import TAKEN, Channel

POOL = "MONAI_FEDLORA_WORKERS"
"""Environment variable: where the sites of a simulation ask for workers."""
_LOOK = 0.1  # seconds
_TO_STOP = 10.0  # ours: seconds in which a worker gives up a task on request; then it is ended
_TO_TAKE = 60.0  # ours: seconds in which a worker takes a question, or gives an answer that it has begun
_POOL = "monai_fedlora.federated.worker_pool"


class DiedIdle(WorkerDied):
    """A worker ended before it began with a question, which another one can be asked as well."""


class Pool:
    """A process of :mod:`monai_fedlora.federated.worker_pool`, which ends with all who hold :attr:`lifeline`.

    Args:
        places: workers at once.
        stays: whether each keeps its place after its answer.
    """

    def __init__(self, *, places: int = 1, stays: bool = True) -> None:
        command = [sys.executable, "-m", _POOL, str(places), str(int(stays))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, umask=0o077
        )
        self._address = ""

    @property
    def lifeline(self) -> int:
        """Descriptor; a process that inherits it keeps the pool alive too."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def address(self) -> str:
        """Where workers are asked for.

        Raises:
            WorkerDied: the process could not begin.
        """
        if not self._address:
            assert self._process.stdout is not None
            self._address = self._process.stdout.readline().decode().strip()
        if not self._address:
            raise WorkerDied(
                f"the process that starts workers could not begin: try 'python -m {_POOL} 1 1', which says why"
            )
        return self._address

    def close(self) -> None:
        """End it, and its workers with it."""
        self._process.terminate()
        self._process.communicate()


class Worker:
    """A process that works for one site.

    Args:
        address: of the pool; while all its places are taken, it is waited for.
        setup: the first that the worker is told, see :func:`monai_fedlora.federated.worker_process.work_for`.
        should_stop: polled while there is no place.

    Attributes:
        process: its number.
        stays: whether it waits for further questions after its answer.

    Raises:
        OSError: there is no pool.
        Aborted: ``should_stop``.
        WorkerDied: the pool has ended.
    """

    def __init__(self, address: str, setup: Mapping[str, Any], *, should_stop: Callable[[], bool]) -> None:
        self._control = socket.socket(socket.AF_UNIX)
        self._said = b""
        ours, theirs = socket.socketpair()
        ours.settimeout(_TO_TAKE)
        self._channel = Channel(ours)
        try:
            with theirs:
                self._control.connect(address)
                socket.send_fds(self._control, [b"w"], [theirs.fileno()])
            while not _readable(self._control):
                if should_stop():
                    raise Aborted("it was given up on request while it waited for its turn")
            begun = self._line()
            if "process" not in begun:
                raise WorkerDied("the process that starts workers has ended, or has no memory for one more")
            self.process, self.stays = int(begun["process"]), bool(begun["stays"])
            self._channel.send(setup)
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._control.fileno() >= 0 and not _readable(self._control, self._channel, seconds=0)

    def ask(
        self, question: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, should_stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Ask, and wait for the answer.

        Args:
            question: what a :class:`monai_fedlora.federated.site_work.SiteWork` answers.
            tensors: that belong to it.
            should_stop: polled; the worker is then told to give up, and ended if it does not.

        Raises:
            Aborted: ``should_stop``; a worker that was ended is not alive any more.
            DiedIdle: the worker had ended before, or did before it began.
            WorkerDied: the worker began, and ended without an answer.
        """
        told: float | None = None
        death: type[WorkerDied] = DiedIdle
        try:
            self._channel.send(question, tensors)
            while True:
                while not _readable(self._channel, self._control):
                    if told is None and should_stop():
                        told = time.monotonic()
                        self._channel.send({"stop": True})
                    if told is not None and time.monotonic() - told > _TO_STOP:
                        raise Aborted("it was given up on request, and its process ended, which went on with it")
                if not _readable(self._channel, seconds=0):
                    raise EOFError
                said, sent = self._channel.receive()
                if said != TAKEN:
                    return said, sent
                death = WorkerDied
        except (EOFError, OSError) as error:
            raise death(self._epitaph()) from error
        except Aborted:
            self.end()
            raise

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._control.close()
        self._channel.close()

    def _line(self) -> dict[str, Any]:
        """The next line that the pool says; empty where it says no more."""
        while b"\n" not in self._said and (part := self._control.recv(1 << 12)):
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return dict(json.loads(line)) if line else {}

    def _epitaph(self) -> str:
        ended = self._line().get("ended") if _readable(self._control, seconds=_TO_STOP) else None
        self.end()
        how = "without an answer" if ended is None else f"with exit code {ended}"
        if ended is not None and ended < 0:
            how = f"by signal {-ended} ({signal.Signals(-ended).name})"
        more = ": Linux sends it when memory runs out, and so does who ends a process by hand" if ended == -9 else ""
        return f"the process that works for the site (process {self.process}) has ended {how}{more}; see site.log"


def _readable(*sources: Any, seconds: float = _LOOK) -> bool:
    return bool(select.select(sources, [], [], seconds)[0])


def announce(address: str) -> None:
    """Tell a pool that a worker will soon be asked for, so that it imports what that needs.

    Raises:
        OSError: there is no pool.
    """
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(address)


def setup_of_process() -> dict[str, Any]:
    """What a worker takes over of the process that asks for it."""
    return {"environment": dict(os.environ), "folder": os.getcwd(), "path": list(sys.path)}
