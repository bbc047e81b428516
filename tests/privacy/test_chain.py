"""A chain keeps every entry, tells every change, and takes back what was rolled back."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import PrivacyError
from monai_fedlora.privacy.chain import CHARGES, KEY, Chain

ENTRIES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=3)


def written(folder: Path, entries: list[dict[str, object]], copy: Path | None = None) -> Path:
    for entry in entries:
        with Chain(folder, copy=copy).opened() as chain:
            chain.append([entry])
    return folder / CHARGES


def read(folder: Path, copy: Path | None = None) -> list[object]:
    with Chain(folder, copy=copy).opened() as chain:
        return list(chain.entries)


@given(entries=st.lists(ENTRIES, max_size=5))
@settings(max_examples=6, deadline=None)
def test_what_was_written_is_read_in_order(entries: list[dict[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        written(Path(folder), entries)
        assert read(Path(folder)) == entries


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_changed_byte_is_refused(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = written(Path(folder), [{"a": 1}, {"b": "x"}, {"c": 3}])
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 2))
        content[place] ^= data.draw(st.integers(1, 127))
        path.write_bytes(content)
        with pytest.raises(PrivacyError, match="does not fit those before it"):
            read(Path(folder))


@given(first=st.integers(0, 2), second=st.integers(0, 2))
@settings(max_examples=9, deadline=None)
def test_entries_in_another_order_or_without_one_are_refused(first: int, second: int) -> None:
    with TemporaryDirectory() as folder:
        path = written(Path(folder), [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}])
        lines = path.read_bytes().splitlines(keepends=True)
        if first == second:
            del lines[first]
        else:
            lines[first], lines[second] = lines[second], lines[first]
        path.write_bytes(b"".join(lines))
        with pytest.raises(PrivacyError, match="was edited"):
            read(Path(folder))


@given(torn=st.integers(1, 100))
@settings(max_examples=8, deadline=None)
def test_a_line_that_a_crash_has_cut_short_was_never_there(torn: int) -> None:
    with TemporaryDirectory() as folder:
        path = written(Path(folder), [{"n": 0}, {"n": 1}])
        whole, last = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(whole + last[: min(torn, len(last) - 1)])
        assert read(Path(folder)) == [{"n": 0}]
        written(Path(folder), [{"n": 2}])
        assert read(Path(folder)) == [{"n": 0}, {"n": 2}]


@given(entries=st.lists(ENTRIES, min_size=1, max_size=5), data=st.data())
@settings(max_examples=6, deadline=None)
def test_what_was_rolled_back_comes_back_from_the_copy(entries: list[dict[str, object]], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(entries) - 1))
    with TemporaryDirectory() as folder, TemporaryDirectory() as copy:
        path = written(Path(folder), entries, Path(copy))
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
        assert read(Path(folder), Path(copy)) == entries
        assert read(Path(folder)) == entries


def test_a_rollback_is_a_warning_that_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "a", [{"n": 0}, {"n": 1}, {"n": 2}], tmp_path / "copy")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "a", tmp_path / "copy")
    (record,) = caplog.records
    assert "was rolled back: 2 of 3 entries are missing" in record.getMessage()


def test_a_private_folder_that_was_removed_has_its_entries_again(tmp_path: Path) -> None:
    written(tmp_path / "a", [{"n": 0}], tmp_path / "copy")
    shutil.rmtree(tmp_path / "a")
    assert read(tmp_path / "a", tmp_path / "copy") == [{"n": 0}]


@pytest.mark.parametrize("kept", [None, 0, 1])
def test_a_copy_that_lags_or_is_gone_is_made_whole_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int | None
) -> None:
    """As where the disk that it should be on is not mounted, or was restored from a backup."""
    written(tmp_path / "a", [{"n": 0}, {"n": 1}], tmp_path / "copy")
    path = tmp_path / "copy" / CHARGES
    if kept is None:
        shutil.rmtree(tmp_path / "copy")
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    caplog.clear()
    read(tmp_path / "a", tmp_path / "copy")
    assert f"{path} holds {kept or 0} of 2 entries" in caplog.text
    caplog.clear()
    assert read(tmp_path / "a", tmp_path / "copy") == [{"n": 0}, {"n": 1}]
    assert path.read_bytes() == (tmp_path / "a" / CHARGES).read_bytes()
    assert caplog.text == ""


def test_a_new_ledger_and_its_copy_begin_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path / "a", [{"n": 0}], tmp_path / "copy")
    read(tmp_path / "a", tmp_path / "copy")
    assert caplog.text == ""


def test_a_copy_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        written(tmp_path / "a", [{"n": 0}], tmp_path / "file" / "copy")
    assert "a ledger that is set back will not be noticed" in caplog.text
    assert read(tmp_path / "a") == [{"n": 0}]


def test_a_ledger_of_another_folder_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [{"n": 0}], tmp_path / "copy")
    shutil.copy(written(tmp_path / "b", [{"n": 0}]), path)
    with pytest.raises(PrivacyError, match="differ: one of them was edited or belongs to another folder"):
        read(tmp_path / "a", tmp_path / "copy")
    with pytest.raises(PrivacyError, match="entry 1 does not fit"):
        read(tmp_path / "a")
    shutil.copy(tmp_path / "b" / KEY, tmp_path / "a" / KEY)
    with pytest.raises(PrivacyError, match="was taken from another folder"):
        read(tmp_path / "a", tmp_path / "copy")


def test_a_ledger_without_its_key_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [{"n": 0}])
    (tmp_path / KEY).unlink()
    with pytest.raises(PrivacyError, match="has lost the file key"):
        read(tmp_path)
    assert not (tmp_path / KEY).exists()


def test_an_entry_is_flushed_in_both_places_before_anybody_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a", [{"n": 0}], tmp_path / "copy")
    flushed: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        flushed.append((found.st_ino, found.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    with Chain(tmp_path / "a", copy=tmp_path / "copy").opened() as chain:
        chain.append([{"n": 1}])
        for folder in (tmp_path / "a", tmp_path / "copy"):
            found = (folder / CHARGES).stat()
            assert (found.st_ino, found.st_size) in flushed


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    written(tmp_path / "a", [{"n": 0}], tmp_path / "copy")
    for folder in (tmp_path / "a", tmp_path / "copy"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_line_that_is_no_entry_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [{"n": 0}])
    for line in (
        b"[]",
        b"{}",
        b"nonsense",
        b'{"entry": [], "seal": 3}',
        json.dumps({"entry": {}, "seal": "0"}).encode(),
    ):
        path.write_bytes(line + b"\n")
        with pytest.raises(PrivacyError, match="entry 1 does not fit"):
            read(tmp_path)
