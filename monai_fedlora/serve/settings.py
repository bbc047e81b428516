"""Address and limits of the server."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import ConfigError

LOOPBACK_NAME = "localhost"
SHORTEST_TOKEN = 16
"""Fewest characters of a token (ours), too many to guess over a network."""
_LARGEST_UPLOAD = 1 << 40
_LONGEST_IDLE = 24 * 60


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Address and limits of the server.

    Attributes:
        host: address or name to listen at.
        port: TCP port.
        token: required in every request; None only where no other machine can connect.
        max_upload_bytes: largest size of one study, as sent and unpacked (ours).
        max_disk_bytes: largest size of all studies together: uploads, unpacked files and results (ours).
        idle_minutes: an idle session is removed after this time (ours).
        max_waiting: largest number of studies, over all sessions, that are being sent or wait (ours).
        max_kept: largest number of studies of one session (ours).
        head_seconds: time limit for the head of a request (ours).
        stall_seconds: largest delay of a sender, or of a client that reads an answer (ours).
        slowest_rate: bytes per second that a sender has to reach on average (ours).
        feedback: folder of the table of readers' opinions; None keeps none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_upload_bytes: int = 2 << 30
    max_disk_bytes: int = 16 << 30
    idle_minutes: float = 30.0
    max_waiting: int = 50
    max_kept: int = 200
    head_seconds: float = 20.0
    stall_seconds: float = 30.0
    slowest_rate: float = 16384.0
    feedback: Path | None = None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: one is out of range, or other machines could connect without a token.
        """
        if not self.host or any(character.isspace() or character == "/" for character in self.host):
            raise ConfigError(f"--host {self.host!r} is no address; give one such as 127.0.0.1")
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is no port; give a number from 1 to 65535")
        if not 1 <= self.max_upload_bytes <= _LARGEST_UPLOAD:
            raise ConfigError(f"--max-upload must be more than 0 and at most {_LARGEST_UPLOAD >> 30} GiB")
        if self.max_disk_bytes < self.max_upload_bytes:
            raise ConfigError("--max-disk must be at least --max-upload: a study has to fit on the disk")
        if not (self.head_seconds > 0 and self.stall_seconds > 0 and self.slowest_rate > 0):
            raise ConfigError("senders need some time, and a rate")
        if not 0 < self.idle_minutes <= _LONGEST_IDLE:
            raise ConfigError(f"--idle-minutes {self.idle_minutes:g} must be more than 0 and at most {_LONGEST_IDLE}")
        if self.max_waiting < 1 or self.max_kept < 1:
            raise ConfigError("at least one study has to be let in")
        if self.token is None and not self.is_local:
            raise ConfigError(f"--host {self.host} can be reached by other machines; a token is needed")
        if self.token is not None and not (len(self.token) >= SHORTEST_TOKEN and _is_plain(self.token)):
            raise ConfigError(
                f"the token must have at least {SHORTEST_TOKEN} letters, digits or -._~, so that nobody guesses it; "
                "leave it out where others can connect, or name a new --token-file, and one is made"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def is_everywhere(self) -> bool:
        """Whether the server listens at all addresses of this machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """Address of the page as other machines can open it, without the token."""
        name = socket.gethostname() if self.is_everywhere else self.host
        host = f"[{name}]" if ":" in name else name
        return f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own; a name other than localhost is not trusted to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOOPBACK_NAME


def _is_plain(token: str) -> bool:
    return token.isascii() and all(character.isalnum() or character in "-._~" for character in token)
