"""Forms as they stream in: bounded, complete or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from monai_fedlora.serve import uploads
from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.uploads import Received, check_length, receive, size_text

TYPE = "multipart/form-data; boundary=B"


def part(content: bytes, *, name: str = "files", file: str | None = "IM1") -> bytes:
    place = "" if file is None else f'; filename="{file}"'
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{place}\r\n\r\n'.encode() + content + b"\r\n"


def fetch(chunks: Iterable[bytes], folder: Path, *, limit: int = 1000, content_type: str = TYPE) -> Received:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(
        receive(
            stream(),
            content_type=content_type,
            folder=folder,
            suffix=lambda name: ".dcm",
            limit=limit,
            take=lambda size: None,
        )
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_files_arrive_whole_whatever_the_pieces(tmp_path: Path, size: int) -> None:
    contents = [b"one\r\n--A\r\n-B", b"", bytes(range(256))]
    body = b"".join(part(content, file=f"s/{index}") for index, content in enumerate(contents)) + b"--B--\r\n"
    received = fetch((body[at : at + size] for at in range(0, len(body), size)), tmp_path)
    assert [file.path.read_bytes() for file in received.files] == contents
    assert [file.name for file in received.files] == ["s/0", "s/1", "s/2"]
    assert [file.path.name for file in received.files] == ["000000.dcm", "000001.dcm", "000002.dcm"]


def test_other_fields_are_no_files(tmp_path: Path) -> None:
    body = part(b"x", name="other") + part(b"text", file=None) + b"--B--\r\n"
    assert fetch([body], tmp_path).files == []
    assert list(tmp_path.iterdir()) == []


def test_reading_stops_where_the_limit_is_passed(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterable[bytes]:
        nonlocal taken
        yield part(b"")[:-2]
        while True:
            taken += 100
            yield b"x" * 100

    with pytest.raises(Refused, match="at most 1000 bytes") as refusal:
        fetch(endless(), tmp_path, limit=1000)
    assert refusal.value.status == 413
    assert taken == 1100
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_files_that_are_not_kept_count_too(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        fetch([part(b"x" * 2000, name="other")], tmp_path, limit=1000)
    assert refusal.value.status == 413


def test_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAXIMUM_FILES", 3)
    with pytest.raises(Refused, match="at most 3 files") as refusal:
        fetch([part(b"x") * 4], tmp_path)
    assert refusal.value.status == 413
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content_type", ["", "application/zip", "multipart/form-data", "text/plain; boundary=B"])
def test_what_is_no_form_is_refused(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(Refused, match="multipart/form-data") as refusal:
        fetch([part(b"x")], tmp_path, content_type=content_type)
    assert refusal.value.status == 415


@pytest.mark.parametrize("body", [b"", b"nonsense", part(b"cut off")[:-6], part(b"no end"), b"--B\r\n" + b"h" * 99999])
def test_broken_form_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(Refused, match="did not arrive") as refusal:
        fetch([body], tmp_path)
    assert refusal.value.status == 400


def test_announced_length_is_checked_before_anything_is_read() -> None:
    check_length(None, 1000)
    check_length("1000", 1000)
    check_length("not a number", 1000)
    with pytest.raises(Refused) as refusal:
        check_length(str(1 << 30), 1000)
    assert refusal.value.status == 413


def test_sizes_in_words() -> None:
    assert [size_text(size) for size in (12, 3 << 20, 2 << 30)] == ["12 bytes", "3 MiB", "2 GiB"]
