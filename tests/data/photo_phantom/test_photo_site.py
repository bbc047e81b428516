from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.data.datalist import FILE_NAME, load_datalist
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings, make_site, site_camera, site_key
from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.photograph_mask_reading import read_photograph_mask

FEW = PhotoPhantomSettings(training=12, validation=4, test=8, size=32)


@pytest.mark.slow
@pytest.mark.parametrize("phantom", KINDS)
def test_a_site_is_a_valid_datalist_of_photographs(phantom, tmp_path) -> None:
    make_site(tmp_path, phantom, "site-3", FEW)
    datalist = load_datalist(tmp_path / FILE_NAME)
    cases = [case for _, case in datalist.all_cases()]
    assert datalist.classes == KINDS[phantom].demo and datalist.task == "multiclass"
    assert len(cases) == FEW.pictures == len({case.subject for case in cases})
    assert all(datalist.classes[case.label] == case.group for case in cases)
    assert 2 in Counter(case.unit for case in cases).values()
    for item in datalist.items("training"):
        with Image.open(item["image"]) as picture:
            assert picture.mode == "RGB" and min(picture.size) == 32


@pytest.fixture
def counts(tmp_path, monkeypatch):
    """Return ``counts(phantom, site)``: cases of each split and class of the default settings, none of them drawn."""
    monkeypatch.setattr("monai_fedlora.data.photo_phantom.photo_kinds.Kind.file", lambda *_, **__: b"")

    def make(phantom: str, site: str) -> np.ndarray:
        folder = tmp_path / phantom / site
        folder.mkdir(parents=True)
        make_site(folder, phantom, site, PhotoPhantomSettings())
        datalist = load_datalist(folder / FILE_NAME)
        return np.array([datalist.counts(split) for split in ("training", "validation", "test")])

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("phantom", "lacking"), [("dermoscopy", {4: 3, 5: 1, 6: 2}), ("fundus", {3: 0, 5: 4})])
def test_six_sites_differ_in_their_classes_and_some_lack_one(phantom, lacking, counts) -> None:
    table = np.array([counts(phantom, f"site-{number}") for number in range(1, 7)])
    assert np.abs(table.sum(2) - [96, 36, 48]).max() <= 8
    everyone = table.sum(1)
    assert (everyone.sum(1) == 180).all()
    for number in range(1, 7):
        missing = np.flatnonzero(everyone[number - 1] == 0).tolist()
        assert missing == ([lacking[number]] if number in lacking else [])
        assert (table[number - 1, 0] > 0).sum() == len(KINDS[phantom].demo) - len(missing)
    shares = everyone / 180
    far = max(np.abs(one - other).sum() / 2 for one in shares for other in shares)
    assert far > 0.5  # total variation distance between the two most different sites


def test_six_sites_have_six_cameras_and_others_a_fixed_one() -> None:
    for phantom, kind in KINDS.items():
        assert [site_camera(phantom, f"site-{number}").code for number in range(1, 7)] == list("ABCDEF")
        assert {site_camera(phantom, f"hospital-{number}").code for number in range(60)} == set("ABCDEF")
        assert site_camera(phantom, "leeds") is site_camera(phantom, "leeds")
        assert list(kind.cameras) == list("ABCDEF")


def test_what_a_site_follows_from_is_in_its_key() -> None:
    keys = [
        site_key("dermoscopy", "site-1", PhotoPhantomSettings()),
        site_key("fundus", "site-1", PhotoPhantomSettings()),
        site_key("dermoscopy", "site-2", PhotoPhantomSettings()),
        site_key("dermoscopy", "site-1", PhotoPhantomSettings(seed=1)),
        site_key("dermoscopy", "site-1", PhotoPhantomSettings(size=64)),
        site_key("dermoscopy", "site-1", PhotoPhantomSettings(classes=("NV", "MEL"))),
    ]
    assert len({str(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": 0},
        {"validation": -1},
        {"size": 31},
        {"classes": ("NV",)},
        {"classes": ("NV", "NV")},
        {"classes": ("NV", "wart")},
    ],
)
def test_impossible_settings_are_refused(changes) -> None:
    with pytest.raises(ConfigError):
        site_key("dermoscopy", "site-1", PhotoPhantomSettings(**changes))


def test_a_camera_that_sees_none_of_the_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="camera F"):
        site_key("dermoscopy", "site-6", PhotoPhantomSettings(classes=("BKL", "AK")))


def test_a_site_for_segmentation_has_a_mask_of_every_lesion(tmp_path) -> None:
    few = PhotoPhantomSettings(training=3, validation=1, test=1, size=48, task="segmentation")
    make_site(tmp_path, "dermoscopy", "site-2", few)
    datalist = load_datalist(tmp_path / FILE_NAME)
    assert datalist.task == "segmentation" and datalist.classes == ("lesion",)
    for split in ("training", "validation", "test"):
        for item in datalist.items(split):
            picture = np.asarray(Image.open(item["image"])).astype(float).mean(-1)
            mask = read_photograph_mask(item["mask"], image=item["image"], values=item["mask_values"]) > 0
            assert 0.02 < mask.mean() < 0.9
            assert abs(picture[mask].mean() - picture[~mask & (picture > 60)].mean()) > 3


@pytest.mark.parametrize(("phantom", "task"), [("fundus", "segmentation"), ("dermoscopy", "regression")])
def test_masks_that_are_not_there_are_refused(phantom, task) -> None:
    with pytest.raises(ConfigError, match=r"has no masks|is unknown; it is multiclass or segmentation"):
        site_key(phantom, "site-1", PhotoPhantomSettings(task=task))
