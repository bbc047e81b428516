"""A prediction: what the bundle itself gives, and where it comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, predict_study
from monai_fedlora.clinic.state import DOUBTFUL
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.studies.finding import find_studies
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.cine_studies import ES_FRAME
from tests.exporting.finished_runs import write_pair
from tests.exporting.running import infer, read_table

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")

WITHOUT_TRAINING = """
import sys

class Blocker:
    blocked = ("peft", "transformers", "nvflare", "ignite", "sklearn", "safetensors", "matplotlib")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
from monai_fedlora.clinic import dicom_output, figure, many
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.studies.finding import find_studies
classifier = open_bundle(sys.argv[1])
for study in find_studies(sys.argv[2:], modality=classifier.modality).studies:
    print(study.name, *predict_study(classifier, study, overlay=False).probabilities)
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Stacks of different size, resolution and orientation."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pair(folder, "p1", shape=(60, 50, 5), spacing=(4.0, 4.0, 10.0))
    write_pair(folder, "p.2 b", shape=(90, 100, 9), spacing=(1.5, 1.8, 8.0))
    turn = np.array([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    for frame in ("ed", "es"):
        image = nibabel.load(folder / f"p1_{frame}.nii.gz")
        affine = np.eye(4)
        affine[:3, :3] = turn @ image.affine[:3, :3]
        oblique = nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)
        nibabel.save(oblique, folder / f"oblique_{frame}.nii.gz")
        published = nibabel.Nifti1Image(oblique.dataobj, None)  # as ACDC is: the sform of 1 mm is wrong
        published.header.set_qform(affine, 1)
        published.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
        nibabel.save(nibabel.Nifti1Image(oblique.dataobj, None, published.header), folder / f"acdc_{frame}.nii.gz")
    return folder


@pytest.mark.slow
def test_probabilities_are_those_of_the_bundle_run_by_monai(
    exported: Exported, classifier: Classifier, pairs: Path, tmp_path: Path
) -> None:
    _, expected = read_table(infer(exported.folder, pairs, tmp_path / "O"))
    studies = find_studies([pairs], modality="cine").studies
    found = {study.name: predict_study(classifier, study, overlay=False).probabilities for study in studies}
    assert found.keys() == expected.keys() == {"p1", "p.2 b", "oblique", "acdc"}
    for study, shares in found.items():
        assert shares == pytest.approx(expected[study], abs=1e-6)
    assert found["acdc"] == pytest.approx(found["oblique"], abs=1e-4)


def test_json_says_where_the_frames_come_from(
    classifier: Classifier, image_classifier: Classifier, pairs: Path, tmp_path: Path
) -> None:
    *_, study = find_studies([pairs], modality="cine").studies
    assert predict_study(classifier, study, overlay=False).to_json()["frames"] == {"how": "two files"}
    levels = np.random.default_rng(0).integers(90, 200, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    (study,) = find_studies([tmp_path / "a.png"], modality="image").studies
    assert predict_study(image_classifier, study, overlay=False).to_json()["frames"] is None


@pytest.mark.slow
def test_probabilities_of_photographs_are_those_of_the_bundle_run_by_monai(
    image_exported: Exported, image_classifier: Classifier, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(90, 200, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "a.jpg")
    Image.fromarray(levels[..., 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([levels, levels[..., 1]]), "RGBA").save(folder / "clear.tif")
    _, expected = read_table(infer(image_exported.folder, folder, tmp_path / "O"))
    for study in find_studies([folder], modality="image").studies:
        found = predict_study(image_classifier, study, overlay=False).probabilities
        assert found == pytest.approx(expected.pop(study.name), abs=1e-6)
    assert expected == {}


@pytest.mark.slow
def test_prediction_of_a_dicom_study_says_where_it_comes_from(classifier: Classifier, stored_study: Path) -> None:
    prediction = predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False)
    assert prediction.predicted == classifier.classes[prediction.best]
    assert prediction.probabilities[prediction.best] == max(prediction.probabilities)
    assert prediction.prepared.shape == (2, 32, 32, 4)
    assert prediction.relevance is None
    content = json.loads(json.dumps(prediction.to_json()))
    assert content["notice"] == NOT_FOR_CLINICAL_USE
    assert content["probabilities"] == dict(zip(("NOR", "ABN"), prediction.probabilities, strict=True))
    assert content["model"] == {"name": "site-1 model", "version": "1.0.0", "sha256": classifier.sha256}
    assert (content["frames"]["ed"], content["frames"]["es"]) == (0, ES_FRAME)
    assert len(content["frames"]["areas"]) == 10
    assert [doubt[:19] for doubt in content["doubts"]] == ["the image is unlike"]
    assert content["notes"] == ["the cine is series 5: 6 slices of 10 frames", "series 5 is 'cine sax'"]
    assert content["left_out"] == []
    assert content["frames"]["counted_from"] == 0
    assert content["frames"]["trigger_ms"] == [10.0 + 50.0 * frame for frame in range(10)]
    assert content["state"] == prediction.state == DOUBTFUL
    assert content["state_text"] == f"Doubtful because {prediction.doubts[0]}."
    assert content["undecided"] is prediction.undecided
    assert content["answer"] == prediction.answer
    assert list(content["shown"]) == ["NOR", "ABN"]
    assert content["trained_on"] == prediction.classifier.trust.origin.to_json()


@pytest.mark.slow
def test_json_names_neither_the_patient_nor_a_file(classifier: Classifier, stored_study: Path) -> None:
    text = json.dumps(predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False).to_json())
    assert not any(word in text for word in ("Doeringer", "Q4711", "House", "2.25.", str(stored_study)))


@pytest.mark.slow
def test_overlay_changes_nothing_but_itself(classifier: Classifier, stored_study: Path) -> None:
    study = Study("p", DicomFiles(stored_study))
    with_overlay, without = (predict_study(classifier, study, overlay=wanted) for wanted in (True, False))
    assert with_overlay.probabilities == without.probabilities
    assert with_overlay.relevance is not None
    assert with_overlay.relevance.shape == (32, 32)


@pytest.mark.slow
def test_prediction_needs_no_training_code(
    exported: Exported, classifier: Classifier, stored_study: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WITHOUT_TRAINING, str(exported.folder), str(stored_study)]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    prediction = predict_study(classifier, Study("heart", DicomFiles(stored_study)), overlay=False)
    assert printed[0] == "heart"
    assert [float(word) for word in printed[1:]] == pytest.approx(prediction.probabilities)
