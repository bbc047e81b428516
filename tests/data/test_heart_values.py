"""Sites of regression: numbers of a csv's columns, or measured in a data set's masks, on a scale that sites share."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import monai_fedlora as fl
from monai_fedlora.commands.options import parse_value
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.pool import pool
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.formats.nifti import open_volume
from monai_fedlora.measures.heart_function import heart_function

SCALE = {"ejection_fraction": (50.0, 15.0), "edv_ml": (150.0, 50.0)}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fl.phantom("acdc", output=tmp_path_factory.mktemp("hearts") / "acdc", patients=5)


def table(folder: Path, hearts: Path, cells: list[str], *, head: str = "ejection_fraction,edv_ml") -> Path:
    lines = [f"subject,ed_image,es_image,{head}"]
    patients = sorted(hearts.rglob("patient*/"))
    for patient, text in zip(patients, cells, strict=False):
        ed, es = sorted(file for file in patient.glob("*_frame*.nii.gz") if "_gt" not in file.name)
        lines.append(f"{patient.name},{ed},{es},{text}")
    (folder / "hearts.csv").write_text("\n".join(lines))
    return folder / "hearts.csv"


def prepared(source: Path, folder: Path, **more):
    options = {"values": SCALE, "site": "north", **more}
    return fl.prepare("csv", source=source, output=folder / "sites", task="regression", **options)


def test_numbers_of_a_csv_keep_their_names_and_units_and_need_no_label(hearts: Path, tmp_path: Path) -> None:
    source = table(tmp_path, hearts, ["58.3,120", "61,1.4e2", "35,210", "22.5,260.5"])
    (site,) = prepared(source, tmp_path).datalists
    assert load_datalist(tmp_path / "sites" / "north" / "datalist.json") == site
    assert (site.task, site.classes) == ("regression", ("ejection_fraction", "edv_ml"))
    assert site.scale == ((50.0, 15.0), (150.0, 50.0))
    found = {case.subject: case.values for _, case in site.all_cases()}
    assert found["patient001"] == (58.3, 120.0) and found["patient002"] == (61.0, 140.0)
    assert site.items("training")[0]["values"] == list(site.training[0].values or ())


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1e999", "58,3", "about 60", "0x10", "1_000"])
def test_a_cell_that_is_no_finite_number_is_named_with_file_and_row(hearts: Path, tmp_path: Path, cell: str) -> None:
    source = table(tmp_path, hearts, ["58", f'"{cell}"'], head="ejection_fraction")
    with pytest.raises(DataError, match=r"hearts\.csv:3: ejection_fraction (is empty|must be a finite number)"):
        prepared(source, tmp_path, values={"ejection_fraction": (50, 15)})
    assert not (tmp_path / "sites").exists()


def test_a_value_needs_a_scale_that_the_user_chooses(hearts: Path, tmp_path: Path) -> None:
    source = table(tmp_path, hearts, ["58", "62"], head="ejection_fraction")
    with pytest.raises(ConfigError, match=r"needs a scale.*ejection_fraction=50/15.*mean is 60 .*deviation 2"):
        prepared(source, tmp_path, values={"ejection_fraction": None})
    with pytest.raises(ConfigError, match="distance above 0"):
        prepared(source, tmp_path, values={"ejection_fraction": (50, 0)})
    with pytest.raises(ConfigError, match=r"no such number.*ejection_fraction"):
        prepared(source, tmp_path, values={"ejection_fraktion": (50, 15), "ejection_fraction": (50, 15)})
    with pytest.raises(ConfigError, match="drop --classes"):
        prepared(source, tmp_path, values={"ejection_fraction": (50, 15)}, classes=["a", "b"])


def test_sites_on_different_scales_cannot_be_together(hearts: Path, tmp_path: Path) -> None:
    source = table(tmp_path, hearts, ["58", "62"], head="ejection_fraction")
    (north,) = prepared(source, tmp_path, values={"ejection_fraction": (50, 15)}).datalists
    with pytest.raises(DataError, match="must share the scale"):
        prepared(source, tmp_path, values={"ejection_fraction": (55, 15)}, site="south", dataset_name="other")
    (south,) = prepared(source, tmp_path / "elsewhere", values={"ejection_fraction": (55, 15)}, site="south").datalists
    with pytest.raises(DataError, match="cannot be pooled"):
        pool([north, south])
    assert pool([north]).scale == north.scale


def test_what_masks_tell_is_measured_in_them(hearts: Path, tmp_path: Path) -> None:
    found = fl.prepare(
        "acdc", source=hearts, output=tmp_path / "sites", site="north", task="regression", values={"rv_edv": None}
    )
    (site,) = found.datalists
    for _, case in site.all_cases():
        masks = sorted((site.image_root / str(case.ed)).parent.glob("*_gt.nii.gz"))
        volumes = [open_volume(path, axes=3) for path in masks]
        ours = np.array([0, 3, 2, 1])[np.stack([np.asarray(volume.proxy) for volume in volumes]).astype(int)]
        truth = heart_function(ours, spacing=volumes[0].header.spacing)
        assert truth.rv_edv is not None and case.values == pytest.approx((truth.rv_edv,))
    assert site.scale == ((150.0, 50.0),)


def test_numbers_that_masks_do_not_outline_are_refused_with_the_file(hearts: Path, tmp_path: Path) -> None:
    patient = sorted(hearts.rglob("patient*/"))[0]
    masks = []
    for path in sorted(patient.glob("*_gt.nii.gz")):
        image = nibabel.load(path)
        cavity = (np.asarray(image.dataobj) == 3).astype(np.uint8)
        masks.append(tmp_path / f"lv_{path.name}")
        nibabel.save(nibabel.Nifti1Image(cavity, image.affine, image.header), masks[-1])
    source = table(tmp_path, hearts, [",".join(map(str, masks))], head="ed_mask,es_mask")
    with pytest.raises(DataError, match=r"lv_.*_gt\.nii\.gz: rv_ef cannot be measured in masks of LV"):
        prepared(source, tmp_path, values={"rv_ef": None}, mask_values={"LV": 1})
    (site,) = prepared(source, tmp_path, values=None, mask_values={"LV": 1}).datalists
    assert site.classes == ("lv_ef", "lv_edv") and site.scale == ((55.0, 15.0), (150.0, 50.0))


def test_a_datalist_whose_values_do_not_fit_is_refused(hearts: Path, tmp_path: Path) -> None:
    prepared(table(tmp_path, hearts, ["58,120", "61,140"]), tmp_path)
    path = tmp_path / "sites" / "north" / "datalist.json"
    good = json.loads(path.read_text())
    for change, problem in (
        ({"scale": [[50, 15]]}, "1 scales for 2 values"),
        ({"scale": [[50, 15], [150, "50"]]}, "pairs of numbers"),
        ({"training": [{**good["training"][0], "values": [58]}]}, "has 1 values"),
        ({"training": [{**good["training"][0], "values": [58, None]}]}, "must be numbers"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=problem):
            load_datalist(path)


@pytest.mark.slow
def test_a_phantom_site_knows_its_ejection_fractions() -> None:
    site = load_datalist(
        site_data("site-1", settings=PhantomSettings(training=3, validation=1, test=1, task="regression"))
    )
    assert site.classes == ("lv_ef", "lv_edv") and site.scale[0] == (55.0, 15.0)
    for _, case in site.all_cases():
        ejection, volume = case.values or ()
        assert (ejection > 50) == (case.group in ("NOR", "HCM", "RV")) and 50 < volume < 400


def test_the_option_has_a_name_and_a_scale() -> None:
    assert parse_value("lv_ef") == ("lv_ef", None) and parse_value("ef=50/15") == ("ef", (50.0, 15.0))
    with pytest.raises(Exception, match="two numbers"):
        parse_value("ef=50")
