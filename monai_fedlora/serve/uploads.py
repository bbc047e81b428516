"""Write uploaded files to the disk as they arrive, within limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from monai_fedlora.files import open_new
from monai_fedlora.serve.names import is_hidden, shown_name
from monai_fedlora.serve.refusal import BAD_REQUEST, TOO_LARGE, WRONG_TYPE, Refused
from monai_fedlora.studies.zipped import MAXIMUM_FILES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = b"files"
_FORM = b"multipart/form-data"
_LONGEST_HEADER = 1 << 14
_LONGEST_JSON = 1 << 13
"""Bytes (ours): of a file's name with its folders, percent signs and all."""
_OVERHEAD = 1 << 16
"""Bytes of a request beside its files' that are let in, and as many again per 256 files."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was sent.

    Attributes:
        path: where it is stored.
        name: its original name, cleaned for display.
    """

    path: Path
    name: str


@dataclass(kw_only=True)
class Received:
    """The files of a request.

    Attributes:
        files: files of a kind that the model takes.
        passed_over: names of the others, which were not stored.
    """

    files: list[StoredFile] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def check_length(length: str | None, limit: int) -> None:
    """Refuse a request that announces too many bytes, before any of it is read.

    Args:
        length: its Content-Length; None if missing.
        limit: bytes that the files may have.

    Raises:
        Refused: it is too long.
    """
    if length is not None and length.isdecimal() and int(length) > limit + _OVERHEAD * (1 + MAXIMUM_FILES // 256):
        raise Refused(TOO_LARGE, too_large(limit))


def too_large(limit: int) -> str:
    """Message that a study is too large."""
    return f"a study may have at most {size_text(limit)}; send the short-axis series alone, or start with --max-upload"


def size_text(size: int) -> str:
    """A number of bytes with a unit, such as "2 GiB"."""
    unit, name = ((1 << 30), "GiB") if size >= 1 << 30 else ((1 << 20), "MiB") if size >= 1 << 20 else (1, "bytes")
    return f"{size / unit:.4g} {name}"


async def receive(
    stream: AsyncIterator[bytes],
    *,
    content_type: str,
    folder: Path,
    suffix: Callable[[str], str | None],
    limit: int,
    take: Callable[[int], None],
) -> Received:
    """Write the files of a form's field ``files`` into a folder, under numbers.

    Args:
        stream: the body of the request.
        content_type: of the request.
        folder: an existing, empty folder.
        suffix: gives the ending for a name, or None for a file that is not stored.
        limit: bytes that all files may have together, whether they are stored or not.
        take: called with the number of bytes before they are written; raises if the disk has no room.

    Raises:
        Refused: this is no such form, or it holds too many bytes or files.
    """
    kind, options = parse_options_header(content_type)
    if kind != _FORM or not options.get(b"boundary"):
        raise Refused(WRONG_TYPE, "files are sent as multipart/form-data; use the page, or curl -F files=@FILE")
    sink = _Sink(folder=folder, suffix=suffix, limit=limit, take=take)
    try:
        parser = MultipartParser(options[b"boundary"], sink.callbacks(), max_header_size=_LONGEST_HEADER)
        async for chunk in stream:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refused(BAD_REQUEST, "the files did not arrive as they were sent; send them again") from error
    finally:
        sink.close()
    if not sink.ended:
        raise Refused(BAD_REQUEST, "the files did not arrive to their end; send them again")
    return sink.received


async def read_json(stream: AsyncIterator[bytes]) -> dict[str, Any]:
    """Read the body of a request as a short JSON object.

    Raises:
        Refused: it is none, or too long.
    """
    content = b""
    async for chunk in stream:
        content += chunk
        if len(content) > _LONGEST_JSON:
            raise Refused(TOO_LARGE, f"at most {_LONGEST_JSON} bytes are taken here; write less")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(BAD_REQUEST, "a JSON object is expected; use the page")
    return found


class _Sink:
    """Callbacks of a parser of multipart forms."""

    def __init__(
        self, *, folder: Path, suffix: Callable[[str], str | None], limit: int, take: Callable[[int], None]
    ) -> None:
        self.folder, self.suffix, self.limit, self.take = folder, suffix, limit, take
        self.received = Received()
        self.ended = False
        self._size = self._parts = 0
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._file: BinaryIO | None = None

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self.close,
            "on_end": self._on_end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _on_headers(self) -> None:
        self._parts += 1
        if self._parts > MAXIMUM_FILES:
            raise Refused(TOO_LARGE, f"a study has at most {MAXIMUM_FILES} files; send the short-axis series alone")
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        given = options.get(b"filename")
        if given is None or options.get(b"name") != FIELD:
            return
        name = shown_name(given.decode("utf-8", "replace"))
        ending = None if is_hidden(name) else self.suffix(name)
        if ending is None:
            self.received.passed_over.append(name)
            return
        path = self.folder / f"{len(self.received.files):06d}{ending}"
        self._file = open_new(path)
        self.received.files.append(StoredFile(path, name))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self.limit:
            raise Refused(TOO_LARGE, too_large(self.limit))
        if self._file is not None:
            self.take(end - start)
            self._file.write(data[start:end])

    def _on_end(self) -> None:
        self.ended = True
