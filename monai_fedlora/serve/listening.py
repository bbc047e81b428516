"""Open the port, and run the server until it is interrupted."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

import monai_fedlora.serve
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.outlining import Outliner
from monai_fedlora.errors import ConfigError
from monai_fedlora.serve.app import create_app
from monai_fedlora.serve.protocol import server_config
from monai_fedlora.serve.settings import ServeSettings

_BACKLOG = 128


def listen(settings: ServeSettings) -> socket.socket:
    """Open the port, before a bundle is loaded, so that an error comes early.

    Raises:
        ConfigError: the port is taken or not allowed, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {settings.port} is taken, perhaps by another monai-fedlora serve; choose one with "
            "--port",
            errno.EACCES: f"port {settings.port} is not allowed to this user; choose one from 1024 with --port",
        }
        other = f"{settings.host} is no address of this machine ({error}); choose one with --host"
        raise ConfigError(reasons.get(error.errno or 0, other)) from error


def _log_to_terminal() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log = logging.getLogger(monai_fedlora.serve.__name__)
    log.setLevel(logging.INFO)
    log.handlers[:] = [handler]
    log.propagate = False
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs parts of uploads


def run_server(
    classifier: Classifier | Measurer | None,
    *,
    settings: ServeSettings,
    server: socket.socket,
    on_ready: Callable[[], None],
    outliner: Outliner | None = None,
) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal, then remove everything.

    Args:
        classifier: the model of the class or of the numbers; None for outlines alone.
        settings: those of :func:`listen`.
        server: from :func:`listen`; closed at the end.
        on_ready: called once when the page can be opened.
        outliner: the model of the outlines; None for a class alone.
    """
    _log_to_terminal()
    running = uvicorn.Server(server_config(create_app(classifier, settings=settings, outliner=outliner), settings))

    def hang_up(number: int, frame: FrameType | None) -> None:
        running.should_exit = True

    signal.signal(signal.SIGHUP, hang_up)
    on_ready()
    with contextlib.suppress(KeyboardInterrupt), server:
        running.run(sockets=[server])
