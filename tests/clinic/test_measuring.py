"""Models that measure: numbers in their units with their usual errors, and masks on a photograph's own pixels."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import monai_fedlora as fl
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.clinic.findings_figure import COLOURS, draw_findings, outline_layer
from monai_fedlora.clinic.measuring import NO_SCALE, Estimator, PhotographSegmenter
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.clinic.usual_errors import UNKNOWN, usual_error
from monai_fedlora.data.records import Photograph
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.formats.photograph_file import read_photograph
from monai_fedlora.studies.study import DicomFiles, Study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def heart(estimator: Estimator, stored_study: Path) -> LoadedStudy:
    return load_study(Study("p", DicomFiles(stored_study)), estimator)


@pytest.fixture(scope="module")
def lesion(lesion_segmenter: PhotographSegmenter, wide_photograph: Path) -> LoadedStudy:
    return load_study(Study("p", Photograph(wide_photograph)), lesion_segmenter)


def test_values_are_those_of_the_module_with_units_and_usual_errors(estimator: Estimator, heart: LoadedStudy) -> None:
    found = estimator.measure(heart, name="p")
    assert heart.image_affine is not None
    values = estimator.script(heart.image[None], torch.from_numpy(heart.image_affine)[None]).flatten().tolist()
    assert [finding.value for finding in found.found] == pytest.approx(values)
    ejection, volume = found.found
    assert (ejection.unit, volume.unit) == ("%", "mL") and ejection.shown.endswith(" %")
    assert ejection.usually == (
        "On 11 of its site's test cases it was off by 6.12 points on average; the differences, found minus true, lay "
        "mostly between -12.5 and +10.5 points"
    )
    assert volume.usually == UNKNOWN
    assert estimator.columns == ("lv_ef_percent", "lv_edv_ml")


def test_a_number_has_no_probability_and_unusual_images_are_not_told(estimator: Estimator, heart: LoadedStudy) -> None:
    found = estimator.measure(heart, name="p")
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["probabilities"] is None and "range" not in json.dumps(plain)
    assert found.state in ("cannot_tell", "doubtful")
    assert any("unusual images cannot be recognised" in note for note in estimator.trust.blind)
    assert "probabilit" not in " ".join(found.sentences()).replace("class probabilities", "")


@pytest.mark.parametrize(
    ("value", "name", "doubtful"), [(130.0, "lv_ef", True), (-3.0, "lv_edv", True), (55.0, "lv_ef", False)]
)
def test_a_number_that_no_heart_has_is_doubtful(
    estimator: Estimator, heart: LoadedStudy, value: float, name: str, doubtful: bool
) -> None:
    class Says(torch.nn.Module):
        preprocessor = estimator.script.preprocessor

        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[value]])

    found = replace(estimator, names=(name,), script=Says()).measure(heart, name="p")
    assert any("no heart has" in doubt for doubt in found.doubts) == doubtful


def test_errors_of_a_shared_model_are_those_of_all_sites() -> None:
    tested = {"n": 30, "mean_absolute_error_wall": {"value": 1.5}}
    metadata = {"provenance": {"kind": "shared"}, "eval_metrics": {"test": {"shared": tested}}}
    assert usual_error(metadata, "wall", unit="") == "On 30 of the sites' test cases it was off by 1.5 on average"
    assert usual_error({}, "wall", unit="") == UNKNOWN


def test_a_mask_lies_on_the_photographs_own_pixels(
    lesion_segmenter: PhotographSegmenter, lesion: LoadedStudy, wide_photograph: Path
) -> None:
    found = lesion_segmenter.measure(lesion, name="p")
    image = torch.from_numpy(read_photograph(wide_photograph))[None]
    expected = lesion_segmenter.script(image)[0].numpy()
    assert found.mask is not None and found.mask.shape == (72, 96)
    np.testing.assert_array_equal(found.mask, expected)
    (area,) = found.found
    assert float(area.cells["lesion_percent_of_picture"]) == pytest.approx(100 * (expected == 1).mean(), rel=1e-3)
    assert area.cells["lesion_pixels"] == str((expected == 1).sum())
    assert (
        area.usually
        == "On 20 of its site's test cases the overlap with the reader's outlines (Dice) was 0.81 on average"
    )
    assert NO_SCALE in found.notes and any("25 % of this one, at its sides" in note for note in found.notes)


def masked(segmenter: PhotographSegmenter, lesion: LoadedStudy, mask: np.ndarray) -> list[str]:
    class Says(torch.nn.Module):
        preprocessor = segmenter.script.preprocessor

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(mask)[None]

    found = replace(segmenter, script=Says()).measure(lesion, name="p")
    return [found.found[0].shown, *found.notes]


def test_what_was_not_found_or_is_cut_off_is_said(lesion_segmenter: PhotographSegmenter, lesion: LoadedStudy) -> None:
    mask = np.zeros((72, 96), np.uint8)
    shown, *notes = masked(lesion_segmenter, lesion, mask)
    assert shown == "not found" and any("no lesion was found, which is no sign" in note for note in notes)
    mask[30:40, 40:50] = 1
    shown, *notes = masked(lesion_segmenter, lesion, mask)
    assert shown == "1.45 % of the picture" and not any("reaches the edge" in note for note in notes)
    mask[30:40, 12:50] = 1
    assert any(
        "lesion reaches the edge of what the network sees" in note for note in masked(lesion_segmenter, lesion, mask)
    )


def test_outlines_are_drawn_where_the_mask_ends() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 1
    layer = np.asarray(outline_layer(mask, ("lesion",), size=(120, 80)))
    rows, columns = np.nonzero(layer[..., 3])
    assert tuple(layer[rows[0], columns[0], :3]) == COLOURS[0]
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((20, 40, 60, 100), abs=2)


def test_figures_say_what_may_be_believed(estimator: Estimator, heart: LoadedStudy) -> None:
    figure = draw_findings(estimator.measure(heart, name="p"))
    assert figure.size[0] > 1000 and figure.size[1] >= 700


def test_predict_writes_numbers_and_a_figure(value_bundle: Exported, stored_study: Path, tmp_path: Path) -> None:
    found = fl.predict(value_bundle.folder, stored_study, output=tmp_path / "O")
    assert found.errors == {} and found.table().head == ["study", "lv_ef", "lv_edv", "state"]
    (row,) = csv.DictReader((tmp_path / "O" / "predictions.csv").open(newline=""))
    assert list(row) == ["study", "lv_ef_percent", "lv_edv_ml", "state", "doubts", "notes", "trained_on", "error"]
    assert float(row["lv_edv_ml"]) == pytest.approx(found.outcomes[0].found[1].value or 0, rel=1e-4)
    assert any("lv_ef: On 11 of its site's test cases" in note for note in found.notes)
    assert len(list((tmp_path / "O" / "figures").glob("*.png"))) == 1
    with pytest.raises(ConfigError, match="--dicom writes reports of a class"):
        fl.predict(value_bundle.folder, stored_study, output=tmp_path / "P", dicom=True)


def test_predict_writes_masks_beside_the_areas(lesion_bundle: Exported, wide_photograph: Path, tmp_path: Path) -> None:
    found = fl.predict(lesion_bundle.folder, wide_photograph, output=tmp_path / "O")
    assert found.errors == {} and found.table().head == ["study", "lesion", "state"]
    (row,) = csv.DictReader((tmp_path / "O" / "predictions.csv").open(newline=""))
    with Image.open(tmp_path / "O" / "masks" / "lesion.png") as mask:
        values = np.asarray(mask)
    assert values.shape == (72, 96) and int(row["lesion_pixels"]) == (values == 1).sum()


def test_a_second_bundle_and_the_audit_are_refused_by_name(
    value_bundle: Exported, lesion_bundle: Exported, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="measures by itself"):
        fl.predict(value_bundle.folder, tmp_path, output=tmp_path / "O", outlines=lesion_bundle.folder)
    with pytest.raises(ConfigError, match="gives numbers, and a model that classifies"):
        open_bundle(value_bundle.folder)
