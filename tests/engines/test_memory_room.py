from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_fedlora.engines import memory_room as module
from monai_fedlora.engines.memory_room import available_memory, memory_share, room_in_memory
from monai_fedlora.environment import CACHE_MEMORY
from monai_fedlora.errors import ConfigError


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8,000 bytes available, and the folder in which it tells containers their limits."""
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    monkeypatch.setattr(module, "_GROUPS", tmp_path)
    return tmp_path


def test_the_room_is_a_share_of_what_is_free_and_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_in_memory(1000) == 4500
    monkeypatch.setenv(CACHE_MEMORY, "0.25")
    assert room_in_memory(1000) == 2250
    monkeypatch.setenv(CACHE_MEMORY, "0")
    assert room_in_memory(1000) == 0


@pytest.mark.parametrize("wrong", ["much", "-0.1", "1", "nan"])
def test_a_share_that_makes_no_sense_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_MEMORY, wrong)
    with pytest.raises(ConfigError, match=CACHE_MEMORY):
        memory_share()


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (".", ("memory.max", "memory.current", "memory.stat", "inactive_file")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file")),
    ],
)
def test_a_container_with_less_has_less(groups: Path, folder: str, names: tuple[str, ...]) -> None:
    limit, used, details, files = names
    place = groups / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text("3000\n")
    (place / used).write_text("2500\n")
    (place / details).write_text(f"anon 5\n{files} 700\n")
    assert available_memory() == 3000 - (2500 - 700)
    (place / limit).write_text("2000\n")
    (place / details).unlink()
    assert available_memory() == 0
    (place / limit).write_text("max\n")
    assert available_memory() == 8000
