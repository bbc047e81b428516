"""A line that is cut loses what is sent, and a mended one carries new connections."""

from __future__ import annotations

import socket
import threading

import pytest
from _line import Line


def test_a_line_carries_both_ways_until_it_is_cut_and_again_when_it_is_mended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line(to=server.getsockname()[1])

        def answer() -> None:
            while True:
                try:
                    far, _ = server.accept()
                except OSError:
                    return
                threading.Thread(
                    target=lambda far=far: [far.sendall(far.recv(9)[::-1]) for _ in range(2)], daemon=True
                ).start()

        threading.Thread(target=answer, daemon=True).start()
        with socket.create_connection(("127.0.0.1", line.port), timeout=5) as near:
            near.sendall(b"abc")
            assert near.recv(9) == b"cba"
            line.cut()
            near.settimeout(0.2)
            near.sendall(b"def")
            with pytest.raises(TimeoutError):
                near.recv(9)
            line.mend()
            near.settimeout(5)
            assert near.recv(9) == b""
        with socket.create_connection(("127.0.0.1", line.port), timeout=5) as near:
            near.sendall(b"xy")
            assert near.recv(9) == b"yx"
        line.close()
