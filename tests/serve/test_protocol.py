"""Senders that stall, drip or never finish: real connections to a real server on this machine."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.serve import pace
from monai_fedlora.serve.app import create_app
from monai_fedlora.serve.protocol import server_config
from monai_fedlora.serve.settings import ServeSettings
from tests.serve.conftest import stored

FEW = 0.8  # seconds that the server waits
Start = Callable[..., tuple[FastAPI, int]]


@pytest.fixture
def start(image_classifier: Classifier) -> Iterator[Start]:
    """Start servers that end with the test."""
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    def begin(**changes: Any) -> tuple[FastAPI, int]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = listener.getsockname()[1]
        settings = ServeSettings(port=port, **{"head_seconds": FEW, "stall_seconds": FEW, **changes})
        app = create_app(image_classifier, settings=settings)
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        running.append((server, thread, listener))
        thread.start()
        assert eventually(lambda: server.started)
        return app, port

    yield begin
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Whether something comes true before long."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def filled(scratch: Path) -> int:
    """Bytes of what a server keeps; less than nothing where files go while they are counted."""
    try:
        return sum(path.stat().st_size for path in stored(scratch))
    except FileNotFoundError:
        return -1


def begin_upload(port: int, size: int = 2000) -> socket.socket:
    """Send the head of an upload and some of its file."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    head = f"POST /api/studies HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100000\r\n"
    kind = "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    part = '--B\r\nContent-Disposition: form-data; name="files"; filename="mole.jpg"\r\n\r\n'
    connection.sendall((head + kind + part).encode() + bytes(size))
    return connection


def the_arriving(app: FastAPI, *, least: int) -> list[Any]:
    """The studies that are being sent, once at least so many bytes of each were heard of."""

    def found() -> list[Any]:
        return [study for session in app.state.sessions._sessions.values() for study in session.arriving.values()]

    assert eventually(lambda: bool(found()) and all(study.pace._size >= least for study in found()))
    return found()


def clock_of(app: FastAPI) -> list[float]:
    """Let a server's senders be late by this clock, which stands still."""
    now = [0.0]
    app.state.sessions._clock = lambda: now[0]
    return now


def answer(connection: socket.socket) -> bytes:
    """Everything that still comes; returns when the server has closed."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            said += chunk
    connection.close()
    return said


def send_photograph(port: int) -> Any:
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (120, 90, 60)).save(content, format="JPEG")
    address = f"http://127.0.0.1:{port}/api/studies"
    return httpx2.post(address, files=[("files", ("mole.jpg", content.getvalue()))], timeout=15)


@pytest.mark.slow
def test_stalled_uploads_end_and_leave_nothing(start: Start, scratch: Path) -> None:
    app, port = start(max_waiting=60, stall_seconds=3.0)
    now = clock_of(app)
    stalled = [begin_upload(port) for _ in range(50)]
    assert eventually(lambda: len(stored(scratch)) == 50 and app.state.sessions.disk.used >= 50 * 1900)
    assert httpx2.get(f"http://127.0.0.1:{port}/api/model").status_code == 200
    assert send_photograph(port).status_code == 202
    now[0] += 4
    answers = [answer(connection) for connection in stalled]
    assert {said.split(b"\r\n")[0] for said in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b"stopped arriving" in said and b"connection: close" in said.lower() for said in answers)
    assert eventually(lambda: not any(path.parent.name == "upload" for path in stored(scratch)))
    assert eventually(lambda: app.state.sessions.disk.used == filled(scratch) < 50 * 1900)


@pytest.mark.slow
def test_stalled_uploads_give_way_when_no_place_is_left(
    start: Start, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_fedlora.serve.sessions.SPARED", 0.2)
    app, port = start(max_waiting=50, stall_seconds=60.0)
    stalled = [begin_upload(port) for _ in range(50)]
    assert eventually(lambda: len(stored(scratch)) == 50)
    time.sleep(0.3)
    assert send_photograph(port).status_code == 202
    assert sum(len(session.arriving) for session in app.state.sessions._sessions.values()) == 49
    for connection in stalled:
        connection.close()
    assert eventually(lambda: not any(path.parent.name == "upload" for path in stored(scratch)))


def test_busy_uploads_give_way_to_nobody(start: Start, scratch: Path) -> None:
    app, port = start(max_waiting=2, stall_seconds=60.0)
    clock_of(app)
    busy = [begin_upload(port) for _ in range(2)]
    assert eventually(lambda: len(stored(scratch)) == 2)
    refused = send_photograph(port)
    assert refused.status_code == 429
    assert "2 studies wait" in refused.json()["error"]
    for connection in busy:
        connection.close()


@pytest.mark.slow
def test_dripping_upload_is_too_slow(start: Start, scratch: Path) -> None:
    _, port = start(slowest_rate=10_000.0)
    connection = begin_upload(port)
    begin = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - begin < 10:
            connection.sendall(b"x")
            time.sleep(0.05)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if connection.recv(1, socket.MSG_PEEK) is not None:
                    break
            connection.setblocking(True)
    connection.setblocking(True)
    assert time.monotonic() - begin < 8
    assert b" 408 " in answer(connection)
    assert eventually(lambda: stored(scratch) == [])


@pytest.mark.slow
def test_upload_that_pauses_and_goes_on_arrives(start: Start) -> None:
    app, port = start(stall_seconds=2.0, slowest_rate=1.0)
    now = clock_of(app)
    connection = begin_upload(port)
    for more in range(4):
        the_arriving(app, least=2000 + 100 * more)
        now[0] += 1.5
        connection.sendall(bytes(100))
    the_arriving(app, least=2400)
    connection.sendall(b"\r\n--B--\r\n")
    connection.shutdown(socket.SHUT_WR)
    assert b" 408 " not in answer(connection)


@pytest.mark.slow
@pytest.mark.parametrize("head", [b"", b"GET / HTT", b"GET /api/model HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_head_that_never_ends_is_not_waited_for(start: Start, head: bytes) -> None:
    _, port = start()
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        begin = time.monotonic()
        connection.sendall(head)
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 10:
                if head:
                    connection.sendall(b"a")
                connection.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if connection.recv(100) == b"":
                        break
        assert time.monotonic() - begin < 8


def test_body_that_nobody_reads_is_not_waited_for(start: Start) -> None:
    _, port = start()
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        begin = time.monotonic()
        connection.sendall(f"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99999\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 10:
                connection.sendall(b"a")
                time.sleep(0.05)
        assert time.monotonic() - begin < 8


@pytest.mark.slow
def test_reader_that_takes_nothing_is_not_waited_for(start: Start, scratch: Path) -> None:
    app, port = start()
    large = scratch / "large.png"
    large.write_bytes(bytes(1 << 25))

    @app.get("/large")
    async def give() -> Any:
        from starlette.responses import FileResponse

        return FileResponse(large)

    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        connection.sendall(f"GET /large HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        time.sleep(4 * FEW)
        assert len(answer(connection)) < 1 << 25


@pytest.mark.slow
def test_connection_that_is_used_again_is_kept(start: Start) -> None:
    _, port = start()
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as browser:
        for _ in range(4):
            assert browser.get("/api/model").status_code == 200
            time.sleep(FEW / 2)


def test_pace_counts_silence_and_slowness() -> None:
    now = [0.0]
    sender = pace.Pace(ServeSettings(stall_seconds=10, slowest_rate=100), clock=lambda: now[0])
    sender.hear(100_000)
    now[0] = 9.0
    sender.check()
    assert sender.late == 9.0  # silent, although its rate is fine
    sender.hear(1)
    assert sender.late < 0.1
    now[0] = 18.9
    sender.check()
    slow = pace.Pace(ServeSettings(stall_seconds=10, slowest_rate=100), clock=lambda: now[0] - 18.9)
    for _ in range(12):
        now[0] += 1
        slow.hear(1)
    with pytest.raises(pace.Refused) as refusal:
        slow.check()
    assert refusal.value.status == 408
    slow.end()
    slow.check()
    slow.drop()
    with pytest.raises(pace.Refused):
        slow.check()
