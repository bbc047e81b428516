"""Data sets are drawn and prepared from Python as by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def skin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done: list[tuple[int, int]] = []
    place = tmp_path_factory.mktemp("phantoms") / "skin"
    made = fl.phantom(
        "fed_isic2019", output=place, patients=40, vendors=["A", "C"], size=32, on_subject=lambda *n: done.append(n)
    )
    assert made == place and done == [(number, 40) for number in range(40)]
    return made


def test_prepared_sites_have_folders_cases_and_notes(skin: Path, tmp_path: Path) -> None:
    loaded: list[tuple[int, int]] = []
    options = {"task": "binary", "normal": "NV", "load_all": True, "on_image": lambda *n: loaded.append(n)}
    prepared = fl.prepare("fed_isic2019", source=skin, output=tmp_path / "prepared", **options)
    assert prepared.everything == tuple(prepared.folders) and len(prepared.folders) == 2
    rows = {(row[0], row[1]): row[2:] for row in prepared.table().rows}
    for site, folder in prepared.folders.items():
        listed = load_datalist(folder / "datalist.json")
        counts = [sum(listed.counts(split)) for split in ("training", "validation", "test")]
        assert rows[site, "all"] == [*counts, sum(counts)]
    assert loaded[-1] == (39, 40)
    assert "synthetic images" in prepared.origins[0]
    assert any("this copy lacks" in note for note in prepared.notes)
    with pytest.raises(DataError, match="overwrite"):
        fl.prepare("fed_isic2019", source=skin, output=tmp_path / "prepared", task="binary", normal="NV")


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        ("fed_isic2091", {}, "did you mean 'fed_isic2019'"),
        ("acdc", {"by": "hospital"}, "not by 'hospital'"),
        ("acdc", {"columns": {"label": "diagnosis"}}, "are of a csv"),
        ("csv", {"columns": {"lable": "diagnosis"}}, "did you mean 'label'"),
    ],
)
def test_what_cannot_be_prepared_is_said_before_anything_is_read(
    tmp_path: Path, dataset: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        fl.prepare(dataset, source=tmp_path / "nowhere", output=tmp_path / "prepared", **options)  # type: ignore[arg-type]


def test_an_unknown_layout_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'acdc'"):
        fl.phantom("adcd", output=tmp_path / "new")


def test_a_misspelt_orientation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'known' or 'placeholder'"):
        fl.phantom("mnms", output=tmp_path / "hearts", patients=1, orientation="placeholdr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": []}, "nothing to train on"),
        ({"mixed_precision": "fp16"}, "'off' or 'bf16'"),
        ({"output": "."}, "is a folder"),
    ],
)
def test_what_a_pretraining_would_find_out_too_late_is_refused_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fl.pretrain(**{"data": "prepared", "output": "backbone.safetensors", **settings})


def test_one_folder_need_not_be_in_a_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^nowhere holds no prepared site"):
        fl.pretrain("nowhere", output=tmp_path / "backbone.safetensors")
