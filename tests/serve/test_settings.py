"""Where the server listens: this machine, unless a token protects it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.serve.settings import ServeSettings, is_loopback

TOKEN = "a-token.of_23~characters"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": ""}, "no address"),
        ({"host": "a b"}, "no address"),
        ({"host": "a/b"}, "no address"),
        ({"port": 0}, "no port"),
        ({"port": 65536}, "no port"),
        ({"max_upload_bytes": 0}, "max-upload"),
        ({"max_upload_bytes": (1 << 40) + 1}, "max-upload"),
        ({"max_upload_bytes": 100, "max_disk_bytes": 99}, "max-disk"),
        ({"stall_seconds": 0.0}, "some time"),
        ({"head_seconds": -1.0}, "some time"),
        ({"slowest_rate": float("nan")}, "some time"),
        ({"idle_minutes": 0.0}, "idle-minutes"),
        ({"idle_minutes": float("nan")}, "idle-minutes"),
        ({"idle_minutes": 1441.0}, "idle-minutes"),
        ({"max_waiting": 0}, "let in"),
        ({"max_kept": 0}, "let in"),
        ({"host": "0.0.0.0"}, "a token is needed"),
        ({"host": "192.168.1.7"}, "a token is needed"),
        ({"host": "clinic.example"}, "a token is needed"),
        ({"token": "short"}, "at least 16"),
        ({"token": "with a space in it"}, "at least 16"),
        ({"token": "schön-schön-schön"}, "at least 16"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeSettings(**changes)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert ServeSettings(host=host).is_local
    assert is_loopback(host)


@pytest.mark.parametrize(("host", "everywhere"), [("0.0.0.0", True), ("::", True), ("192.168.1.7", False)])
def test_other_machines_need_one(host: str, everywhere: bool) -> None:
    settings = ServeSettings(host=host, token=TOKEN)
    assert not settings.is_local
    assert settings.is_everywhere is everywhere


def test_address_is_what_a_browser_takes() -> None:
    assert ServeSettings().address == "http://127.0.0.1:8000"
    assert ServeSettings(host="::1", port=81).address == "http://[::1]:81"
    assert ServeSettings(host="0.0.0.0", token=TOKEN).address == f"http://{socket.gethostname()}:8000"
