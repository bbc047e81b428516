"""A pool holds every case of every site once, in its split and with its own file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.pool import POOLED, pool, pooled_data
from monai_fedlora.errors import DataError
from monai_fedlora.files import write_json


def photographs(root: Path, site: str, *, subjects: Sequence[str] = "abcd", unit: str | None = None) -> Datalist:
    """A site whose photographs hold their own site's and subject's name."""
    root.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        (root / f"{subject}.png").write_text(f"{site} {subject}")
    cases = [Case(subject=s, label=i % 2, group=s, unit=unit, image=f"{s}.png") for i, s in enumerate(subjects)]
    return Datalist(
        site=site,
        dataset=f"set-{site}",
        task="binary",
        classes=("NV", "MEL"),
        image_root=root,
        seed=3,
        training=tuple(cases[:2] if unit is None else cases),
        validation=tuple(cases[2:3] if unit is None else ()),
        test=tuple(cases[3:] if unit is None else ()),
    )


@pytest.mark.parametrize("folders", [("one/images", "two"), ("x", "x/deeper"), ("same", "same")])
def test_every_case_keeps_its_split_its_label_and_its_file(tmp_path: Path, folders: tuple[str, str]) -> None:
    subjects = ("abcd", "efgh") if folders[0] == folders[1] else ("abcd", "abcd")
    sites = [
        photographs(tmp_path / folder, site, subjects=codes)
        for folder, site, codes in zip(folders, ("north", "south"), subjects, strict=True)
    ]
    pooled = pool(sites)
    assert pooled.site == POOLED
    assert pooled.dataset == "set-north+set-south"
    for split in SPLITS:
        found = {
            case.subject: (case.label, case.group, (pooled.image_root / case.files()[0]).read_text())
            for case in pooled.cases(split)
        }
        assert found == {
            f"{site.site}.{case.subject}": (case.label, case.group, f"{site.site} {case.subject}")
            for site in sites
            for case in site.cases(split)
        }


def test_units_of_two_sites_stay_apart(tmp_path: Path) -> None:
    one, other = (photographs(tmp_path / site, site, unit="lesion-1") for site in ("north", "south"))
    assert {case.unit for case in pool([one, other]).training} == {"north.lesion-1", "south.lesion-1"}


def test_no_two_subjects_get_one_name(tmp_path: Path) -> None:
    sites = [
        photographs(tmp_path / site, site, subjects=["b", "b-b", "a-b", "-b"]) for site in ("a", "a-b", "a-b-a", "a-")
    ]
    pooled = pool(sites)
    assert len({case.subject for _, case in pooled.all_cases()}) == 16


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"classes": ("MEL", "NV")}, "same task and class list"),
        ({"task": "multiclass"}, "multiclass"),
        ({"site": "north"}, "twice"),
    ],
)
def test_sites_that_do_not_go_together_are_refused(tmp_path: Path, changes: dict[str, Any], hint: str) -> None:
    south = dataclasses.replace(photographs(tmp_path / "s", "south"), **changes)
    sites = [photographs(tmp_path / "n", "north"), south]
    with pytest.raises(DataError, match=hint):
        pool(sites)


def test_nothing_cannot_be_pooled() -> None:
    with pytest.raises(DataError, match="no site"):
        pool([])


def test_the_pool_is_written_once_and_anew_when_a_site_changes(tmp_path: Path) -> None:
    sites = [photographs(tmp_path / name, name) for name in ("north", "south")]
    files = [tmp_path / f"{site.site}.json" for site in sites]
    for file, site in zip(files, sites, strict=True):
        write_json(file, site.to_json())
    first = pooled_data(files, folder=tmp_path / "cache")
    written = first.stat().st_mtime_ns
    assert load_datalist(first) == pool(sites)
    assert pooled_data(files, folder=tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == written
    write_json(files[0], dataclasses.replace(sites[0], test=()).to_json())
    second = pooled_data(files, folder=tmp_path / "cache")
    assert second != first
    assert len(load_datalist(second).test) == len(load_datalist(first).test) - 1
