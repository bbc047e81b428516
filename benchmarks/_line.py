"""A network line on loopback that can be cut: what comes to its port goes on to another one, until it does not."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Line:
    """Connections to :attr:`port` that go on to another port of this machine.

    While it is cut, nothing goes on, in neither direction, and nobody is told: packets are lost, as behind a firewall
    that has forgotten its connections.

    Args:
        to: the port at the other end.
    """

    def __init__(self, *, to: int) -> None:
        self._to = to
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again; connections that were open while it was cut end, as their packets are lost."""
        for end in self._ends:
            _close(end)
        self._ends.clear()
        self._whole.set()

    def close(self) -> None:
        """End it."""
        _close(self._listener)
        self.mend()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            _close(near)
            return
        self._ends += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                sink.sendall(data)
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
