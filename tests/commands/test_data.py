"""``monai-fedlora data`` prepares sites that load, adds to a folder, and leaves nothing after an error."""

from __future__ import annotations

import argparse
import csv
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_fedlora.commands import data
from monai_fedlora.data.datalist import load_datalist, read_prepared
from monai_fedlora.errors import DataError

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    data.add_parser(subparsers).set_defaults(run=data.run)
    args = parser.parse_args(["data", *map(str, words)])
    code: int = args.run(args)
    return code


def image(path: Path, *, spacing: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(voxels, np.diag([spacing, spacing, 10, 1])).to_bytes(), 1))


@pytest.fixture
def acdc(tmp_path: Path) -> Path:
    """Twenty patients, four of each group, in two spacings; the last of each group in the testing folder."""
    root = tmp_path / "acdc"
    for number in range(20):
        name = f"patient{number + 1:03d}"
        folder = root / ("testing" if number >= 15 else "training") / name
        for frame in ("01", "12"):
            image(folder / f"{name}_frame{frame}.nii.gz", spacing=1.25 if number < 10 else 1.5)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 12\nGroup: {GROUPS[number % 5]}\n")
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight patients of one site, without RV."""
    path = tmp_path / "hospital" / "patients.csv"
    for phase in ("ed", "es"):
        image(path.parent / f"{phase}.nii.gz")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject", "where", "label", "ed_image", "es_image"])
        for number in range(8):
            writer.writerow([f"s{number}", "GE", GROUPS[number % 4], "ed.nii.gz", "es.nii.gz"])
    return path


def test_two_datasets_prepared_into_one_folder_agree(tmp_path, acdc, table, capsys):
    output = tmp_path / "out"
    assert run("acdc", "--source", acdc, "--output", output, "--site", "siemens") == 0
    assert run("csv", "--source", table, "--output", output, "--site-column", "where") == 0
    ge, siemens = read_prepared(output)
    assert (ge.site, siemens.site) == ("ge", "siemens")
    assert (ge.dataset, siemens.dataset) == ("patients", "acdc")
    assert ge.classes == siemens.classes == ("NOR", "ABN")
    assert load_datalist(output / "siemens" / "datalist.json") == siemens
    printed = capsys.readouterr().out
    assert "now has ge, siemens" in printed
    assert "counted as ABN: 2 DCM, 2 HCM, 2 MINF" in printed
    assert f"--data {output}" in printed


def test_the_multiclass_task_needs_the_class_list_where_a_class_is_missing(tmp_path, acdc, table, capsys):
    output = tmp_path / "out"
    words = ("csv", "--source", table, "--output", output, "--site-column", "where", "--task", "multiclass")
    run("acdc", "--source", acdc, "--output", output, "--task", "multiclass")
    with pytest.raises(DataError, match=r"siemens has .*'RV'.*ge has"):
        run(*words)
    run(*words, "--classes", "NOR,MINF,DCM,HCM,RV")
    assert "site ge has no case of class RV" in capsys.readouterr().out
    assert [datalist.classes for datalist in read_prepared(output)] == [GROUPS, GROUPS]


def test_spacing_makes_protocol_sites(tmp_path, acdc, capsys):
    run("acdc", "--source", acdc, "--output", tmp_path / "out", "--by", "spacing", "--sites", 2)
    assert [datalist.site for datalist in read_prepared(tmp_path / "out")] == ["protocol-1", "protocol-2"]
    assert "protocol-2 has in-plane spacing 1.500 to 1.500 mm" in capsys.readouterr().out


def test_the_table_shows_every_count(tmp_path, acdc, capsys):
    run("acdc", "--source", acdc, "--output", tmp_path / "out", "--published-split")
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [
        ["siemens", "NOR", "2", "1", "1", "4"],
        ["", "ABN", "10", "2", "4", "16"],
        ["", "all", "12", "3", "5", "20"],
    ]


@pytest.mark.parametrize("spoil", ["truncate", "blank"])
def test_a_spoilt_image_is_found_before_anything_is_written(tmp_path, acdc, spoil):
    bad = acdc / "training" / "patient003" / "patient003_frame12.nii.gz"
    if spoil == "truncate":
        bad.write_bytes(bad.read_bytes()[:-10])
    else:
        bad.write_bytes(gzip.compress(nibabel.Nifti1Image(np.ones((4, 4, 3)), np.diag([1.25, 1.25, 10, 1])).to_bytes()))
        run("acdc", "--source", acdc, "--output", tmp_path / "quick")
    with pytest.raises(DataError, match=r"patient003_frame12\.nii\.gz"):
        run("acdc", "--source", acdc, "--output", tmp_path / "out", "--check", "full")
    assert not (tmp_path / "out").exists()


def test_a_moved_dataset_can_be_prepared_again(tmp_path, acdc):
    run("acdc", "--source", acdc, "--output", tmp_path / "out")
    moved = acdc.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="exists already"):
        run("acdc", "--source", moved, "--output", tmp_path / "out")
    run("acdc", "--source", moved, "--output", tmp_path / "out", "--overwrite")
    assert load_datalist(tmp_path / "out" / "siemens" / "datalist.json").image_root == moved


def test_a_made_up_dataset_is_prepared_like_a_real_one(tmp_path):
    made = tmp_path / "made"
    run("phantom", "--output", made, "--layout", "mnms", "--patients", 4, "--vendors", "B,D", "--frames", 2)
    run("mnms", "--source", made, "--output", tmp_path / "out", "--classes", "NOR,ABN", "--check", "full")
    prepared = read_prepared(tmp_path / "out")
    assert [datalist.site for datalist in prepared] == ["canon", "philips"]
    assert [len(list(datalist.all_cases())) for datalist in prepared] == [2, 2]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("acdc",),
        ("acdc", "--source", "a", "--output", "b", "--by", "vendor", "--site", "x"),
        ("acdc", "--source", "a", "--output", "b", "--fractions", "a,b"),
        ("mnms2", "--source", "a", "--output", "b", "--by", "centre"),
    ],
)
def test_a_wrong_command_line_stops_with_usage(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_real_acdc_and_sunnybrook_become_two_sites(tmp_path, task):
    real = Path(os.environ["MONAI_FEDLORA_REAL_DATA"])
    output = tmp_path / "out"
    run("acdc", "--source", real / "acdc", "--output", output, "--site", "siemens", "--task", task)
    words = ["--label-column", "acdc_class", "--site-column", "vendor", "--task", task]
    words += ["--classes", ",".join(GROUPS)] if task == "multiclass" else []
    run("csv", "--source", real / "sunnybrook" / "patients.csv", "--output", output, *words)
    ge, siemens = read_prepared(output)
    assert sum(1 for _ in ge.all_cases()) == 37
    assert sum(1 for _ in siemens.all_cases()) >= 80
    assert all(Path(str(item["ed"])).is_file() for item in ge.items("training"))


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
@pytest.mark.parametrize("sites", [3, 4])
def test_real_acdc_becomes_protocol_sites(tmp_path, sites):
    real = Path(os.environ["MONAI_FEDLORA_REAL_DATA"])
    run("acdc", "--source", real / "acdc", "--output", tmp_path, "--by", "spacing", "--sites", sites)
    prepared = read_prepared(tmp_path)
    assert len(prepared) == sites
    assert all(min(datalist.counts("training")) > 0 for datalist in prepared)
