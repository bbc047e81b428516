"""HTTP with time limits for slow clients.

Uvicorn waits without limit for the head of a request, for the rest of a body that nobody reads, and for a client that
reads an answer slowly. The body of an upload has a limit of its own, see :mod:`monai_fedlora.serve.pace`.
"""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from monai_fedlora.serve.settings import ServeSettings

_GRACE_SECONDS = 3


class PunctualProtocol(H11Protocol):
    """Closes a connection whose next request takes too long, or whose client does not read its answer.

    Attributes:
        head_seconds: longest time from the start of the connection, or from the last answer, to the end of the head of
            the next request.
        read_seconds: longest time without the client reading anything of an answer that waits for it.
    """

    head_seconds: float
    read_seconds: float
    _timers: dict[str, asyncio.TimerHandle]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._timers = {}
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; only a complete head stops the timer."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop("head")

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:
            self._await_head()

    def pause_writing(self) -> None:
        """The client reads too slowly: wait for it."""
        super().pause_writing()
        self._timers["reader"] = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stop("reader")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        self._stop("head")
        self._stop("reader")
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop("head")
        self._timers["head"] = self.loop.call_later(self.head_seconds, self._close)

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(self.read_seconds, self.transport.abort)  # the rest of an answer may never be read

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()


def server_config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    """Configuration of uvicorn for an app with these settings."""

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
