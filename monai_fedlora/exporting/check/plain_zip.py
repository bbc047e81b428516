"""Open zip files strictly: every reader finds the same members, and there are no hidden bytes."""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from monai_fedlora.errors import ExportError

_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY_BYTES, _END_BYTES, _LARGE_END_BYTES = (
    46,
    22,
    76,
)  # sizes of a directory entry, the end record and the zip64 end record
_SLACK = 24  # bytes of a data descriptor after a member
_STREAMED, _UTF8 = 0x8, 0x800  # flags: the sizes follow the member; its name is UTF-8
_SMALL = 1 << 20
_HIGHEST_RATIO = 100
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
_CLEAN_PART = re.compile(r"[^\x00-\x1f\x7f\\/:*?\"<>|]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of an archive (ours).

    Attributes:
        members: largest number of entries.
        size: largest size of all entries in bytes, unpacked.
        stored: whether compression is forbidden, as torch stores tensors.
        exact: whether comments and extra fields that torch does not write are forbidden.
        named: whether entries are unpacked under their own names, which then have to be plain file names; otherwise
            any relative path inside the archive is permitted.
    """

    members: int
    size: int
    stored: bool = False
    exact: bool = False
    named: bool = True


class ArchiveError(ExportError):
    """A zip file is damaged or manipulated; the message says how."""


@contextmanager
def open_archive(stream: IO[bytes], limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose members can be read safely.

    Raises:
        ArchiveError: it is not a zip file, exceeds the limits, holds a link, an encrypted, duplicate or overlapping
            member, a zip bomb, or a member whose path leads outside, or bytes that belong to no member.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            _check_members(archive, limits)
            _check_layout(archive, stream)
            if limits.exact:
                _check_bytes(archive, stream)
            yield archive
    except _DAMAGE as error:
        raise ArchiveError(f"is not a sound zip file ({error})") from error


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read a member.

    Raises:
        ArchiveError: it is larger than ``limit`` bytes, or damaged.
    """
    if archive.getinfo(name).file_size > limit:
        raise ArchiveError(f"{name} has {archive.getinfo(name).file_size:,} bytes, more than {limit:,}")
    try:
        return archive.read(name)
    except _DAMAGE as error:
        raise ArchiveError(f"{name} cannot be read ({error})") from error


def unsafe_path(name: str) -> str | None:
    """Why a member's name must not be used as a file name; None if it may."""
    parts = name.split("/")
    if reason := leads_outside(name):
        return reason
    if any(not _CLEAN_PART.fullmatch(part) or part != part.strip() for part in parts):
        return "has characters that a file name should not have"
    return None


def leads_outside(name: str) -> str | None:
    """Why a member's name is no path inside the archive; None if it is one."""
    parts = name.split("/")
    if ".." in parts or "." in parts or "" in parts:
        return "leads outside of the archive or is no plain path"
    return None


def _check_members(archive: zipfile.ZipFile, limits: Limits) -> None:
    members = archive.infolist()
    if len(members) > limits.members:
        raise ArchiveError(f"has {len(members):,} members, more than {limits.members:,}")
    if archive.comment:
        raise ArchiveError("carries a comment")
    if sum(member.file_size for member in members) > limits.size:
        raise ArchiveError(f"unpacks to more than {limits.size:,} bytes")
    seen: set[str] = set()
    for member in members:
        name = member.filename.rstrip("/") if member.is_dir() else member.filename
        if member.orig_filename != member.filename:
            raise ArchiveError(f"{member.orig_filename!r} has a name with a hidden end")
        if reason := unsafe_path(name) if limits.named else leads_outside(name.replace("\\", "/")):
            raise ArchiveError(f"{name!r} {reason}")
        if name.casefold() in seen:
            raise ArchiveError(f"{name!r} occurs twice")
        seen.add(name.casefold())
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{name!r} is a link or a special file")
        if member.flag_bits & 0x41:
            raise ArchiveError(f"{name!r} is encrypted")
        allowed = (zipfile.ZIP_STORED,) if limits.stored else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if member.compress_type not in allowed:
            raise ArchiveError(f"{name!r} is compressed in a way that no export uses")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ArchiveError(f"{name!r} has two sizes")
        if member.file_size > max(_SMALL, _HIGHEST_RATIO * member.compress_size):
            raise ArchiveError(f"{name!r} unpacks to more than {_HIGHEST_RATIO} times its size")


def _check_layout(archive: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Check that members follow each other without gaps, and that their headers agree with the directory."""
    end = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if not end <= member.header_offset <= end + (_SLACK if end else 0):
            raise ArchiveError(f"{member.filename!r} overlaps another member, or hidden bytes lie before it")
        stream.seek(member.header_offset)
        fields = _LOCAL.unpack(stream.read(_LOCAL.size))
        signature, _, flags, method, _, _, checksum, packed, size, name_length, extra_length = fields
        if signature != b"PK\x03\x04" or stream.read(name_length) != _raw_name(member):
            raise ArchiveError(f"{member.filename!r} has another name in its own header")
        streamed, large = flags & _STREAMED, 0xFFFFFFFF in (packed, size)
        own = (member.CRC, member.compress_size, member.file_size)
        if method != member.compress_type or (not streamed and not large and (checksum, packed, size) != own):
            raise ArchiveError(f"{member.filename!r} has another size in its own header")
        end = member.header_offset + _LOCAL.size + name_length + extra_length + member.compress_size
    if not end <= archive.start_dir <= end + _SLACK:
        raise ArchiveError("hidden bytes lie before its directory")
    directory = sum(
        _ENTRY_BYTES + len(_raw_name(member)) + len(member.extra) + len(member.comment) for member in archive.infolist()
    )
    last = stream.seek(0, os.SEEK_END) - _END_BYTES
    stream.seek(last)
    if stream.read(4) != b"PK\x05\x06" or not 0 <= last - archive.start_dir - directory <= _LARGE_END_BYTES:
        raise ArchiveError("hidden bytes lie behind its directory")


def _check_bytes(archive: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Check that every byte belongs to a header or a member, or is padding that torch writes."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    ends = [member.header_offset for member in members[1:]] + [archive.start_dir]
    for member, end in zip(members, ends, strict=True):
        if member.comment or member.flag_bits & ~(_STREAMED | _UTF8) or not _is_large_field(member.extra):
            raise ArchiveError(f"{member.filename!r} has a comment or fields that torch does not write")
        stream.seek(member.header_offset)
        name_length, extra_length = _LOCAL.unpack(stream.read(_LOCAL.size))[-2:]
        stream.seek(name_length, os.SEEK_CUR)
        extra = stream.read(extra_length)
        if not _is_padding(extra) and not _is_large_field(extra):
            raise ArchiveError(f"{member.filename!r} has a field in its own header that torch does not write")
        stream.seek(member.compress_size, os.SEEK_CUR)
        between = stream.read(max(end - stream.tell(), 0))
        sizes = (member.CRC, member.compress_size, member.file_size)
        widths = "Q" if max(member.compress_size, member.file_size) >= 0xFFFFFFFF else "IQ"
        descriptors = {struct.pack(f"<4sI2{width}", b"PK\x07\x08", *sizes) for width in widths}
        if between not in (descriptors if member.flag_bits & _STREAMED else {b""}):
            raise ArchiveError(f"hidden bytes lie behind {member.filename!r}")
    size = sum(_ENTRY_BYTES + len(_raw_name(member)) + len(member.extra) for member in members)
    stream.seek(archive.start_dir + size)
    rest = stream.read()[:-_END_BYTES]
    large = _large_end(len(members), size, archive.start_dir, rest)
    if rest and rest != large:
        raise ArchiveError("hidden bytes lie behind its directory")


def _large_end(count: int, size: int, start: int, rest: bytes) -> bytes:
    """The zip64 end record of the directory, with the version numbers of ``rest``."""
    versions = rest[12:16]
    record = struct.pack("<4sQ4s2L4Q", b"PK\x06\x06", 44, versions, 0, 0, count, count, size, start)
    return record + struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)


def _is_padding(extra: bytes) -> bool:
    """Whether a header's extra field is the padding by which torch aligns members."""
    return extra[:2] == b"FB" and extra[2:4] == struct.pack("<H", len(extra) - 4) and not extra[4:].strip(b"Z")


def _is_large_field(extra: bytes) -> bool:
    """Whether there is no extra field, or the zip64 field with the sizes of a large file."""
    return not extra or (extra[:2] == b"\x01\x00" and len(extra) in (12, 20, 28) and extra[2] == len(extra) - 4)


def _raw_name(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
