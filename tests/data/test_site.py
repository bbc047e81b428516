from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monai_fedlora.data import site as module
from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.phantom import VERSION
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import PhantomSettings, cache_folder, site_data, site_vendor
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import write_json

FEW = PhantomSettings(training=2, validation=1, test=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "phantom"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prepared_folder_wins(tmp_path, monkeypatch, cache) -> None:
    for root in ("given", "named"):
        (tmp_path / root / "here").mkdir(parents=True)
        (tmp_path / root / "here" / "datalist.json").write_text("{}")
    monkeypatch.setenv("MONAI_FEDLORA_DATA", str(tmp_path / "named"))
    assert site_data("here") == tmp_path / "named" / "here" / "datalist.json"
    assert site_data("here", data_root=str(tmp_path / "given")) == tmp_path / "given" / "here" / "datalist.json"
    assert not cache.exists()


def test_a_folder_without_the_site_is_an_error_that_says_what_to_run(tmp_path, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"missing/there/datalist\.json.*monai-fedlora data"):
        site_data("there", data_root=str(tmp_path / "missing"))
    monkeypatch.setenv("MONAI_FEDLORA_DATA", str(tmp_path))
    with pytest.raises(DataError, match="MONAI_FEDLORA_DATA"):
        site_data("there")


@pytest.mark.parametrize("name", ["", "../up", "a b", "server"])
def test_a_site_name_cannot_be_a_path(name, cache) -> None:
    with pytest.raises(DataError, match="cannot name a site"):
        site_data(name)
    assert not cache.exists()


def test_a_phantom_is_a_valid_datalist_with_the_vendors_prevalence(cache, monkeypatch) -> None:
    settings = PhantomSettings()
    written: list[str] = []

    class Files:
        ed = Path("ed.nii.gz")
        es = Path("es.nii.gz")

    def write(patient, folder) -> Files:
        folder.mkdir(parents=True)
        (folder / "ed.nii.gz").touch()
        (folder / "es.nii.gz").touch()
        written.append(folder.name)
        return Files()

    monkeypatch.setattr("monai_fedlora.data.phantom.patient.make_patient", lambda *_: None)
    monkeypatch.setattr("monai_fedlora.data.phantom.layouts.write_acdc_patient", write)
    datalist = load_datalist(site_data("site-2", settings=settings))
    assert (datalist.site, datalist.task, datalist.classes) == ("site-2", "binary", ("NOR", "ABN"))
    counts = {split: datalist.counts(split) for split in ("training", "validation", "test")}
    assert sum(map(sum, counts.values())) == len(written) == settings.patients == 64
    assert sum(normal for normal, _ in counts.values()) == round(64 * 65 / 125)
    for split, size in (("training", 32), ("validation", 12), ("test", 20)):
        assert abs(sum(counts[split]) - size) <= 3 and min(counts[split]) >= size * 0.35
    assert all((case.label == 0) == (case.group == "NOR") for _, case in datalist.all_cases())


@pytest.mark.slow
def test_a_phantom_is_made_once_and_the_same_anywhere(cache, tmp_path, monkeypatch) -> None:
    path = site_data("site-4", settings=FEW)
    datalist = load_datalist(path)
    assert len(list(datalist.all_cases())) == 4 and datalist.image_root == path.parent / "images"
    assert [entry.name for entry in cache.iterdir()] == [path.parent.name]
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made twice"))
    assert site_data("site-4", settings=FEW) == path
    monkeypatch.undo()
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "elsewhere"))
    assert contents(site_data("site-4", settings=FEW).parent) == contents(path.parent)


def empty(folder: Path, *_) -> None:
    (folder / "datalist.json").write_text("{}")


def test_other_settings_sites_and_generators_have_other_folders(monkeypatch) -> None:
    monkeypatch.setattr(module, "_make", empty)
    paths = {site_data("site-1"), site_data("site-2"), site_data("site-1", settings=PhantomSettings(seed=1))}
    paths |= {site_data("site-1", settings=PhantomSettings(task="multiclass"))}
    monkeypatch.setattr("monai_fedlora.data.phantom.VERSION", -1)
    paths |= {site_data("site-1")}
    assert len(paths) == 5


def test_hearts_are_the_default_and_follow_from_nothing_but_site_settings_and_vendor(cache, monkeypatch) -> None:
    monkeypatch.setattr(module, "_make", empty)
    vendor = site_vendor("site-2")
    key = {
        "version": VERSION,
        "site": "site-2",
        "settings": {"training": 2, "validation": 1, "test": 1, "task": "binary", "seed": 0},
        "vendor": {name: getattr(vendor, name) for name in vendor.__slots__},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=dict).encode()).hexdigest()[:16]
    assert site_data("site-2", settings=FEW) == cache / f"site-2-{digest}" / "datalist.json"
    assert site_data("site-2", phantom="cine", settings=FEW) == site_data("site-2", settings=FEW)


@pytest.mark.slow
@pytest.mark.parametrize("phantom", ["dermoscopy", "fundus"])
def test_photographs_are_made_once_and_the_same_anywhere(phantom, cache, tmp_path, monkeypatch) -> None:
    settings = PhotoPhantomSettings(training=6, validation=2, test=2, size=32)
    path = site_data("site-1", phantom=phantom, settings=settings)
    datalist = load_datalist(path)
    assert len(list(datalist.all_cases())) == 10 and all("image" in item for item in datalist.items("training"))
    assert [entry.name for entry in cache.iterdir()] == [path.parent.name]
    with monkeypatch.context() as patch:
        patch.setattr("monai_fedlora.data.photo_phantom.photo_site.make_site", lambda *_: pytest.fail("made twice"))
        assert site_data("site-1", phantom=phantom, settings=settings) == path
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "elsewhere"))
    again = site_data("site-1", phantom=phantom, settings=settings)
    assert again != path and contents(again.parent) == contents(path.parent)


@pytest.mark.parametrize(
    ("phantom", "hint"), [("dermatoscopy", "did you mean 'dermoscopy'"), ("cines", "'cine'"), ("xray", "choose from")]
)
def test_an_unknown_phantom_is_refused_with_the_nearest_name(phantom, hint, cache) -> None:
    with pytest.raises(ConfigError, match=hint):
        site_data("site-1", phantom=phantom)
    assert not cache.exists()


@pytest.mark.parametrize(("phantom", "settings"), [("cine", PhotoPhantomSettings()), ("fundus", FEW)])
def test_settings_of_another_phantom_are_refused(phantom, settings) -> None:
    with pytest.raises(ConfigError, match="are not the settings"):
        site_data("site-1", phantom=phantom, settings=settings)


def test_several_processes_at_once_end_with_one_phantom(cache, monkeypatch) -> None:
    def slow(folder: Path, *_) -> None:
        empty(folder)
        started.append(folder)
        while len(started) < 4:
            pass

    started: list[Path] = []
    monkeypatch.setattr(module, "_make", slow)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: site_data("site-1"), range(4)))
    assert len(set(started)) == 4 and len(paths) == 1
    assert list(cache.iterdir()) == [paths.pop().parent]


def test_a_failure_leaves_nothing(cache, monkeypatch) -> None:
    def fail(folder: Path, *_) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(module, "_make", fail)
    with pytest.raises(OSError, match="disk full"):
        site_data("site-1")
    assert list(cache.iterdir()) == []


def test_phantoms_are_their_owners_only(cache, monkeypatch) -> None:
    monkeypatch.setattr(module, "_make", empty)
    assert os.stat(site_data("site-1").parent).st_mode & 0o077 == 0


def test_the_first_four_sites_have_the_four_vendors_and_others_a_fixed_one() -> None:
    assert [site_vendor(f"site-{number}").code for number in range(1, 5)] == ["A", "B", "C", "D"]
    assert {site_vendor(f"hospital-{number}").code for number in range(40)} == {"A", "B", "C", "D"}
    assert site_vendor("leeds") == site_vendor("leeds")


def test_the_cache_follows_the_environment(monkeypatch, tmp_path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MONAI_FEDLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "monai-fedlora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "monai-fedlora"


@pytest.mark.parametrize("changes", [{"training": 0}, {"test": -1}, {"task": "detection"}])
def test_impossible_settings_are_refused(changes) -> None:
    with pytest.raises(ConfigError):
        site_data("site-1", settings=PhantomSettings(**changes))


@pytest.mark.slow
def test_without_data_the_pool_holds_the_phantoms_of_all_cameras(cache) -> None:
    few = PhotoPhantomSettings(training=4, validation=2, test=2, size=32)
    sites = [load_datalist(site_data(f"site-{n}", phantom="dermoscopy", settings=few)) for n in range(1, 7)]
    path = site_data("pooled", phantom="dermoscopy", settings=few)
    pooled = load_datalist(path)
    for split in SPLITS:
        expected = [f"{site.site}.{case.subject}" for site in sites for case in site.cases(split)]
        assert [case.subject for case in pooled.cases(split)] == expected
    assert site_data("pooled", phantom="dermoscopy", settings=few) == path
    assert len(list(cache.iterdir())) == 6
    assert os.stat(path.parent.parent).st_mode & 0o077 == 0


def test_without_data_the_pool_of_hearts_has_the_four_vendors(monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "_cine_phantom", lambda site, _: asked.append(site) or Path(site))
    monkeypatch.setattr(module, "pooled_data", lambda paths, folder: Path("+".join(map(str, paths))))
    assert site_data("pooled") == Path("site-1+site-2+site-3+site-4")
    assert asked == ["site-1", "site-2", "site-3", "site-4"]


def prepared(root: Path, *sites: str) -> Path:
    few = PhotoPhantomSettings(training=2, validation=1, test=1, size=32)
    for site in sites:
        path = site_data("site-1", phantom="dermoscopy", settings=few)
        write_json(root / site / "datalist.json", {**load_datalist(path).to_json(), "site": site})
    return root


def test_a_prepared_folder_is_pooled_unless_it_has_a_pool_of_its_own(tmp_path) -> None:
    root = prepared(tmp_path / "prepared", "north", "south")
    pooled = load_datalist(site_data("pooled", data_root=str(root)))
    assert list(dict.fromkeys(case.subject.split(".")[0] for case in pooled.training)) == ["north", "south"]
    assert sorted(path.name for path in root.iterdir()) == ["north", "south"]
    prepared(root, "pooled")
    assert site_data("pooled", data_root=str(root)) == root / "pooled" / "datalist.json"


def test_an_empty_folder_cannot_be_pooled(tmp_path) -> None:
    with pytest.raises(DataError, match=r"pooled/datalist\.json does not exist"):
        site_data("pooled", data_root=str(tmp_path))
