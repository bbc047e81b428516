"""What every test runs under: one thread, no settings from outside, no network, no data unless asked for."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.exporting.finished_runs",
    "tests.clinic.measurers",
    "tests.clinic.opened",
    "tests.plugin_packages",
    "tests.pretended_gpu",
]

REAL_DATA = "MONAI_FEDLORA_REAL_DATA"
POLICY = "MONAI_FEDLORA_POLICY"
REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(REAL_DATA):
        return
    skip = pytest.mark.skip(reason=f"set {REAL_DATA} to a folder with the published data sets")
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def real_data() -> Path:
    """The folder with real data sets; only for tests marked ``realdata``."""
    return Path(os.environ[REAL_DATA])


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MONAI_FEDLORA_") and name not in (REAL_DATA, POLICY)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _sites_may_be_tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sites of a few cases take part; tests of the limits themselves set or unset ``MONAI_FEDLORA_POLICY``."""
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text('{"least_cases": 1, "least_steps": 1}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(POLICY, str(path))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_outside_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "localhost",
            "127.0.0.1",
            "::1",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was imported and collected out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()
