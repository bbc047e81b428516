"""Many studies: one row each, whatever happens to the others."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from monai_fedlora.clinic import many
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cells import unguarded
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.many import (
    NO_DICOM,
    TABLE_NAME,
    DicomOutput,
    Outcome,
    file_name,
    find_result,
    predict_all,
    table,
)
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.errors import ConfigError
from monai_fedlora.studies.finding import find_studies
from monai_fedlora.studies.naming import printable
from monai_fedlora.studies.study import CineFile, DicomFiles, LeftOut, Study
from tests.clinic.cine_studies import affine_of, beating_heart, write_nifti, write_study
from tests.clinic.outliners import GreyOutliner


@pytest.fixture
def studies(stored_study: Path, cine: np.ndarray, tmp_path: Path) -> list[Study]:
    """A good one, a missing one, a doubtful one."""
    doubtful = write_nifti(tmp_path / "short.nii", cine[:, :, :4], affine_of(cine))
    return [
        Study("heart", DicomFiles(stored_study)),
        Study("missing", DicomFiles(tmp_path / "nothing")),
        Study("short: 4 slices", CineFile(doubtful)),
    ]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_a_bad_study_stops_none_of_the_others(classifier: Classifier, studies: list[Study], tmp_path: Path) -> None:
    seen: list[Outcome] = []
    outcomes = predict_all(classifier, studies, tmp_path / "O", overlay=False, on_progress=seen.append)
    assert seen == outcomes
    good, bad, doubtful = rows(tmp_path / "O")
    assert list(good) == [
        "study", "NOR", "ABN", "prediction", "undecided", "state", "doubts", "notes",
        "NOR lowest", "NOR highest", "ABN lowest", "ABN highest", "trained_on", "error",
    ]  # fmt: skip
    assert (good["study"], good["error"]) == ("heart", "")
    assert good["trained_on"] == classifier.trust.origin.summary
    assert good["doubts"].startswith("the image is unlike the 100 cases")
    assert float(good["NOR"]) + float(good["ABN"]) == pytest.approx(1, abs=2e-6)
    assert good["prediction"] == max(("NOR", "ABN"), key=lambda name: float(good[name]))
    assert (bad["study"], bad["NOR"], bad["prediction"]) == ("missing", "", "")
    assert "nothing does not exist" in bad["error"]
    assert "cover 40 mm" in doubtful["doubts"]
    assert doubtful["error"] == ""


@pytest.mark.slow
def test_every_study_has_a_file_and_every_answer_a_figure(
    classifier: Classifier, studies: list[Study], tmp_path: Path
) -> None:
    outcomes = predict_all(classifier, studies, tmp_path / "O", overlay=False)
    names = ["heart", "missing", file_name("short: 4 slices")]
    for name, outcome in zip(names, outcomes, strict=True):
        content = json.loads((tmp_path / "O" / "studies" / f"{name}.json").read_text())
        assert content["study"] == outcome.study
        assert content["notice"] == NOT_FOR_CLINICAL_USE
        assert content["error"] == (outcome.error or None)
        assert ("probabilities" in content) == bool(outcome.probabilities)
        assert (tmp_path / "O" / "figures" / f"{name}.png").exists() == bool(outcome.probabilities)
    assert Image.open(tmp_path / "O" / "figures" / "heart.png").mode == "RGB"
    assert not (tmp_path / "O" / "dicom").exists()
    assert stat.S_IMODE((tmp_path / "O").stat().st_mode) == 0o700
    assert not [path for path in (tmp_path / "O").rglob("*") if path.is_file() and path.stat().st_mode & 0o077]


@pytest.mark.slow
@pytest.mark.parametrize("deidentifier", [None, Deidentifier()])
def test_dicom_is_written_where_there_was_dicom_and_the_rest_is_told(
    classifier: Classifier, studies: list[Study], tmp_path: Path, deidentifier: Deidentifier | None
) -> None:
    outcomes = predict_all(
        classifier, studies, tmp_path / "O", overlay=False, dicom=DicomOutput(deidentifier=deidentifier)
    )
    assert [path.name for path in (tmp_path / "O" / "dicom").iterdir()] == ["heart"]
    assert (tmp_path / "O" / "dicom" / "heart" / "report.dcm").exists()
    assert (tmp_path / "O" / "dicom" / "heart" / "images").exists() == (deidentifier is not None)
    assert outcomes[0].error == ""
    assert outcomes[2].predicted
    assert outcomes[2].error == ""
    assert NO_DICOM in outcomes[2].notes
    assert (
        NO_DICOM in json.loads((tmp_path / "O/studies" / f"{file_name(outcomes[2].study)}.json").read_text())["notes"]
    )
    assert NO_DICOM in (tmp_path / "O" / TABLE_NAME).read_text()


def test_existing_output_is_left_alone(classifier: Classifier, studies: list[Study], tmp_path: Path) -> None:
    (tmp_path / "O").mkdir()
    with pytest.raises(ConfigError, match="O exists"):
        predict_all(classifier, studies, tmp_path / "O")
    assert list((tmp_path / "O").iterdir()) == []


def test_output_that_cannot_be_made_is_told(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        predict_all(classifier, [], tmp_path / "file" / "O")


def test_no_table_appears_before_all_is_done(
    classifier: Classifier, studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = many.load_study

    def interrupted(study: Study, classifier: Classifier, **options: bool) -> object:
        if study.name == "missing":
            raise KeyboardInterrupt
        return load(study, classifier, **options)

    monkeypatch.setattr(many, "load_study", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_all(classifier, studies, tmp_path / "O", overlay=False)
    assert {path.name for path in (tmp_path / "O").rglob("*") if path.is_file()} == {"heart.json", "heart.png"}


@pytest.mark.slow
@pytest.mark.parametrize("error", [IndexError("list index out of range"), ConfigError("a package is missing")])
def test_whatever_happens_at_one_study_costs_that_study_alone(
    classifier: Classifier, studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    load = many.load_study

    def failing(study: Study, classifier: Classifier, **options: bool) -> object:
        if study.name == "missing":
            raise error
        return load(study, classifier, **options)

    monkeypatch.setattr(many, "load_study", failing)
    predict_all(classifier, studies, tmp_path / "O", overlay=False)
    good, bad, last = rows(tmp_path / "O")
    assert good["prediction"] and last["prediction"] and not bad["prediction"]
    if isinstance(error, ConfigError):
        assert bad["error"] == "a package is missing"
    else:
        assert bad["error"].startswith("the study met a defect of this program (IndexError at ")
    assert json.loads((tmp_path / "O" / "studies" / "missing.json").read_text())["error"] == bad["error"]


def test_missing_package_is_the_reason_of_the_studies_that_need_it(
    classifier: Classifier, studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    predict_all(classifier, studies, tmp_path / "O", overlay=False)
    dicom, _, nifti = rows(tmp_path / "O")
    assert "further packages" in dicom["error"]
    assert nifti["prediction"]


@pytest.mark.slow
def test_names_in_any_encoding_are_written_everywhere(image_classifier: Classifier, tmp_path: Path) -> None:
    levels = np.random.default_rng(1).integers(60, 200, (40, 50, 3), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a.png", os.fsdecode(b"l\xe9sion.png"), os.fsdecode(b"b\xe9.png"), "皮肤.png"]
    for name in names:
        Image.fromarray(levels).save(folder / name)
    (folder / names[2]).write_bytes(b"no picture")
    found = find_studies([folder], modality="image")
    predict_all(image_classifier, found.studies, tmp_path / "O", overlay=False)
    table = {row["study"]: row for row in rows(tmp_path / "O")}
    assert list(table) == ["a", r"b\xe9", r"l\xe9sion", "皮肤"]
    assert table[r"l\xe9sion"]["prediction"] and table["皮肤"]["prediction"]
    assert r"b\xe9.png" in table[r"b\xe9"]["error"]
    assert len(list((tmp_path / "O" / "figures").iterdir())) == 3


def test_studies_in_an_archive_are_the_same_as_outside(image_classifier: Classifier, tmp_path: Path) -> None:
    levels = np.random.default_rng(1).integers(60, 200, (40, 50, 3), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(levels).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    archive = Path(shutil.make_archive(str(folder), "zip", folder))
    answers = []
    for place, origin in (("P", folder), ("Z", archive)):
        found = find_studies([origin], modality="image")
        predict_all(image_classifier, found.studies, tmp_path / place, overlay=False)
        first, second = rows(tmp_path / place)
        answers.append({**first, "error": second["error"].replace(str(origin), "")})
    assert answers[0] == answers[1]
    assert "/b.png" in answers[0]["error"]


def test_files_that_are_left_out_are_listed(classifier: Classifier, studies: list[Study], tmp_path: Path) -> None:
    left_out = [LeftOut("x/a, b.txt", "no image"), LeftOut("x/c.pdf", "no image")]
    predict_all(classifier, studies[1:2], tmp_path / "O", left_out=left_out, overlay=False)
    with (tmp_path / "O" / "left_out.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["file", "reason"], ["x/a, b.txt", "no image"], ["x/c.pdf", "no image"]]


def test_table_quotes_what_needs_it() -> None:
    outcome = Outcome(
        study='a, "b"', probabilities=(0.25, 0.75), predicted="y,z", state="doubtful", doubts=("one", "two"),
        notes=("3",), ranges=((0.125, 0.5), (0.5, 0.875)), error="",
    )  # fmt: skip
    outcomes = [outcome, Outcome(study="c", error="broken")]
    lines = list(csv.reader(table(["x", "y,z"], outcomes, trained_on="trained on a, b").splitlines()))
    assert lines[0][-6:] == ["x lowest", "x highest", "y,z lowest", "y,z highest", "trained_on", "error"]
    assert lines[1] == [
        'a, "b"', "0.250000", "0.750000", "y,z", "no", "doubtful", "one; two", "3",
        "0.125000", "0.500000", "0.500000", "0.875000", "trained on a, b", "",
    ]  # fmt: skip
    assert lines[2] == ["c", *[""] * 11, "trained on a, b", "broken"]


@given(st.text(min_size=1), st.sampled_from(["", "=", "+", "-", "@", "'", " =", "\t=", "\r\n@", "\x1b[2J", "\uff1d"]))
def test_no_cell_of_the_table_is_a_formula_or_steers_a_terminal(text: str, start: str) -> None:
    said = start + text
    outcome = Outcome(
        study=said, probabilities=(1.0,), predicted="x", state="doubtful", doubts=(said,), notes=(said,), error=said
    )
    header, cells = csv.reader(io.StringIO(table(["x"], [outcome]), newline=""))
    found = dict(zip(header, cells, strict=True))
    for name in ("study", "doubts", "notes", "error"):
        assert not found[name].lstrip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
        assert not any(unicodedata.category(sign)[0] == "C" for sign in found[name])
        assert unguarded(found[name]) == printable(said)


def test_result_is_found_by_the_name_that_the_table_shows(
    classifier: Classifier, studies: list[Study], tmp_path: Path
) -> None:
    study = replace(studies[1], name="-P7")
    predict_all(classifier, [study], tmp_path / "O", left_out=[LeftOut("=1+1.txt", "no image")], overlay=False)
    (row,) = rows(tmp_path / "O")
    assert row["study"] == "'-P7"
    assert find_result(tmp_path / "O", "-P7") == find_result(tmp_path / "O", row["study"])
    assert "'=1+1.txt" in (tmp_path / "O" / "left_out.csv").read_text()


@given(st.text(min_size=1), st.text(min_size=1))
def test_file_names_are_safe_and_different(first: str, second: str) -> None:
    names = file_name(first), file_name(second)
    for name in names:
        assert name.isascii()
        assert not set(name) & set("/\\.: \0")
        assert 0 < len(name) < 120
    assert (names[0] == names[1]) == (first == second)


@pytest.mark.parametrize("name", ["p1", "SC-HF_I-04"])
def test_plain_names_stay(name: str) -> None:
    assert file_name(name) == name


@pytest.fixture(scope="module")
def long_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A heart with its apex and base."""
    return Study("long", DicomFiles(write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8))))


@pytest.mark.slow
def test_outlines_stand_beside_the_class_in_table_json_and_pictures(
    classifier: Classifier, long_study: Study, tmp_path: Path
) -> None:
    missing = Study("missing", CineFile(tmp_path / "missing.nii"))
    plain = predict_all(classifier, [long_study], tmp_path / "plain", overlay=False)
    both = predict_all(classifier, [long_study, missing], tmp_path / "O", outliner=GreyOutliner(), overlay=False)
    assert both[0].probabilities == plain[0].probabilities and both[0].heart and both[1].error
    good, bad = rows(tmp_path / "O")
    assert float(good["lv_ef_percent"]) == pytest.approx(both[0].numbers["lv_ef"], abs=0.005)
    assert float(good["lv_mass_g"]) > 10 and good["no_volume_because"] == "" and bad["lv_ef_percent"] == ""
    assert "made-up hearts" in good["outlines_doubts"] and good["outlines_trained_on"]
    assert set(rows(tmp_path / "plain")[0]) < set(good)
    content = json.loads((tmp_path / "O" / "studies" / "long.json").read_text())
    assert content["heart"]["function"]["lv_edv"] == pytest.approx(both[0].numbers["lv_edv"], abs=0.005)
    contours = json.loads((tmp_path / "O" / "contours" / "long.json").read_text())
    assert len(contours["frames"]) == 10 and contours["structures"] == ["LV", "MYO", "RV"]
    assert {path.name for path in (tmp_path / "O" / "figures").iterdir()} == {"long.png", "long_outlines.png"}


def test_outlines_alone_have_no_columns_of_a_class(long_study: Study, tmp_path: Path) -> None:
    (outcome,) = predict_all(None, [long_study], tmp_path / "O", outliner=GreyOutliner())
    (row,) = rows(tmp_path / "O")
    assert outcome.state == row["state"] == "doubtful" and float(row["lv_edv_ml"]) > 10
    assert not {"prediction", "undecided", "trained_on"} & set(row)
    content = json.loads((tmp_path / "O" / "studies" / "long.json").read_text())
    assert content["probabilities"] is None and content["heart"]["frames"]["es"] == 4


@pytest.mark.slow
def test_outlines_that_cannot_be_made_cost_no_class(classifier: Classifier, long_study: Study, tmp_path: Path) -> None:
    outliner = GreyOutliner(refuses=lambda pair: len(pair) == 2)
    (outcome,) = predict_all(classifier, [long_study], tmp_path / "O", outliner=outliner, overlay=False)
    assert outcome.probabilities and "a frame is blank" in (outcome.error + "".join(outcome.no_volume_because))


@pytest.mark.slow
def test_masks_and_measures_are_written_of_their_own_frames(
    classifier: Classifier, long_study: Study, tmp_path: Path
) -> None:
    deidentified = DicomOutput(deidentifier=Deidentifier())
    for name, model in (("both", classifier), ("alone", None)):
        (outcome,) = predict_all(
            model, [long_study], tmp_path / name, outliner=GreyOutliner(), overlay=False, dicom=deidentified
        )
        assert not outcome.error
        folder = tmp_path / name / "dicom" / "long"
        names = {"mask_ed.dcm", "mask_es.dcm", "measures.dcm"} | ({"report.dcm", "figure.dcm"} if model else set())
        assert {path.name for path in folder.glob("*.dcm")} == names
        content = json.loads((tmp_path / name / "studies" / "long.json").read_text())["heart"]["frames"]
        images = [dcmread(path) for path in (folder / "images").iterdir()]
        times = {image.SOPInstanceUID: float(image.TriggerTime) for image in images}
        for phase in ("ed", "es"):
            mask = dcmread(folder / f"mask_{phase}.dcm")
            referred = {
                item.ReferencedSOPInstanceUID
                for each in mask.ReferencedSeriesSequence
                for item in each.ReferencedInstanceSequence
            }
            assert {times[uid] for uid in referred} == {10.0 + 50.0 * content[phase]}
            assert "Doeringer" not in str(mask)
