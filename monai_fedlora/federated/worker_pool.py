"""The process that starts workers, each as a copy of itself (a fork): milliseconds where imports take seconds.

It imports what a site needs when somebody connects for the first time, and computes nothing, so that its copies share
that memory. A worker is asked for over a socket in a private folder, with the descriptor of the end of the
:class:`~monai_fedlora.federated.channel.Channel` that it shall work for. On the same connection a JSON line says that
it has begun and, at its end, how it ended. Whoever closes the connection ends the worker, whatever it is doing; and it
ends with this process, which ends itself when nobody holds the other end of its standard input any more.

    python -m monai_fedlora.federated.worker_pool PLACES STAYS
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from monai_fedlora.federated.channel import Channel
from monai_fedlora.federated.worker_process import work_for
from monai_fedlora.scratch import private_folder

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
_FIRST_TO_GO = 500  # ours: where memory runs out, Linux ends a worker before what it works for


class WorkerPool:
    """Start workers for who asks, and end those that nobody waits for.

    Args:
        server: socket that is asked; those who ask while there is no place wait in its queue.
        places: workers at once.
        stays: whether a worker waits for further questions after its first answer, and so keeps its place.
    """

    def __init__(self, server: socket.socket, *, places: int, stays: bool) -> None:
        self._server = server
        self._places = places
        self._stays = stays
        self._workers: dict[int, socket.socket] = {}
        self._events = selectors.DefaultSelector()
        self._ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._events.register(self._ended, selectors.EVENT_READ)
        self._events.register(server, selectors.EVENT_READ)

    def serve(self, lifeline: int) -> None:
        """Work until the other end of ``lifeline`` is closed.

        Args:
            lifeline: descriptor of a pipe.
        """
        self._events.register(lifeline, selectors.EVENT_READ)
        while True:
            for key, _ in self._events.select():
                if key.fd == lifeline:
                    return
                if key.fd == self._ended:
                    os.read(self._ended, 1 << 12)
                elif key.fileobj is self._server:
                    self._start()
                else:
                    os.kill(key.data, signal.SIGKILL)
                    self._events.unregister(key.fileobj)
            self._bury()

    def _start(self) -> None:
        asked, _ = self._server.accept()
        _import_all()
        descriptors = socket.recv_fds(asked, 1, 1)[1]
        if not descriptors:  # somebody who will ask soon
            asked.close()
            return
        parent, worker = os.getpid(), _fork()
        if worker == 0:
            _work(descriptors[0], parent, [asked, self._server, *self._workers.values()], stays=self._stays)
        os.close(descriptors[0])
        if worker is None:
            asked.close()
            return
        self._workers[worker] = asked
        self._events.register(asked, selectors.EVENT_READ, worker)
        _say(asked, {"process": worker, "stays": self._stays})
        if len(self._workers) == self._places:
            self._events.unregister(self._server)

    def _bury(self) -> None:
        while self._workers:
            worker, status = os.waitpid(-1, os.WNOHANG)
            if worker == 0:
                return
            asked = self._workers.pop(worker)
            with suppress(KeyError):
                self._events.unregister(asked)
            _say(asked, {"ended": os.waitstatus_to_exitcode(status)})
            asked.close()
            if len(self._workers) == self._places - 1:
                self._events.register(self._server, selectors.EVENT_READ)


@cache
def _import_all() -> None:
    """Import what a site needs."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asked otherwise, CUDA could not be used in a copy
    from monai_fedlora.federated.lean import import_libraries

    import_libraries()
    from monai_fedlora.federated import site_work  # noqa: F401

    gc.collect()
    gc.freeze()


def _fork() -> int | None:
    """The new process's number, 0 in that process; None where there is no room for one."""
    try:
        return os.fork()
    except OSError:
        return None


def _say(asked: socket.socket, said: dict[str, int | bool]) -> None:
    with suppress(OSError):  # nobody listens any more
        asked.sendall(json.dumps(said).encode() + b"\n")


def _work(descriptor: int, parent: int, others: list[socket.socket], *, stays: bool) -> None:
    """Be a worker, to the end of this process."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _end_with(parent)
        for other in others:
            other.close()
        work_for(Channel(socket.socket(fileno=descriptor)), stays=stays)
        status = 0
    finally:
        os._exit(status)


def _end_with(parent: int) -> None:
    """Have Linux end this process with its parent, and sooner than others when memory runs out."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO), encoding="ascii")
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Say where workers can be asked for, and start them."""
    places, stays = (int(argument) for argument in sys.argv[1:])
    with private_folder("monai-fedlora-workers-") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen(1024)
        print(folder / "socket", flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        WorkerPool(server, places=places, stays=bool(stays)).serve(sys.stdin.fileno())


if __name__ == "__main__":
    main()
