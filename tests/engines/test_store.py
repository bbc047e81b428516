from __future__ import annotations

import os
import random
import stat
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.site import CACHE
from monai_fedlora.engines import store as module
from monai_fedlora.engines.store import Store, entries, key_of, store_limit, store_root
from monai_fedlora.environment import CACHE_LIMIT, CACHE_MEMORY
from monai_fedlora.errors import ConfigError

KEY = key_of("an image", "a backbone")
LIMIT = 10**9


def make(value: float = 1.0, size: int = 10) -> dict[str, torch.Tensor]:
    return {"a": torch.full((size,), value), "b": torch.zeros(1, 0, 3, dtype=torch.float16)}


def refuse() -> dict[str, torch.Tensor]:
    pytest.fail("an entry was computed again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "frozen" / "site-1"


def entry_file(folder: Path) -> Path:
    (entry,) = entries(folder.parent)
    return entry.path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_an_entry_comes_back_to_the_bit_in_another_process(folder: Path, dtype: torch.dtype) -> None:
    entry = {"a": torch.randn(3, 4).mul(10).to(dtype), "b": torch.zeros(1, 0, 5)}
    Store(folder, limit=LIMIT).recall(KEY, lambda: entry)
    found = Store(folder, limit=LIMIT).recall(KEY, refuse)
    assert set(found) == {"a", "b"}
    assert all(torch.equal(found[name], entry[name]) and found[name].dtype == entry[name].dtype for name in entry)


def test_what_is_recalled_first_has_the_values_that_are_kept(folder: Path) -> None:
    store = Store(folder, limit=LIMIT)
    assert torch.equal(store.recall(KEY, make)["a"], make()["a"])
    assert torch.equal(store.recall(KEY, refuse)["a"], make()["a"])


def test_entries_belong_to_their_owner_alone(folder: Path) -> None:
    Store(folder, limit=LIMIT).recall(KEY, make)
    path = entry_file(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for parent in (path.parent, folder, folder.parent):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700


@given(data=st.data())
def test_a_damaged_entry_is_computed_again_and_replaced(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store") / "site-1"
    Store(folder, limit=LIMIT).recall(KEY, make)
    path = entry_file(folder)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert torch.equal(Store(folder, limit=LIMIT).recall(KEY, make)["a"], make()["a"])
    assert torch.equal(Store(folder, limit=LIMIT).recall(KEY, refuse)["a"], make()["a"])


def test_an_entry_under_anothers_name_is_not_taken(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(folder, limit=LIMIT).recall(KEY, make)
    other = key_of("another image", "a backbone")
    store = Store(folder, limit=LIMIT)
    target = folder / other[:2] / entry_file(folder).name.replace(KEY, other)
    target.parent.mkdir(exist_ok=True)
    os.rename(entry_file(folder), target)
    assert torch.equal(store.recall(other, lambda: make(2.0))["a"], make(2.0)["a"])
    assert "computed again" in caplog.text


def test_keys_tell_parts_apart() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("c", "ab"), key_of("ab", "c", "")}) == 5


@pytest.mark.parametrize("package", ["monai_fedlora", "monai", "torch"])
def test_another_version_of_what_computes_has_other_keys(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of("an image")
    monkeypatch.setattr(f"{package}.__version__", "0.0.0")
    assert key_of("an image") != before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_full_or_read_only_disk_costs_time_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    Store(folder, limit=LIMIT).recall(KEY, make)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "_replace", fail)
    store = Store(folder, limit=LIMIT)
    for number in range(3):
        assert torch.equal(store.recall(key_of(number), lambda: make(3.0))["a"], make(3.0)["a"])
    assert torch.equal(store.recall(KEY, refuse)["a"], make()["a"])
    assert caplog.text.count("nothing more is kept") == 1
    assert len(list(folder.rglob("*.tmp"))) == 0


def test_the_least_recently_used_entries_make_room_across_sites(folder: Path) -> None:
    size = len(module.save(make(size=1000), {"sha256": "0" * 64}))
    limit = int(size * 3.5)
    sites = [Store(folder.parent / name, limit=limit) for name in ("site-1", "site-2")]
    keys = [key_of(number) for number in range(5)]
    for number, key in enumerate(keys[:3]):
        sites[number % 2].recall(key, lambda: make(size=1000))
        path = next(entry.path for entry in entries(folder.parent) if key in entry.path.name)
        os.utime(path, (number, number))
    Store(folder.parent / "site-1", limit=limit).recall(keys[0], refuse)  # used again, and now the most recent
    sites[0].recall(keys[3], lambda: make(size=1000))
    left = {entry.path.stem for entry in entries(folder.parent)}
    assert keys[1] not in left
    assert {keys[0], keys[3]} <= left
    assert sum(entry.size for entry in entries(folder.parent)) <= limit


def test_an_entry_larger_than_the_limit_stays_in_memory_and_evicts_nothing(folder: Path) -> None:
    store = Store(folder, limit=10_000)
    store.recall(KEY, make)
    large = store.recall(key_of(0), lambda: make(2.0, size=10_000))
    assert torch.equal(large["a"], make(2.0, size=10_000)["a"])
    assert store.recall(key_of(0), refuse) is large
    assert entry_file(folder).stem == KEY
    store.recall(key_of("small"), make)
    assert {entry.path.stem for entry in entries(folder.parent)} == {KEY, key_of("small")}


SIZE = len(module.save(make(size=1000), {"sha256": "0" * 64}))
KEYS = [key_of(number) for number in range(5)]


class Counted:
    """Makes entries and counts them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def recall(self, store: Store, key: str) -> None:
        def made() -> dict[str, torch.Tensor]:
            self.made.append(key)
            return make(float(KEYS.index(key)), size=1000)

        assert store.recall(key, made)["a"][0] == KEYS.index(key)


@pytest.mark.parametrize("shuffled", [False, True])
def test_of_epochs_that_do_not_fit_the_first_entries_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    monkeypatch.setenv(CACHE_MEMORY, "0")
    store, order, made = Store(folder, limit=int(3.5 * SIZE)), random.Random(0), []
    for _ in range(4):
        counted, keys = Counted(), order.sample(KEYS, len(KEYS)) if shuffled else KEYS
        for key in keys:
            counted.recall(store, key)
        made.append(len(counted.made))
    assert made == [5, 2, 2, 2]
    assert sorted(store.left_out.values()) == [4000, 4000]
    assert CACHE_LIMIT in store.told_room() and CACHE_MEMORY in store.told_room()


def test_a_cache_that_always_makes_room_would_hit_nothing() -> None:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in KEYS * 4:
        hits += key in kept
        kept[key] = None
        kept.move_to_end(key)
        if len(kept) > 3:
            kept.popitem(last=False)
    assert hits == 0


def test_processes_that_share_too_small_a_room_leave_each_other_what_they_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_MEMORY, "0")
    sites = [Store(folder.parent / name, limit=int(4.5 * SIZE)) for name in ("site-1", "site-2")]
    made = []
    for _ in range(3):
        counted = Counted()
        for key in KEYS:
            for site in sites:
                counted.recall(site, key)
        made.append(len(counted.made))
    assert made == [10, 6, 6]
    assert len(list(entries(folder.parent))) == 4


def test_what_the_disk_has_no_room_for_stays_in_memory_where_that_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(folder, limit=int(3.5 * SIZE))
    for expected in (5, 0):
        counted = Counted()
        for key in KEYS:
            counted.recall(store, key)
        assert len(counted.made) == expected
    assert not store.left_out


def test_an_entry_that_another_process_removed_is_made_again(folder: Path) -> None:
    store = Store(folder, limit=LIMIT)
    store.recall(KEY, make)
    entry_file(folder).unlink()
    assert torch.equal(store.recall(KEY, lambda: make(4.0))["a"], make(4.0)["a"])


def test_many_writers_of_the_same_entry_leave_one_sound_entry(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Store(folder, limit=LIMIT).recall(KEY, make)["a"].clone(), range(16)))
    assert all(torch.equal(one, make()["a"]) for one in found)
    assert torch.equal(Store(folder, limit=LIMIT).recall(KEY, refuse)["a"], make()["a"])


def test_nothing_is_written_without_a_limit(folder: Path) -> None:
    Store(folder, limit=0).recall(KEY, make)
    assert not folder.exists()


def test_the_limit_is_gigabytes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12))
    assert store_limit() == 20_000_000_000
    monkeypatch.setenv(CACHE_LIMIT, "0.5")
    assert store_limit() == 500_000_000
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv(CACHE_LIMIT, wrong)
        with pytest.raises(ConfigError, match=CACHE_LIMIT):
            store_limit()


def test_unless_a_limit_is_given_half_of_the_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "new" / "cache"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000_000_000))
    assert store_limit() == 5_000_000_000
    Store(store_root() / "site-1", limit=LIMIT).recall(KEY, make)
    (entry,) = entries(store_root())
    assert store_limit() == (10_000_000_000 + entry.size) // 2
