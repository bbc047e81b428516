"""Public images are phantoms of every device and what is declared public, and nothing of the site's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.data.site import PhantomSettings, phantom_data, phantom_sites, site_data
from monai_fedlora.environment import DATA
from monai_fedlora.errors import DataError, ExportError
from monai_fedlora.exporting import public_images as module
from monai_fedlora.exporting.cine_modality import Cine
from monai_fedlora.exporting.photograph_modality import Photograph
from monai_fedlora.exporting.public_images import public_features, public_images
from monai_fedlora.networks import catalogue

from .finished_runs import MICRO_VIT


class Reader(nn.Module):
    """A head that reads the mean of each channel."""

    head_prefixes = ("head.",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(2).mean(dim=2))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PER_SCANNER", 2)
    monkeypatch.setattr(module, "PER_KIND", 1)


def photograph() -> Photograph:
    return Photograph(architecture=MICRO_VIT, style="dermoscopy", mean=(0.5,) * 3, std=(0.2,) * 3)


def cine() -> Cine:
    return Cine(architecture=catalogue.architecture("micro"), spacing=(5.0, 5.0, 10.0))


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "channels"), [(photograph, 3), (cine, 2)])
def test_a_network_sees_every_device_and_every_kind(modality: Callable[[], Cine | Photograph], channels: int) -> None:
    kind, seen = modality(), []
    images = public_images(kind.phantom)
    found = public_features(Reader(channels), images, kind, on_image=lambda done, total: seen.append((done, total)))
    devices = len(phantom_sites(kind.phantom))
    assert {name: value.shape for name, value in found.ordinary.items()} == {
        f"phantom site-{number}": (2, channels) for number in range(1, devices + 1)
    }
    others = {"phantom fundus"} if channels == 3 else set()
    assert set(found.foreign) == {*kind.foreign, *others}
    assert all(torch.isfinite(value).all() for value in (*found.ordinary.values(), *found.foreign.values()))
    assert seen[-1] == (len(seen), len(seen))
    assert f"2 phantoms ({kind.phantom}) of each of {devices} devices" in images.description


def test_the_data_of_this_site_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA, str(tmp_path / "prepared"))
    items = [item for group in public_images("dermoscopy").ordinary.values() for item in group()]
    assert items
    assert not [item for item in items if str(tmp_path) in item["image"] and "prepared" in item["image"]]


def test_no_site_trains_on_these_phantoms() -> None:
    (first, *_) = public_images("cine").ordinary.values()
    mine = json.loads(site_data("site-1", settings=PhantomSettings(training=2, validation=0, test=0)).read_text())
    other = phantom_data("site-1", settings=PhantomSettings(training=2, validation=0, test=0, seed=module.SEED))
    assert other.parent != site_data("site-1", settings=PhantomSettings(training=2, validation=0, test=0)).parent
    assert Path(str(first()[0]["ed"])).is_relative_to(other.parent)
    assert mine["seed"] != module.SEED


@pytest.mark.slow
def test_cases_that_are_declared_public_are_devices_of_their_own(tmp_path: Path) -> None:
    settings = PhantomSettings(training=6, validation=2, test=2, seed=3)
    source = phantom_data("north", settings=settings)
    folder = tmp_path / "prepared" / "north"
    folder.mkdir(parents=True)
    content = json.loads(source.read_text()) | {"image_root": str(source.parent / "images")}
    (folder / "datalist.json").write_text(json.dumps(content))
    images = public_images("cine", prepared=tmp_path / "prepared")
    assert len(images.ordinary["public north"]()) == 10
    assert "10 public cases of north" in images.description
    with pytest.raises(ExportError, match="another kind of images"):
        public_images("fundus", prepared=tmp_path / "prepared")


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_a_folder_without_public_sites_is_no_silent_default(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="no prepared folder"):
        public_images("cine", prepared=tmp_path / name)


def test_a_network_that_hides_its_heads_is_refused() -> None:
    class Hidden(Reader):
        def forward(self, image: Tensor) -> Tensor:
            return image.flatten(1)[:, :2]

    with pytest.raises(ExportError, match="does not show"):
        public_features(Hidden(3), public_images("dermoscopy"), photograph())
