from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.two_models import opened_models
from monai_fedlora.errors import ConfigError


def test_a_bundle_alone_gives_a_class_and_no_outlines(classifier: Classifier) -> None:
    with opened_models(classifier.path) as (first, second):
        assert first is not None and first.classes == classifier.classes and second is None


def test_outlines_of_a_bundle_that_classifies_are_refused(classifier: Classifier) -> None:
    with (
        pytest.raises(ConfigError, match="does not outline hearts"),
        opened_models(classifier.path, outlines=classifier.path),
    ):
        pass


def test_photographs_have_no_heart(image_classifier: Classifier, classifier: Classifier, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="takes photographs"),
        opened_models(image_classifier.path, outlines=tmp_path / "outlines"),
    ):
        pass
