from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom.sr.codedict import codes

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.mask_seg import build_segmentations
from monai_fedlora.clinic.measured_sr import CODES, build_measures
from monai_fedlora.clinic.measured_study import MeasuredStudy, measure_study
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.archive_checks import output_of, references
from tests.clinic.masked_hearts import ALGORITHM, small_heart

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")


@pytest.fixture(scope="module")
def loaded(classifier: Classifier, stored_study: Path) -> LoadedStudy:
    return load_study(Study("p", DicomFiles(stored_study)), classifier)


@pytest.fixture(scope="module")
def measured(loaded: LoadedStudy) -> MeasuredStudy:
    return measure_study(small_heart(loaded), loaded, algorithm=ALGORITHM)


def written(measured: MeasuredStudy, loaded: LoadedStudy, path: Path) -> tuple[Any, dict[str, Any]]:
    masks = build_segmentations(measured, loaded.sources)
    build_measures(measured, loaded.sources, masks).save_as(path)
    return hd.sr.srread(path), masks


def test_every_number_is_coded_with_its_unit_and_its_ventricle(
    measured: MeasuredStudy, loaded: LoadedStudy, tmp_path: Path
) -> None:
    report, masks = written(measured, loaded, tmp_path / "measures.dcm")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.content.get_image_measurement_groups()
    assert [group.finding_sites[0].value for group in groups] == [codes.SCT.LeftVentricle, codes.SCT.RightVentricle]
    assert measured.function is not None
    numbers = measured.function.to_row()
    for group, side in zip(groups, ("lv", "rv"), strict=True):
        own = [name for name in UNITS if name.startswith(side)]
        assert len(group.get_measurements()) == len(own)
        for name in own:
            scheme, keyword = CODES[name]
            (found,) = group.get_measurements(name=getattr(getattr(codes, scheme), keyword))
            assert found.value == pytest.approx(numbers[name], abs=0.005)
            assert (found.unit.value, found.unit.scheme_designator) == (UNITS[name], "UCUM")
    instances = {source.dataset.SOPInstanceUID for source in loaded.sources}
    assert set(references(report)) == instances | {mask.SOPInstanceUID for mask in masks.values()}
    texts = [item.get("TextValue") for item in groups[0][0].ContentSequence]
    assert NOT_FOR_CLINICAL_USE in texts and f"SHA-256 of model.ts: {ALGORITHM.sha256}" in texts
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


@pytest.mark.slow
def test_a_stack_that_is_cut_off_has_a_reason_in_place_of_numbers(loaded: LoadedStudy, tmp_path: Path) -> None:
    moving = small_heart(loaded)
    moving[..., -1] = moving[..., 2]
    cut = measure_study(moving, loaded, algorithm=ALGORITHM)
    report, _ = written(cut, loaded, tmp_path / "measures.dcm")
    (group,) = report.content.get_image_measurement_groups()
    assert group.get_measurements() == [] and group.finding_sites[0].value == codes.SCT.Heart
    assert "NOVOLUME" in [item.value.value for item in group.get_qualitative_evaluations()]
    assert any("the apex is missing" in str(item.get("TextValue")) for item in group[0].ContentSequence)
    said = output_of("dciodvfy", "-new", tmp_path / "measures.dcm").splitlines()
    assert [line for line in said if "Error" in line] == []


def test_masks_of_the_left_ventricle_alone_say_nothing_of_the_right(
    measured: MeasuredStudy, loaded: LoadedStudy, tmp_path: Path
) -> None:
    assert measured.function is not None
    nothing = dict.fromkeys(name for name in UNITS if name.startswith("rv"))
    alone = replace(measured, function=replace(measured.function, **nothing))
    report, _ = written(alone, loaded, tmp_path / "measures.dcm")
    (group,) = report.content.get_image_measurement_groups()
    assert group.finding_sites[0].value == codes.SCT.LeftVentricle
