"""How far answers can be trusted: unusual images are doubted, and what the bundle does not know is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import euclidean

from monai_fedlora.clinic.bundle import Classifier, open_bundle
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.clinic.sr_parts import PRIVATE_SCHEME
from monai_fedlora.clinic.state import CANNOT_TELL, DOUBTFUL
from monai_fedlora.clinic.trust import OodThreshold, read_trust
from monai_fedlora.data.records import FramePair
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.files import load_tensors
from monai_fedlora.networks.head_inputs import head_inputs, joined
from monai_fedlora.studies.study import DicomFiles, Study
from monai_fedlora.transforms.orientation import reference_affine
from tests.clinic.cine_studies import write_nifti
from tests.exporting.finished_runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


@pytest.fixture
def noise(tmp_path: Path) -> Study:
    """A pair of stacks of what the model of the fixtures knows its training cases to be: noise."""
    generator, affine = np.random.default_rng(3), reference_affine((5.0, 5.0, 10.0)).numpy()
    files = [
        write_nifti(tmp_path / f"p_{frame}.nii", generator.random((32, 32, 4), np.float32), affine)
        for frame in ("ed", "es")
    ]
    return Study("p", FramePair(*files))


def unlike(doubts: tuple[str, ...]) -> list[str]:
    return [doubt for doubt in doubts if "unlike the 100 cases" in doubt]


def test_distance_is_the_euclidean_one_from_the_kept_place_in_the_kept_directions(
    classifier: Classifier, stored_run: Run, noise: Study
) -> None:
    prediction = predict_study(classifier, noise, overlay=False)
    network = stored_run.networks["site-1"]
    with torch.no_grad(), head_inputs(network) as inputs:
        network(prediction.prepared[None])
    tensors, _ = load_tensors(stored_run.personal().with_name("reference.safetensors"))
    seen = joined(inputs)[0].double().numpy()
    expected = euclidean(seen @ tensors["0/directions"].double().numpy(), tensors["0/location"].double().numpy())
    assert prediction.distance == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_image_like_the_training_cases_is_not_doubted_and_another_is(
    classifier: Classifier, noise: Study, stored_study: Path
) -> None:
    near = predict_study(classifier, noise, overlay=False)
    far = predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False)
    limit = classifier.trust.ood_threshold.limit if classifier.trust.ood_threshold else 0.0
    assert near.distance is not None
    assert far.distance is not None
    assert near.distance <= limit < far.distance
    assert (unlike(near.doubts), far.state) == ([], DOUBTFUL)
    (doubt,) = unlike(far.doubts)
    assert f"distance {far.distance:.1f}," in doubt
    assert f"limit {limit:.1f}: about 95 % of the site's own cases lie within)" in doubt
    assert far.to_json()["distance"] == {"value": round(far.distance, 4), "limit": round(limit, 4)}


def test_probabilities_do_not_depend_on_whether_the_distance_is_asked_for(classifier: Classifier) -> None:
    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    without = replace(classifier, trust=read_trust({}))
    shares, distance = without.assess(image)
    assert distance is None
    assert shares == pytest.approx(classifier.probabilities(image), abs=1e-6)


@pytest.mark.slow
def test_distance_and_its_limit_stand_in_the_report(classifier: Classifier, stored_study: Path, tmp_path: Path) -> None:
    prediction = predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False)
    write_dicom(prediction, draw_figure(prediction), tmp_path, deidentifier=None)
    answer, *_ = hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
    found = {measurement.name.value: measurement for measurement in answer.get_measurements()}
    assert {measurement.name.scheme_designator for measurement in found.values()} == {PRIVATE_SCHEME}
    assert found["DISTANCE"].value == pytest.approx(prediction.distance)
    assert found["DISTANCELIMIT"].value == pytest.approx(
        classifier.trust.ood_threshold.limit if classifier.trust.ood_threshold else 0
    )


@pytest.mark.slow
def test_bundle_without_statistics_says_that_it_recognises_no_unusual_image(
    stored_run: Run, noise: Study, stored_study: Path, tmp_path: Path
) -> None:
    exported = export_bundle(**stored_run.options(tmp_path / "B"), program=False, statistics=False)
    classifier = open_bundle(exported.folder)
    prediction = predict_study(classifier, noise, overlay=False)
    assert (prediction.distance, prediction.to_json()["distance"], unlike(prediction.doubts)) == (None, None, [])
    (note,) = prediction.notes
    assert note.startswith("unusual images cannot be recognised: the bundle has no statistics")
    assert str(exported.metadata["out_of_distribution"]["reason"]) in note
    read = predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False)
    write_dicom(read, draw_figure(read), tmp_path / "O", deidentifier=None)
    answer, *_ = hd.sr.srread(tmp_path / "O" / "report.dcm").content.get_image_measurement_groups()
    assert answer.get_measurements() == []
    told = replace(prediction, doubts=())
    assert (told.state, told.to_json()["state_text"]) == (CANNOT_TELL, f"Cannot tell: {note}.")
    assert told.sentences() == (f"Cannot tell: {note}.",)
    assert (read.state, read.doubts) == (CANNOT_TELL, ())
    assert f"Cannot tell: {note}." in [item.get("TextValue") for item in answer[0].ContentSequence]


@pytest.mark.slow
def test_calibrated_bundle_says_nothing_and_gives_the_numbers(exported: Exported, noise: Study) -> None:
    prediction = predict_study(open_bundle(exported.folder), noise, overlay=False)
    entry = exported.metadata["calibration"]
    assert prediction.notes == ()
    assert json.loads(json.dumps(prediction.to_json()))["calibration"] == {
        "temperature": entry["temperature"],
        "fitted": True,
        "reason": None,
        "ece": entry["test"]["ece"]["after"],
    }


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            {"fitted": False, "reason": "9 cases are few"},
            "not calibrated (9 cases are few); on 50 test cases they were",
        ),
        ({"fitted": False, "reason": "9 cases are few", "test": None}, "not calibrated (9 cases are few)"),
        (None, "not calibrated: the bundle says nothing of it"),
    ],
)
def test_bundle_that_is_not_calibrated_says_so(exported: Exported, change: Mapping[str, Any] | None, note: str) -> None:
    metadata = dict(exported.metadata)
    metadata["calibration"] = None if change is None else {**metadata["calibration"], **change}
    (found,) = read_trust(metadata).notes
    assert note in found


def test_bundle_of_an_earlier_version_says_what_it_does_not_know() -> None:
    trust = read_trust({"name": "old"})
    assert (trust.ood_threshold, trust.calibration, trust.calibrated) == (None, None, False)
    assert trust.blind == trust.notes[1:]
    assert [note.partition(":")[0] for note in trust.notes] == [
        "the probabilities are not calibrated",
        "unusual images cannot be recognised",
        "it is not known what the model was trained on",
    ]
    assert (trust.origin.kind, trust.origin.doubts()) == ("unknown", [])


@pytest.mark.parametrize(("kind", "doubts"), [("synthetic", 1), ("mixed", 1), ("real", 0), ("unknown", 0)])
def test_model_trained_on_synthetic_images_doubts_every_study(
    exported: Exported, classifier: Classifier, noise: Study, kind: str, doubts: int
) -> None:
    metadata = {**exported.metadata, "training_data": {**exported.metadata["training_data"], "kind": kind}}
    trust = read_trust(metadata)
    prediction = predict_study(replace(classifier, trust=trust), noise, overlay=False)
    assert len([doubt for doubt in prediction.doubts if "synthetic" in doubt]) == doubts
    assert prediction.doubts[:doubts] == tuple(trust.origin.doubts())
    assert prediction.to_json()["trained_on"] == trust.origin.to_json()
    assert trust.origin.to_json()["kind"] == kind


def test_backbone_of_synthetic_images_is_named_and_no_reason_for_a_doubt(exported: Exported) -> None:
    entry = {**exported.metadata["training_data"], "backbone": {"name": "demo.safetensors", "kind": "synthetic"}}
    trust = read_trust({**exported.metadata, "training_data": entry})
    assert trust.origin.doubts() == []
    assert any("demo.safetensors" in note and "synthetic" in note for note in trust.notes)


@pytest.mark.parametrize(
    "damage", [{"kind": "reel"}, {"kind": None}, {"name": "two\nlines"}, {"backbone": {}}, {"source": 3}]
)
def test_metadata_that_misstate_the_training_images_are_refused(exported: Exported, damage: dict[str, Any]) -> None:
    entry = {**exported.metadata["training_data"], **damage}
    with pytest.raises((ConfigError, KeyError, TypeError, ValueError)):
        read_trust({**exported.metadata, "training_data": entry})


@pytest.mark.realdata
@pytest.mark.parametrize(("kind", "state"), [("synthetic", DOUBTFUL), ("mixed", DOUBTFUL), ("unknown", CANNOT_TELL)])
def test_no_model_of_other_than_real_hearts_answers_of_a_real_one_without_a_doubt(
    real_data: Path, exported: Exported, classifier: Classifier, kind: str, state: str
) -> None:
    """Not even where its statistics, stability and calibration find nothing to say."""
    metadata = {**exported.metadata, "training_data": {**exported.metadata["training_data"], "kind": kind}}
    metadata["out_of_distribution"] = {**metadata["out_of_distribution"], "threshold": 1e9}
    model = replace(classifier, trust=read_trust(metadata))
    prediction = predict_study(model, Study("p", DicomFiles(real_data / "sunnybrook_dicom" / "SCD0000301")))
    if kind == "unknown":
        prediction = replace(prediction, doubts=())
    assert prediction.state == state
    assert any("synthetic" in doubt for doubt in prediction.doubts) == (state == DOUBTFUL)


@given(distance=st.floats(0, 1e6), limit=st.floats(0, 1e6))
def test_doubt_is_raised_beyond_the_limit_alone(distance: float, limit: float) -> None:
    assert bool(OodThreshold(limit=limit, share=0.95, cases=3).doubts(distance)) == (distance > limit)


def test_cases_are_those_that_the_limit_comes_from(exported: Exported) -> None:
    entry = dict(exported.metadata["out_of_distribution"])
    entry |= {"patients": 31, "training_cases": 25, "validation_cases": 9}
    threshold = read_trust({"out_of_distribution": entry}).ood_threshold
    assert threshold is not None and threshold.cases == 31
    del entry["patients"]  # as earlier versions wrote it
    threshold = read_trust({"out_of_distribution": entry}).ood_threshold
    assert threshold is not None and threshold.cases == 25


@pytest.mark.slow
def test_model_that_cannot_measure_what_its_metadata_promise_is_refused(
    stored_run: Run, tmp_path: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = export_bundle(**stored_run.options(tmp_path / "B"), program=False, statistics=False)
    monkeypatch.setattr("monai_fedlora.clinic.opened_model.read_trust", lambda metadata: read_trust(exported.metadata))
    with pytest.raises(ConfigError, match="assess"):
        open_bundle(plain.folder)
