"""What a user can say of a site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError, DataError
from tests.api.conftest import images


def test_parts_become_the_splits() -> None:
    data = fl.SiteData(train=images(4, 0), test=images(2, 1))
    said, parts = data.read("north")
    assert said is data
    assert {split: len(items) for split, items in parts.items()} == {"training": 4, "validation": 0, "test": 2}


@pytest.mark.parametrize("given", [{}, {"train": images(2, 0), "folder": Path("x")}])
def test_a_site_has_parts_or_a_folder(given: dict) -> None:
    with pytest.raises(ConfigError, match="a site has train="):
        fl.SiteData(**given)


def test_a_kind_of_images_is_one_that_reports_know() -> None:
    with pytest.raises(ConfigError, match="images are of the kind 'invented'"):
        fl.SiteData(train=images(2, 0), images="invented")


def test_a_folder_that_is_no_prepared_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"datalist\.json does not exist"):
        fl.SiteData.prepared(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        fl.SiteData.of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="a site is a ndarray"):
        fl.SiteData.of(np.zeros(3))
