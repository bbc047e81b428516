"""Which files of a study count as images, and what is refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from monai_fedlora.clinic.dicom_headers import ImageHeader, read_image_headers
from monai_fedlora.errors import ConfigError, DataError
from tests.clinic.cine_studies import axes, image_dataset, save

PIXELS = np.arange(12 * 10, dtype=np.int16).reshape(12, 10)


def make(**changes: Any) -> Dataset:
    settings = {"position": (1.0, 2.0, 3.0), "series": "1.2.3", "study": "1.2", "number": 7, "trigger_time": 40.0}
    return image_dataset(PIXELS, **settings | changes)


def read(*datasets: Dataset, folder: Path) -> list[ImageHeader]:
    files = [save(dataset, folder / f"{index}") for index, dataset in enumerate(datasets)]
    return list(read_image_headers(files, folder).headers)


def test_header_holds_what_the_image_says(tmp_path: Path) -> None:
    (header,) = read(dataset := make(), folder=tmp_path)
    assert header.path == tmp_path / "0"
    assert (header.uid, header.series, header.series_number) == (dataset.SOPInstanceUID, "1.2.3", 5)
    assert (header.instance_number, header.trigger_time, header.description) == (7, 40.0, "cine sax")
    assert (header.shape, header.spacing) == ((12, 10), (4.0, 4.0))
    np.testing.assert_allclose(header.position, (1, 2, 3))
    np.testing.assert_allclose(header.axes, axes(), atol=1e-6)
    np.testing.assert_allclose(header.normal, np.cross(*axes()), atol=1e-6)


def test_pixel_spacing_is_rows_first_in_dicom_and_columns_first_here(tmp_path: Path) -> None:
    (header,) = read(make(spacing=(2.0, 3.0)), folder=tmp_path)
    assert header.spacing == (2.0, 3.0)


@pytest.mark.parametrize("value", [None, ""])
def test_what_an_image_may_leave_out_is_none(tmp_path: Path, value: str | None) -> None:
    changes = dict.fromkeys(("InstanceNumber", "SeriesNumber", "SeriesDescription"), value)
    (header,) = read(make(trigger_time=None, **changes), folder=tmp_path)
    assert (header.instance_number, header.trigger_time) == (None, None)
    assert (header.series_number, header.description) == (0, "")


def test_other_files_copies_phases_and_reports_are_counted(tmp_path: Path) -> None:
    first = make()
    (tmp_path / "notes.txt").write_text("no DICOM")
    directory = make(SOPClassUID="1.2.840.10008.1.3.10")
    report = make(Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    capture = make(ImagePositionPatient=None)
    phase = make(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    files = [save(one, tmp_path / str(i)) for i, one in enumerate((first, first, directory, report, capture, phase))]
    images = read_image_headers([tmp_path / "notes.txt", *files], tmp_path)
    assert [header.path for header in images.headers] == [tmp_path / "0"]
    assert [(one.path.name, one.why) for one in images.unused] == [
        ("notes.txt", "no DICOM"),
        ("1", "copies of images that are there"),
        ("2", "a directory of media (DICOMDIR)"),
        ("3", "no MR image but Comprehensive SR Storage"),
        ("4", "no usable ImagePositionPatient"),
        ("5", "phases, velocities or parts of complex numbers"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "no grey levels (MONOCHROME2)"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "no grey levels (MONOCHROME2)"),
        ({"PixelSpacing": None}, "no usable PixelSpacing"),
        ({"PixelSpacing": ""}, "no usable PixelSpacing"),
        ({"ImagePositionPatient": None}, "no usable ImagePositionPatient"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "PixelSpacing": None}, "localisers"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T1 MAP"]}, "parametric maps"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "no MR image but Basic Text SR Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "no MR image but Encapsulated PDF Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59"}, "no MR image but Key Object Selection Document Storage"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"},
            "no MR image but Grayscale Softcopy Presentation State Storage",
        ),
        ({"SOPClassUID": "1.2.3.4"}, "no MR image but of a private kind"),
    ],
)
def test_an_unusable_object_beside_a_good_one_blocks_nothing_and_is_counted(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    other = make(series="1.2.9", SeriesNumber=9, SeriesDescription="beside", **changes)
    files = [save(make(), tmp_path / "good"), save(other, tmp_path / "other")]
    images = read_image_headers(files, tmp_path)
    assert [header.path.name for header in images.headers] == ["good"]
    (unused,) = images.unused
    assert (unused.path.name, unused.why, unused.is_doubt) == ("other", why, False)
    is_image = why[:11] != "no MR image"
    assert (unused.series_number, unused.description) == ((9, "beside") if is_image else (0, ""))


def test_a_damaged_file_beside_good_ones_is_doubted(tmp_path: Path) -> None:
    good = save(make(), tmp_path / "good")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:300])
    images = read_image_headers([good, tmp_path / "cut"], tmp_path)
    assert len(images.headers) == 1
    assert [(one.path.name, one.is_doubt) for one in images.unused] == [("cut", True)]


def test_different_images_with_one_uid_are_refused(tmp_path: Path) -> None:
    first, second = make(), make(number=8)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    with pytest.raises(DataError, match=r"/0 and .*/1 are different images with one SOP instance UID"):
        read(first, second, folder=tmp_path)


@pytest.mark.parametrize("code", ["PID Q4711 ZZQ", "pid-q4711-zzq", "", None, "0PID-Q4711-ZZQ"])
def test_one_patient_may_be_written_in_several_ways(tmp_path: Path, code: str | None) -> None:
    files = [save(one, tmp_path / str(n)) for n, one in enumerate((make(), make(number=8, PatientID=code)))]
    images = read_image_headers(files, tmp_path)
    assert len(images.headers) == 2
    assert images.notes == (("the patient's code is written in 2 ways",) if code else ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "keyword",
    ["PatientID", "SeriesNumber", "SeriesDescription", "TriggerTime", "InstanceNumber", "AcquisitionNumber",
     "InversionTime", "EchoTime", "ImageType", "StudyInstanceUID", "TemporalPositionIdentifier"],
)  # fmt: skip
def test_empty_attributes_mean_absent_ones(tmp_path: Path, keyword: str) -> None:
    absent, empty = make(), make(number=8)
    empty.add_new(keyword, pydicom.datadict.dictionary_VR(keyword), None)
    if keyword in absent:
        delattr(absent, keyword)
    values, names = [], ("series_number", "description", "trigger_time", "acquisition", "instance_number", "echo_time")
    for one in (absent, empty):
        one.InstanceNumber = None if keyword == "InstanceNumber" else 7
        (header,) = read_image_headers([save(one, tmp_path / "image")], tmp_path).headers
        values.append([getattr(header, name) for name in names])
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([{"study": "1.9"}], "2 studies"),
        ([{"PatientID": "other"}], "2 patients"),
    ],
)
def test_several_studies_or_patients_are_refused(tmp_path: Path, others: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make(), *(make(**changes) for changes in others), folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "no MR image but CT Image Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, "says that it has no frames, and describes 0"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "grey levels"),
        ({"SamplesPerPixel": 3}, "grey levels"),
        ({"PixelSpacing": None}, "no usable PixelSpacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "impossible orientation"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "no usable ImageOrientationPatient"),
        ({"Rows": 0}, "12 x 0 pixels"),
        ({"Columns": 60000}, "60000 x 10 pixels"),
        ({"SeriesInstanceUID": ""}, "no instance or series UID"),
    ],
)
def test_unusable_images_are_refused_with_their_reason(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make(**changes), folder=tmp_path)


def test_study_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(DataError, match="holds no DICOM file"):
        read_image_headers([tmp_path / "notes.txt"], tmp_path)


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "file").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ConfigError, match=r"monai-fedlora\[dicom\]"):
        read_image_headers([tmp_path / "file"], tmp_path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make(), tmp_path_factory.mktemp("sound") / "image")


@pytest.mark.slow
@given(data=st.data())
def test_damaged_file_is_refused_or_read_and_named(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: data.draw(st.integers(100, len(damaged)))])
    try:
        headers = read_image_headers([path], path.parent).headers
    except DataError as error:
        assert str(path.parent) in str(error)
    else:
        assert len(headers) == 1


@pytest.mark.parametrize("element", ["00080008", "00280002", "0020000d", "0008103e"])
def test_file_with_an_unknown_kind_of_value_is_named(sound: Path, tmp_path: Path, element: str) -> None:
    tag = bytes.fromhex(element)
    start = sound.read_bytes().index(bytes((tag[1], tag[0], tag[3], tag[2])))
    damaged = bytearray(sound.read_bytes())
    damaged[start + 5] = 0
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(DataError, match="file is a damaged DICOM file"):
        read_image_headers([tmp_path / "file"], tmp_path)


@pytest.mark.parametrize("make_bad", [lambda path: path.write_bytes(b""), lambda path: shutil.copy(__file__, path)])
def test_empty_and_foreign_files_are_no_dicom(tmp_path: Path, make_bad: Callable[[Path], Any]) -> None:
    make_bad(tmp_path / "file")
    with pytest.raises(DataError, match="holds no DICOM file"):
        read_image_headers([tmp_path / "file"], tmp_path)


def test_reading_leaves_pydicom_as_it_was(tmp_path: Path) -> None:
    before = pydicom.config.settings.reading_validation_mode
    read(make(), folder=tmp_path)
    assert pydicom.config.settings.reading_validation_mode == before
