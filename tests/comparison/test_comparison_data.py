"""The data of a comparison are those of its sites, and known by what their datalists say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from monai_fedlora.comparison.comparison_data import content_hash, data_hash, load_sites, prepared_sites
from monai_fedlora.data import site as site_module
from monai_fedlora.errors import DataError
from monai_fedlora.files import read_json, write_json
from tests.federated.conftest import BUNDLE, SITES, Prepared


def test_the_sites_of_a_prepared_folder_are_found(prepared: Prepared, tmp_path: Path) -> None:
    assert prepared_sites(str(prepared.data)) == list(SITES)
    with pytest.raises(DataError, match="no prepared site"):
        prepared_sites(str(tmp_path))


def test_a_prepared_pool_is_no_site(prepared: Prepared, tmp_path: Path) -> None:
    content = read_json(prepared.data / "site-1" / "datalist.json")
    for site in ("site-1", "pooled"):
        write_json(tmp_path / site / "datalist.json", {**content, "site": site})
    assert prepared_sites(str(tmp_path)) == ["site-1"]


def test_prepared_sites_are_loaded_in_the_order_they_are_named(prepared: Prepared) -> None:
    found = load_sites(SITES[::-1], bundle=BUNDLE, data_root=str(prepared.data))
    assert [(name, datalist.site) for name, datalist in found.items()] == [(site, site) for site in SITES[::-1]]


def test_without_a_folder_the_bundle_makes_the_phantoms(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def make(site: str, **_: object) -> Path:
        asked.append(site)
        return prepared.data / "site-1" / "datalist.json"

    monkeypatch.setattr(site_module, "site_data", make)
    (found,) = load_sites(["site-7"], bundle=BUNDLE, data_root=None).values()
    assert asked == ["site-7"]
    assert found.site == "site-1"


def test_sites_of_other_classes_or_named_twice_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    for site in SITES[:2]:
        content = read_json(prepared.data / site / "datalist.json")
        classes = ["NOR", "SICK"] if site == "site-2" else content["classes"]
        write_json(tmp_path / site / "datalist.json", {**content, "classes": classes})
    with pytest.raises(DataError, match="SICK"):
        load_sites(SITES[:2], bundle=BUNDLE, data_root=str(tmp_path))
    with pytest.raises(DataError, match="different"):
        load_sites(["site-1", "site-1"], bundle=BUNDLE, data_root=str(prepared.data))


def test_the_hash_is_of_what_is_said_and_not_of_where_the_images_lie(prepared: Prepared) -> None:
    datalist = load_sites(SITES[:1], bundle=BUNDLE, data_root=str(prepared.data))["site-1"]
    assert content_hash(dataclasses.replace(datalist, image_root=Path("/elsewhere"))) == content_hash(datalist)
    relabelled = (dataclasses.replace(datalist.training[0], label=1), *datalist.training[1:])
    moved = {"training": datalist.training[1:], "test": (*datalist.test, datalist.training[0])}
    others = [dataclasses.replace(datalist, training=relabelled), dataclasses.replace(datalist, **moved)]
    assert len({content_hash(each) for each in (datalist, *others)}) == 3


def test_the_hash_of_the_data_is_of_every_byte_of_the_images(prepared: Prepared, tmp_path: Path) -> None:
    datalist = load_sites(SITES[:1], bundle=BUNDLE, data_root=str(prepared.data))["site-1"]
    for _, case in datalist.all_cases():
        for file in case.files():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(datalist.image_root / file, tmp_path / file)
    copied = dataclasses.replace(datalist, image_root=tmp_path)
    before = data_hash(datalist)
    assert data_hash(copied) == before
    for case in (copied.training[0], copied.test[-1]):
        path = tmp_path / case.files()[-1]
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert data_hash(copied) != before
        path.write_bytes(content)
    assert data_hash(copied) == before
    path.unlink()
    with pytest.raises(DataError, match="site-1"):
        data_hash(copied)
