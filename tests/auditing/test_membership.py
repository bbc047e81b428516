"""Members are the ones of the very split that a model was trained on; cases from outside are nobody's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.auditing.membership import find_outside, find_site, phantom_of
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.errors import DataError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.files import read_json, write_json

from .conftest import CLASSES, SITE, Trained, prepare


def alter(source: Path, target: Path, **changes: Any) -> str:
    write_json(target / SITE / "datalist.json", {**read_json(source / SITE / "datalist.json"), **changes})
    return str(target)


def test_the_datalist_of_the_training_is_taken(bundle: Exported, trained: Trained) -> None:
    found = find_site(bundle.metadata, site=SITE, data=str(trained.data), phantom="dermoscopy")
    assert found == load_datalist(trained.data / SITE / "datalist.json")


def test_another_split_or_task_makes_nobody_a_member(bundle: Exported, trained: Trained, tmp_path: Path) -> None:
    own = read_json(trained.data / SITE / "datalist.json")
    fewer = alter(trained.data, tmp_path / "fewer", training=own["training"][1:])
    with pytest.raises(DataError, match=rf"{len(own['training']) - 1} training cases.*was made with"):
        find_site(bundle.metadata, site=SITE, data=fewer, phantom="dermoscopy")
    turned = alter(trained.data, tmp_path / "turned", classes=list(reversed(CLASSES)))
    with pytest.raises(DataError, match="has the classes MEL, NV, the model NV, MEL"):
        find_site(bundle.metadata, site=SITE, data=turned, phantom="dermoscopy")
    with pytest.raises(DataError, match="does not exist"):
        find_site(bundle.metadata, site=SITE, data=str(tmp_path), phantom="dermoscopy")


def test_all_cases_of_a_folder_are_from_outside(trained: Trained) -> None:
    own = load_datalist(trained.data / SITE / "datalist.json")
    found = find_outside(str(trained.outside), own)
    assert found is not None
    assert len(found.training) == sum(1 for _ in load_datalist(trained.outside / SITE / "datalist.json").all_cases())
    assert (found.validation, found.test) == ((), ())
    assert find_outside(None, own) is None


def test_a_site_s_own_case_is_not_from_outside(trained: Trained, tmp_path: Path) -> None:
    own = load_datalist(trained.data / SITE / "datalist.json")
    with pytest.raises(DataError, match=r"has the images of .* of the site's own data"):
        find_outside(str(trained.data), own)
    with pytest.raises(DataError, match="no prepared folder"):
        find_outside(str(tmp_path / "nowhere"), own)
    other = alter(trained.outside, tmp_path / "other", classes=["NV", "BKL"])
    with pytest.raises(DataError, match="images of the classes NV, BKL"):
        find_outside(other, own)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dermoscopy", "cine"])
def test_more_phantoms_are_other_patients_of_the_same_site(kind: str, tmp_path: Path, trained: Trained) -> None:
    if kind == "cine":
        settings = PhantomSettings(training=3, validation=0, test=1)
        own = load_datalist(site_data(SITE, settings=settings))
    else:
        own = load_datalist(prepare(tmp_path, seed=0) / SITE / "datalist.json")
    found = find_outside("phantom", own)
    assert found is not None
    assert (found.classes, found.modality) == (own.classes, own.modality)
    assert len(found.training) >= sum(1 for _ in own.all_cases()) - 2
    real = dataclasses.replace(own, dataset="clinic")
    with pytest.raises(DataError, match="no phantoms"):
        find_outside("phantom", real)


def test_a_bundle_names_its_phantom() -> None:
    assert phantom_of("image_2d_fedopal_classification") == "dermoscopy"
    assert phantom_of("cine_cmr_dual_lora_classification") == "cine"
