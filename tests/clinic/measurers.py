"""Bundles that measure, made without training: two numbers of hearts, and masks of lesions."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from monai_fedlora.clinic.measuring import Estimator, PhotographSegmenter, open_model
from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from tests.exporting.finished_runs import finished_run

SCALE = ((55.0, 15.0), (150.0, 50.0))
ERRORS = {
    "n": 12, "scaled_error": 0.5, "mean_absolute_error_lv_ef": 6.125, "bias_lv_ef": -1.0,
    "agreement_low_lv_ef": -12.5, "agreement_high_lv_ef": 10.5, "cases_lv_ef": 11, "cases_lv_edv": 3,
}  # fmt: skip


@pytest.fixture(scope="session")
def value_bundle(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Exported:
    """The bundle of a regression of ejection fraction and volume; of the second no error is known."""
    folder = tmp_path_factory.mktemp("values")
    views = {"personal": ERRORS, "shared": ERRORS}
    run = finished_run(
        folder / "W", backbone, task="regression", classes=("lv_ef", "lv_edv"), scale=SCALE, given_views=views
    )
    return export_bundle(**run.options(folder / "numbers", program=False))


@pytest.fixture(scope="session")
def estimator(value_bundle: Exported) -> Estimator:
    found = open_model(value_bundle.folder, device="cpu")
    assert isinstance(found, Estimator)
    return found


@pytest.fixture(scope="session")
def lesion_bundle(tmp_path_factory: pytest.TempPathFactory, image_backbone: Path) -> Exported:
    """The bundle of a segmentation of dermatoscopic photographs."""
    folder = tmp_path_factory.mktemp("lesions")
    found = {"n": 20, "dice": 0.8125, "dice_lesion": 0.8125, "cases_lesion": 20}
    run = finished_run(
        folder / "W",
        image_backbone,
        size="micro_vit",
        training={"style": "dermoscopy"},
        task="segmentation",
        classes=("lesion",),
        given_views={"personal": found, "shared": found},
    )
    return export_bundle(**run.options(folder / "outlines", program=False))


@pytest.fixture(scope="session")
def lesion_segmenter(lesion_bundle: Exported) -> PhotographSegmenter:
    found = open_model(lesion_bundle.folder, device="cpu")
    assert isinstance(found, PhotographSegmenter)
    return found


@pytest.fixture(scope="session")
def wide_photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lesion, 96 x 72 pixels, as PNG."""
    path = tmp_path_factory.mktemp("photographs") / "lesion.png"
    picture = make_dermoscopy("NV", next(iter(DERMATOSCOPES.values())), (3, 1), size=72)
    Image.fromarray(picture.pixels).resize((96, 72)).save(path)
    return path
