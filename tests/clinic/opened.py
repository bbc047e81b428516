"""The bundles as opened for predictions, and a DICOM study of a made-up heart; a plug-in of pytest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.clinic.bundle import Classifier, open_bundle
from monai_fedlora.exporting.bundle_export import Exported
from tests.clinic.cine_studies import beating_heart, write_study


@pytest.fixture(scope="session")
def classifier(exported: Exported) -> Classifier:
    """A cine model."""
    return open_bundle(exported.folder)


@pytest.fixture(scope="session")
def image_classifier(image_exported: Exported) -> Classifier:
    """A model of dermoscopic photographs."""
    return open_bundle(image_exported.folder)


@pytest.fixture(scope="session")
def cine() -> np.ndarray:
    """(X, Y, Z, T), base first."""
    return beating_heart()


@pytest.fixture(scope="session")
def stored_study(cine: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DICOM study that tests only read."""
    return write_study(tmp_path_factory.mktemp("dicom") / "heart", cine)


@pytest.fixture
def study_folder(stored_study: Path, tmp_path: Path) -> Path:
    """The folder of a DICOM study that tests may change."""
    return Path(shutil.copytree(stored_study, tmp_path / "heart"))
