"""HTTP with senders and readers that are not waited for without end.

Uvicorn waits for the head of a request, for the rest of a body that nobody reads, and for somebody who reads an answer
slowly as long as the connection lives. A body that is read has its own clock, see :mod:`monai_fedlora.serve.pace`.
"""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from monai_fedlora.serve.settings import ServeSettings

_GRACE_SECONDS = 3


class PunctualProtocol(H11Protocol):
    """Closes a connection whose next request, or whose reader, takes too long.

    Attributes:
        head_seconds: from the start of the connection, or from the last answer, to the end of a request's head.
        read_seconds: without the reader taking any of what waits for it.
    """

    head_seconds: float
    read_seconds: float
    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; only a whole head stops the clock."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_head()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:
            self._await_head()

    def pause_writing(self) -> None:
        """The reader is behind."""
        super().pause_writing()
        self._reader = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        self._stop_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        self._stop_head()
        self._stop_reader()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_head()
        self._head = self.loop.call_later(self.head_seconds, self._close)

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(self.read_seconds, self.transport.abort)  # what is still to be read may never be

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None


def server_config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn serves an app with these settings."""

    class Protocol(PunctualProtocol):
        head_seconds = settings.head_seconds
        read_seconds = settings.stall_seconds

    return uvicorn.Config(
        app,
        http=Protocol,
        access_log=False,
        log_level="warning",
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
