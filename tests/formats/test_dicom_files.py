"""One object is read the same from every way to store it, and nothing else is taken for one."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_pixels import read_dataset
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.formats import dicom_files
from monai_fedlora.formats.dicom_files import is_dicom, read_object
from tests.clinic.cine_studies import image_dataset, save

PIXELS = np.arange(-60, 60, dtype=np.int16).reshape(12, 10)


def make(pixels: np.ndarray = PIXELS, **changes: Any) -> Dataset:
    settings = {"position": (1.0, 2.0, 3.0), "series": "1.2.3", "study": "1.2", "number": 7, "trigger_time": 40.0}
    dataset = image_dataset(pixels, **settings | changes)
    dataset.SmallestImagePixelValue = dataset.LargestImagePixelValue = 258
    dataset.AcquisitionMatrix = [0, 256, 192, 0]
    return dataset


def stored(dataset: Dataset, syntax: str, *, bare: bool = False) -> bytes:
    """The bytes of a file; ``bare`` leaves out preamble, mark and file meta information."""
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    if not little:
        words = np.frombuffer(dataset.PixelData, "<u2").astype(">u2")
        dataset.add_new("PixelData", "OW", words.tobytes())
    stream = io.BytesIO()
    if bare:
        dataset.preamble, dataset.file_meta = None, FileMetaDataset()
        pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def end_of_meta(content: bytes) -> int:
    """Where a file's dataset begins."""
    return 144 + int(struct.unpack("<I", content[140:144])[0])


WAYS = [
    (syntax, bare)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    for bare in (False, True)
    if not (bare and syntax == DeflatedExplicitVRLittleEndian)
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(("syntax", "bare"), WAYS)
@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.uint8])
def test_every_encoding_gives_the_same_image_and_the_same_clean_copy(
    tmp_path: Path, syntax: str, bare: bool, kind: Any
) -> None:
    pixels = (PIXELS + 60).astype(kind) if kind != np.int16 else PIXELS
    (tmp_path / "IM").write_bytes(stored(make(pixels), syntax, bare=bare))
    assert is_dicom(tmp_path / "IM")
    (header,) = read_image_headers([tmp_path / "IM"], tmp_path).headers
    assert (header.series, header.trigger_time, header.shape) == ("1.2.3", 40.0, (12, 10))
    dataset = read_dataset(header)
    np.testing.assert_array_equal(dataset.pixel_array.T, pixels)
    save(Deidentifier().image(dataset), tmp_path / "clean")
    clean = pydicom.dcmread(tmp_path / "clean")
    np.testing.assert_array_equal(clean.pixel_array.T, pixels)
    assert clean.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert list(clean.AcquisitionMatrix) == [0, 256, 192, 0]
    assert (clean.SmallestImagePixelValue, clean.LargestImagePixelValue) == (258, 258)


def test_a_file_without_preamble_may_have_file_meta_information(tmp_path: Path) -> None:
    (tmp_path / "IM").write_bytes(stored(make(), ExplicitVRLittleEndian)[132:])
    assert read_object(tmp_path / "IM").PatientID == "PID-Q4711-ZZQ"


def test_group_lengths_at_the_beginning_are_no_obstacle(tmp_path: Path) -> None:
    bare = stored(make(), ImplicitVRLittleEndian, bare=True)
    (tmp_path / "IM").write_bytes(struct.pack("<HHII", 8, 0, 4, 1000) + bare)
    assert read_object(tmp_path / "IM").PatientID == "PID-Q4711-ZZQ"


def test_deflated_with_a_header_of_zlib_is_read(tmp_path: Path) -> None:
    plain = stored(make(), ExplicitVRLittleEndian)
    raw = stored(make(), DeflatedExplicitVRLittleEndian)
    inflated = plain[plain.index(b"\x08\x00\x05\x00CS") :]
    meta = raw[: end_of_meta(raw)]
    (tmp_path / "IM").write_bytes(meta + zlib.compress(inflated))
    assert read_object(tmp_path / "IM").pixel_array.sum() == PIXELS.sum()


def test_deflated_bombs_are_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header is read from the first bytes; the whole is refused at the limit, and never in memory beyond it."""
    dataset = make()
    dataset.PixelData = bytes(1 << 22)
    (tmp_path / "IM").write_bytes(stored(dataset, DeflatedExplicitVRLittleEndian))
    monkeypatch.setattr(dicom_files, "MAXIMUM_HEADER", 1 << 16)
    monkeypatch.setattr(dicom_files, "MAXIMUM_OBJECT", 1 << 20)
    assert (tmp_path / "IM").stat().st_size < 1 << 14
    assert read_object(tmp_path / "IM", ["PatientID"]).PatientID == "PID-Q4711-ZZQ"
    with pytest.raises(DataError, match="IM inflates to more than 1 MiB"):
        read_object(tmp_path / "IM")


def test_deflated_bombs_without_mark_are_not_inflated_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make()
    dataset.PixelData = bytes(1 << 22)
    (tmp_path / "IM").write_bytes(stored(dataset, DeflatedExplicitVRLittleEndian)[132:])
    monkeypatch.setattr(dicom_files, "MAXIMUM_OBJECT", 1 << 20)
    with pytest.raises(DataError, match="IM inflates to more than 1 MiB"):
        read_object(tmp_path / "IM")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"DICM",
        b"%PDF-1.7",
        b"\x08\x00",
        b"P6 8 8 255\n",
        b"\x89PNG\r\n\x1a\n",
        bytes(500),
        b"\x08\x00\x05\x00" + b"\xff" * 4,
    ],
)
def test_other_files_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_object(tmp_path / "file", ["PatientID"]) is None
    assert not is_dicom(tmp_path / "file")


@pytest.mark.slow
@given(st.binary(max_size=300))
def test_any_bytes_are_dicom_or_not_or_damaged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for number, start in enumerate((b"", b"\x08\x00\x05\x00CS", bytes(128) + b"DICM")):
        path = tmp_path_factory.getbasetemp() / f"any-bytes-{number}"
        path.write_bytes(start + content)
        try:
            read_object(path, ["PatientID"])
        except DataError as error:
            assert str(path) in str(error)


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    (tmp_path / "file").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.txt").write_text("no DICOM")
    assert read_object(tmp_path / "notes.txt") is None
    with pytest.raises(ConfigError, match=r"monai-fedlora\[dicom\]"):
        read_object(tmp_path / "file")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("rest", [b"", b"\xff" * 40])
def test_files_that_end_or_break_before_they_say_what_they_are_are_damaged(
    tmp_path: Path, syntax: str, rest: bytes
) -> None:
    content = stored(make(), syntax)
    (tmp_path / "IM").write_bytes(content[: end_of_meta(content)] + rest)
    with pytest.raises(DataError, match="IM is a damaged DICOM file"):
        read_object(tmp_path / "IM", ["PatientID"])


def test_directories_of_media_are_read(tmp_path: Path) -> None:
    dataset = make()
    del dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPClassUID = dicom_files.DIRECTORY
    dataset.save_as(tmp_path / "DICOMDIR")
    assert read_object(tmp_path / "DICOMDIR", ["PatientID"]).file_meta.MediaStorageSOPClassUID == dicom_files.DIRECTORY
