"""Zip files: plain ones open, and each trick of the format is refused."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.exporting.check.plain_zip import ArchiveError, Limits, open_archive, read_member, unsafe_path
from tests.exporting.check.tampering import raw_zip

LIMITS = Limits(members=5, size=10 << 20)
PLAIN = raw_zip({"B/a": b"first", "B/b": b"second"})


def opened(content: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    with open_archive(io.BytesIO(content), limits) as archive:
        return {name: read_member(archive, name, 100) for name in archive.namelist()}


def test_members_are_read() -> None:
    assert opened(PLAIN) == {"B/a": b"first", "B/b": b"second"}


def with_member(name: str = "B/c", **fields: object) -> bytes:
    stream = io.BytesIO(PLAIN)
    with zipfile.ZipFile(stream, "a") as archive:
        member = zipfile.ZipInfo(name)
        for key, value in fields.items():
            setattr(member, key, value)
        archive.writestr(member, b"third")
    return stream.getvalue()


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("B/zeros", bytes(5 << 20))
    return stream.getvalue()


def patched(content: bytes, old: bytes, new: bytes, *, nth: int) -> bytes:
    """Replace one of several occurrences."""
    place = -1
    for _ in range(nth):
        place = content.index(old, place + 1)
    return content[:place] + new + content[place + len(old) :]


def overlapping() -> bytes:
    """Both entries of the directory point at the first member."""
    directory = PLAIN.rindex(b"PK\x01\x02")
    content = bytearray(PLAIN)
    struct.pack_into("<I", content, directory + 42, 0)
    return bytes(content)


TRICKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "link": (lambda: with_member(external_attr=(stat.S_IFLNK | 0o777) << 16), "link or a special file"),
    "device": (lambda: with_member(external_attr=(stat.S_IFCHR | 0o777) << 16), "link or a special file"),
    "encrypted": (
        lambda: patched(PLAIN, b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01", nth=1),
        "",
    ),
    "bzip2": (lambda: with_member(compress_type=zipfile.ZIP_BZIP2), "compressed in a way"),
    "bomb": (bomb, "more than 100 times"),
    "many members": (lambda: raw_zip({f"B/{number}": b"" for number in range(6)}), "6 members, more than 5"),
    "many bytes": (lambda: raw_zip({"B/a": bytes(11 << 20)}), "unpacks to more than"),
    "twice": (lambda: with_member("B/A"), "occurs twice"),
    "before": (lambda: b"#!/bin/sh\n" + PLAIN, "hidden bytes"),
    "comment": (lambda: PLAIN[:-2] + b"\x02\x00hi", "comment"),
    "behind": (lambda: PLAIN + b"x", "hidden bytes"),
    "other name inside": (lambda: patched(PLAIN, b"B/a", b"B/x", nth=1), "another name in its own header"),
    "changed content": (lambda: patched(PLAIN, b"first", b"fivst", nth=1), "cannot be read"),
    "overlapping": (overlapping, "overlaps"),
    "truncated": (lambda: PLAIN[:-10], ""),
    "null byte": (lambda: PLAIN.replace(b"B/a", b"B\x00a"), "hidden end"),
    "empty": (lambda: b"", ""),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_of_the_format_is_refused(trick: str) -> None:
    make, message = TRICKS[trick]
    with pytest.raises(ArchiveError, match=message or "."):
        opened(make())


def test_bytes_between_members_are_refused() -> None:
    second = PLAIN.index(b"PK\x03\x04", 4)
    hidden = 100
    content = bytearray(PLAIN[:second] + bytes(hidden) + PLAIN[second:])
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 42, second + hidden)
    struct.pack_into("<I", content, len(content) - 6, PLAIN.index(b"PK\x01\x02") + hidden)
    with pytest.raises(ArchiveError, match="overlaps another member, or hidden bytes"):
        opened(bytes(content))


def test_compressed_members_are_refused_where_torch_stores_them() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("B/a", b"text" * 100)
    with pytest.raises(ArchiveError, match="compressed in a way"):
        opened(stream.getvalue(), Limits(members=5, size=1000, stored=True))


def test_a_large_member_is_not_read() -> None:
    with pytest.raises(ArchiveError, match="more than 100"):
        opened(raw_zip({"B/a": bytes(101)}))


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "..", ".", "a//b", "a/", "a\\b", "c:x", "a\nb", " a", "a ", 'a"'])
def test_unsafe_paths_are_named(name: str) -> None:
    assert unsafe_path(name)


@pytest.mark.parametrize("name", ["a", ".data/version", "a b/c-d_e.json", "models/model.pt2"])
def test_plain_paths_are_safe(name: str) -> None:
    assert unsafe_path(name) is None


@given(st.data())
def test_any_damage_is_found_or_harmless(data: st.DataObject) -> None:
    content = bytearray(PLAIN)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = opened(bytes(content))
    except ArchiveError:
        return
    assert list(found.values()) == [b"first", b"second"]
