"""De-identification: nothing of the patient is left, and what belongs together stays together."""

from __future__ import annotations

import io
import string
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from monai_fedlora.clinic.deidentify import KEPT, Deidentifier, mark
from monai_fedlora.errors import PrivacyError
from tests.clinic.cine_studies import image_dataset
from tests.clinic.identities import DATES, PLANTED, UID, plant

SECRET = b"a secret of this test"


def make(**changes: Any) -> Dataset:
    pixels = np.arange(120, dtype=np.int16).reshape(12, 10)
    settings = {
        "position": (1, 2, 3), "series": f"{UID}.2", "study": f"{UID}.1", "number": 7, "trigger_time": 40.0,
        "SOPInstanceUID": f"{UID}.3",
    }  # fmt: skip
    return image_dataset(pixels, **settings | changes)


def encode(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def planted() -> Dataset:
    return plant(make())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_nothing_planted_is_left(planted: Dataset) -> None:
    before = encode(planted)
    for trace in (PLANTED, UID, "House", "19500102", *DATES):
        assert trace.encode() in before
    clean = Deidentifier(SECRET).image(planted)
    after = encode(clean)
    for trace in (PLANTED, UID, "Doeringer", "Q4711", "House", *DATES):
        assert trace.encode() not in after
    assert not any(element.tag.is_private for element in clean)
    assert [element.keyword for element in clean if element.VR == "SQ"] == ["DeidentificationMethodCodeSequence"]


@pytest.mark.parametrize(("sequence", "stays"), [("GR", False), (["GR", "IR"], True), ("IR", True), (None, False)])
def test_inversion_time_stays_where_the_sequence_inverts(sequence: Any, stays: bool) -> None:
    clean = Deidentifier(SECRET).image(make(InversionTime="250", ScanningSequence=sequence))
    assert ("InversionTime" in clean) == stays


def test_original_is_not_changed() -> None:
    dataset = make()
    before = encode(dataset)
    Deidentifier().image(dataset)
    assert encode(dataset) == before


def test_image_says_how_it_was_deidentified() -> None:
    clean = Deidentifier().image(make())
    assert clean.PatientIdentityRemoved == "YES"
    assert "Basic Profile" in clean.DeidentificationMethod
    (code,) = clean.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert clean.LongitudinalTemporalInformationModified == "REMOVED"
    assert all(
        clean[keyword].is_empty for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber")
    )


def test_pixels_place_and_time_in_the_beat_stay() -> None:
    dataset = make()
    clean = Deidentifier().image(dataset)
    np.testing.assert_array_equal(clean.pixel_array, dataset.pixel_array)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "TriggerTime", "SOPClassUID"):
        assert clean[keyword].value == dataset[keyword].value
    again = pydicom.dcmread(io.BytesIO(encode(clean)))
    assert again.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID


def test_images_of_one_study_and_patient_stay_together() -> None:
    deidentifier = Deidentifier()
    first, second = deidentifier.image(make()), deidentifier.image(make(SOPInstanceUID=f"{UID}.4"))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert first[keyword].value == second[keyword].value
        assert first[keyword].value != make()[keyword].value
    assert first.SOPInstanceUID != second.SOPInstanceUID
    other = deidentifier.image(make(PatientID="PID-Q4712-ZZQ"))
    assert other.PatientID != first.PatientID


def test_without_the_secret_a_pseudonym_cannot_be_made_again() -> None:
    first, second = Deidentifier().image(make()), Deidentifier().image(make())
    assert first.PatientID != second.PatientID
    assert first.StudyInstanceUID != second.StudyInstanceUID
    again = [Deidentifier(SECRET).image(make()).StudyInstanceUID for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.slow
@given(st.text(string.digits + ".", min_size=1, max_size=64))
def test_replaced_uids_are_valid_and_differ(uid: str) -> None:
    deidentifier = Deidentifier(SECRET)
    replaced = pydicom.uid.UID(deidentifier.uid(uid))
    assert replaced.is_valid
    assert len(replaced) <= 64
    assert replaced != deidentifier.uid(f"{uid}1")


def test_no_instance_keeps_a_uid_that_looks_like_one_of_the_standard() -> None:
    clean = Deidentifier().image(make(SOPInstanceUID="1.2.840.10008.4711"))
    assert clean.SOPInstanceUID.startswith("2.25.")
    assert clean.SOPClassUID == make().SOPClassUID


@pytest.mark.parametrize("value", ["YES", "yes "])
def test_images_with_burned_in_text_are_refused(value: str) -> None:
    with pytest.raises(PrivacyError, match="text is burned into their pixels"):
        Deidentifier().image(make(BurnedInAnnotation=value))


def test_marking_removes_dates_at_any_depth() -> None:
    dataset, item = make(), Dataset()
    item.AcquisitionDateTime, item.Manufacturer = "20240102101112", "Maker"
    dataset.ContributingEquipmentSequence = [item]
    dataset.ContentDate, dataset.ContentTime, dataset.InstanceCreationDate = DATES[0], DATES[1], DATES[0]
    mark(dataset)
    assert "AcquisitionDateTime" not in dataset.ContributingEquipmentSequence[0]
    assert dataset.ContributingEquipmentSequence[0].Manufacturer == "Maker"
    assert (dataset.ContentDate, dataset.ContentTime) == ("19000101", "000000")
    assert "InstanceCreationDate" not in dataset


@pytest.mark.slow
@given(
    group=st.integers(0x0009, 0x7FDF),
    element=st.integers(0x0000, 0xFFFF),
    vr=st.sampled_from(["LO", "UN", "PN", "UT"]),
)
def test_any_attribute_beyond_the_list_goes(group: int, element: int, vr: str) -> None:
    dataset = make()
    tag = pydicom.tag.Tag(group, element)
    if tag in dataset or pydicom.datadict.keyword_for_tag(tag) in KEPT:
        return
    dataset.add_new(tag, vr, PLANTED.encode() + b" " if vr == "UN" else PLANTED)
    clean = Deidentifier().image(dataset)
    assert PLANTED not in str(clean)
    assert PLANTED.encode() not in encode(clean)
