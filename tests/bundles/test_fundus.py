"""The photograph bundles on retinas."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.files import read_json
from tests.bundles.shipped import PHOTOGRAPHS, TEXTS, Shipped

FEW = PhotoPhantomSettings(training=10, validation=5, test=5, size=48)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "overrides", "settings"),
    [(PHOTOGRAPHS, [], {"phantom": "fundus", "style": "fundus"}), (TEXTS, ["fundus"], {})],
    ids=lambda value: getattr(value, "name", ""),
)
def test_retinas_are_graded_by_the_same_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Shipped, overrides: list[str], settings: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("monai_fedlora.data.site.site_data", partial(site_data, settings=FEW))
    bundle.run("train", overrides=overrides, epochs=1, **settings)
    bundle.run("evaluate", overrides=overrides, **settings)
    (made,) = (tmp_path / "cache" / "phantom").iterdir()
    assert made / "datalist.json" == site_data("site-1", phantom="fundus", settings=FEW)
    metrics = read_json(tmp_path / "runs" / bundle.name / "site-1" / "metrics.json")
    assert len(metrics["confusion_matrix"]) == 5
