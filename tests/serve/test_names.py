"""Names from other computers do no harm."""

from __future__ import annotations

import asyncio
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monai_fedlora.serve.names import (
    file_part,
    shown_name,
    stem,
    stored_suffix,
    typed_name,
)
from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.uploads import Received, receive

NAMES = st.text(max_size=300) | st.lists(
    st.sampled_from(["..", ".", "", "etc", "passwd", "a_ed.nii.gz", "x.zip", "IM1", "C:", "\x00", "\u202e"]),
    max_size=12,
).flatmap(lambda parts: st.sampled_from(["/", "\\"]).map(lambda separator: separator.join(parts)))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def upload(name: str, folder: Path, modality: str = "cine") -> Received:
    """Send one file under a name, as a browser quotes it."""
    quoted = name.encode("utf-8", "replace").replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
    body = (
        b'--B\r\nContent-Disposition: form-data; name="files"; filename="' + quoted + b'"\r\n\r\ncontent\r\n--B--\r\n'
    )
    content_type = "multipart/form-data; boundary=B"
    suffix = partial(stored_suffix, modality=modality)
    return asyncio.run(
        receive(_once(body), content_type=content_type, folder=folder, suffix=suffix, limit=100, take=lambda size: None)
    )


@given(NAMES, st.sampled_from(["cine", "image"]))
@example("../../../etc/passwd", "cine")
@example("/etc/cron.d/job", "cine")
@example("..\\..\\boot.dcm", "cine")
@example("a" * 5000 + ".nii.gz", "cine")
def test_file_of_any_name_lies_in_its_folder_under_a_number(name: str, modality: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "upload"
        folder.mkdir()
        received = upload(name, folder, modality)
        assert [path.name for path in Path(scratch).iterdir()] == ["upload"]
        assert sorted(folder.iterdir()) == [file.path for file in received.files]
        assert len(received.files) + len(received.passed_over) == 1
        for file in received.files:
            assert file.path.name.startswith("000000.")
            assert file.path.read_bytes() == b"content"


@given(NAMES)
def test_shown_name_is_a_short_plain_path_that_stays_the_same(name: str) -> None:
    shown = shown_name(name)
    parts = shown.split("/")
    assert shown
    assert len(parts) <= 8
    assert all(part not in ("", ".", "..") and len(part) <= 100 and "\\" not in part for part in parts)
    assert not any(unicodedata.category(character)[0] == "C" for character in shown)
    assert shown_name(shown) == shown
    assert stem(shown)


@pytest.mark.parametrize(
    ("name", "cine", "image"),
    [
        ("a.nii.gz", ".nii.gz", None),
        ("A.NII", ".nii", None),
        ("study.zip", ".zip", None),
        ("x.dcm", ".dcm", None),
        ("x.IMA", ".dcm", None),
        ("IM0001", ".dcm", None),
        ("1.2.840.113619.17", ".dcm", None),
        ("photo.JPG", None, ".jpg"),
        ("photo.tiff", None, ".tiff"),
        ("report.pdf", None, None),
        ("run.exe", None, None),
        ("archive.tar.gz", None, None),
        ("page.html", None, None),
    ],
)
def test_kind_follows_from_the_ending(name: str, cine: str | None, image: str | None) -> None:
    assert stored_suffix(name, "cine") == cine
    assert stored_suffix(name, "image") == image


@given(NAMES)
@example("-rf")
@example("..")
@example("Иванов Иван")
@example("\u202egnp.exe")
def test_part_of_a_file_name_is_plain_in_any_script(name: str) -> None:
    part = file_part(name)
    assert 0 < len(part) <= 40
    assert not part.startswith((".", "-", "_"))
    assert all(unicodedata.category(sign)[0] in "LMN" or sign in "-_" for sign in part)


@pytest.mark.parametrize(
    ("name", "part"), [("P1", "P1"), ("Иванов, Иван", "Иванов_Иван"), ("张三", "张三"), ("..", "study")]
)
def test_part_of_a_file_name_says_the_name(name: str, part: str) -> None:
    assert file_part(name) == part


@given(NAMES)
def test_typed_name_is_one_short_line_or_refused(name: str) -> None:
    try:
        typed = typed_name(name)
    except Refused as refusal:
        assert refusal.status == 400
        return
    assert 0 < len(typed) <= 60
    assert not any(unicodedata.category(sign)[0] == "C" for sign in typed)
    assert typed_name(typed) == typed == typed.strip()


@pytest.mark.parametrize("name", ["", " ", "\x00\u200b", "x" * 61])
def test_name_of_nothing_or_of_a_page_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="1 to 60 characters"):
        typed_name(name)
