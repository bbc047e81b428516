"""Data sets are drawn and prepared from Python as by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose
from PIL import Image

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.transforms.photograph import photograph_preprocessing


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


def test_phantoms_of_skin_give_masks_of_lesions_that_are_read_beside_their_images(tmp_path: Path) -> None:
    skin = fl.phantom("fed_isic2019", output=tmp_path / "skin", patients=8, vendors="A", size=40)
    prepared = fl.prepare(
        "fed_isic2019", source=skin, output=tmp_path / "out", task="segmentation", site="north", load_all=True
    )
    datalist = prepared.datalists[0]
    assert datalist.classes == ("lesion",) and datalist.origin.kind == "synthetic"
    item = datalist.items("training")[0]
    read = photograph_preprocessing(style="dermoscopy", image_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    found = Compose(read)(item)
    assert found["image"].shape == (3, 32, 32) and found["mask"].shape == (1, 32, 32) and found["mask"].any()


def test_a_csv_names_masks_of_photographs_and_needs_no_label_for_them(tmp_path: Path) -> None:
    levels = np.arange(48 * 60, dtype=np.uint16).reshape(48, 60)
    lines = ["image,mask,unit"]
    for number in range(8):
        Image.fromarray((levels // 16).astype(np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(np.where(levels > 900, 255, 0).astype(np.uint8)).save(tmp_path / f"{number}_m.png")
        lines.append(f"{number}.png,{'' if number == 7 else f'{number}_m.png'},u{number // 2}")
    table = tmp_path / "skin.csv"
    table.write_text("\n".join(lines) + "\n")
    asked: dict[str, Any] = {"source": table, "site": "a", "task": "segmentation"}

    with pytest.raises(DataError, match="column label"):
        fl.prepare("csv", **asked, output=tmp_path / "none")
    prepared = fl.prepare(
        "csv", **asked, output=tmp_path / "out", mask_values={"naevus": 7, "lesion": 255}, load_all=True
    )

    cases = [case for _, case in prepared.datalists[0].all_cases()]
    assert len(cases) == 7 and "left out, having no masks: 1 of 8" in prepared.notes
    assert prepared.datalists[0].classes == ("naevus", "lesion")
    assert {case.mask for case in cases} == {f"{number}_m.png" for number in range(7)}
    Image.fromarray(levels.astype(np.uint8)).save(tmp_path / "3_m.png")
    with pytest.raises(DataError, match=r"3_m\.png holds the value 1, 2, 3, 4, and its structures are 255 on 0"):
        fl.prepare("csv", **asked, output=tmp_path / "bad", mask_values={"lesion": 255}, load_all=True)


def test_isic_is_prepared_for_segmentation_and_keeps_its_splits(tmp_path: Path) -> None:
    levels = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
    for number in range(9):
        folder = (
            tmp_path / "isic" / ("ISIC2018_Task1-2_Test_Input" if number > 6 else "ISIC2018_Task1-2_Training_Input")
        )
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((levels // (8 + number)).astype(np.uint8)).save(folder / f"ISIC_{number}.png")
        mask = Image.fromarray(np.where(levels > 700, 255, 0).astype(np.uint8))
        mask.save(folder / f"ISIC_{number}_segmentation.png")
    prepared = fl.prepare("isic", source=tmp_path / "isic", output=tmp_path / "out", load_all=True)
    (site,) = prepared.datalists
    assert (site.site, site.task, site.classes) == ("isic", "segmentation", ("lesion",))
    assert {case.subject for case in site.test} == {"ISIC_7", "ISIC_8"} and len(site.training) > len(site.validation)
    with pytest.raises(DataError, match=r"there is no diagnosis for subject ISIC_0; .*--task segmentation"):
        fl.prepare("isic", source=tmp_path / "isic", output=tmp_path / "no", task="multiclass", classes=["MEL", "NV"])
