"""``monai-fedlora data`` prepares sites that load, adds to a folder, and leaves nothing after an error."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_fedlora.commands import data
from monai_fedlora.commands.parser import Parser
from monai_fedlora.data.datalist import load_datalist, read_prepared
from monai_fedlora.errors import ConfigError, DataError
from tests.plugin_packages import Install

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")


def run(*words: object) -> int:
    parser = Parser()
    subparsers = parser.add_subparsers()
    data.add_parser(subparsers).set_defaults(run=data.run)
    args = parser.parse_args(["data", *map(str, words)])
    code: int = args.run(args)
    return code


def image(path: Path, *, spacing: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made = nibabel.Nifti1Image(voxels, np.diag([spacing, spacing, 10, 1]))
    made.header["descrip"] = b"%08x" % crc32(str(path).encode())  # no two files are equal
    path.write_bytes(gzip.compress(made.to_bytes(), 1))


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
    for number in range(8):
        for phase in ("ed", "es"):
            image(path.parent / f"{phase}{number}.nii.gz")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject", "where", "label", "ed_image", "es_image"])
        for number in range(8):
            writer.writerow([f"s{number}", "GE", GROUPS[number % 4], f"ed{number}.nii.gz", f"es{number}.nii.gz"])
    return path


def photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng([seed, crc32(str(path).encode())]).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path, quality=30)


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    """Two photographs of each of 24 lesions, of three classes at two centres; six photographs are the test fold."""
    root = tmp_path / "isic"
    lines, lesions = ["image,target,center,fold"], ["lesion_id,image_id"]
    for number in range(48):
        photograph(root / "ISIC_2019_Training_Input_preprocessed" / f"ISIC_{number:04d}.jpg", number)
        fold = "test" if number % 8 == 7 else "train"
        lines.append(f"ISIC_{number:04d},{(0, 1, 4)[number // 2 % 3]},{number // 24},{fold}")
        lesions.append(f"HAM_{number // 2},ISIC_{number:04d}")
    (root / "train_test_split").write_text("\n".join(lines))
    (root / "HAM10000_metadata.csv").write_text("\n".join(lesions))
    return root


@pytest.fixture
def gdrbench(tmp_path: Path) -> Path:
    """Twenty fundus photographs of APTOS and ten of IDRID."""
    root = tmp_path / "gdrbench"
    folders = ("nodr", "mild_npdr", "moderate_npdr", "severe_npdr", "pdr")
    (root / "splits").mkdir(parents=True)
    for domain, count in (("APTOS", 4), ("IDRID", 2)):
        stems = [f"{domain}/{folder}/{number}.png" for folder in folders for number in range(count)]
        names = [f"{stem} {place // count}" for place, stem in enumerate(stems)]
        for number, name in enumerate(names):
            photograph(root / "images" / name.split(" ")[0], number)
        for place, split in enumerate(("train", "crossval")):
            chosen = [name for name in names if name.split("/")[2].startswith("0.") == bool(place)]
            (root / "splits" / f"{domain}_{split}.txt").write_text("\n".join(chosen))
    return root


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


def test_columns_are_taken_along_as_subgroups(tmp_path, table, capsys):
    output = tmp_path / "out"
    words = ("csv", "--source", table, "--output", output, "--site", "ward")
    with pytest.raises(ConfigError, match=r"subgroup 'wher': the source has no such column; did you mean 'where'"):
        run(*words, "--subgroup", "wher")
    assert not output.exists()
    with pytest.raises(SystemExit):
        run(*words, "--subgroup", "age=forty")
    assert "is not a column, or one with numbers like age=40,60" in capsys.readouterr().err
    assert run(*words, "--subgroup", "where", "--subgroup", "label") == 0
    (ward,) = read_prepared(output)
    assert {case.subgroups for _, case in ward.all_cases()} == {
        (("label", group.casefold()), ("where", "ge")) for group in GROUPS[:4]
    }
    assert "note: subgroup where: 8 ge" in capsys.readouterr().out


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
    assert [line.split() for line in lines if line.split()[:1] == ["siemens"]] == [
        ["siemens", "NOR", "2", "1", "1", "4"],
        ["siemens", "ABN", "10", "2", "4", "16"],
        ["siemens", "all", "12", "3", "5", "20"],
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


@pytest.mark.slow
def test_a_made_up_dataset_is_prepared_like_a_real_one(tmp_path):
    made = tmp_path / "made"
    run("phantom", "--output", made, "--layout", "mnms", "--patients", 4, "--vendors", "B,D", "--frames", 2)
    run("mnms", "--source", made, "--output", tmp_path / "out", "--classes", "NOR,ABN", "--check", "full")
    prepared = read_prepared(tmp_path / "out")
    assert [datalist.site for datalist in prepared] == ["canon", "philips"]
    assert [len(list(datalist.all_cases())) for datalist in prepared] == [2, 2]


CLASSES = ("--classes", "MEL,NV,BKL")


def test_fed_isic2019_keeps_its_test_fold_and_no_lesion_of_it_trains(tmp_path, isic, capsys):
    run("fed_isic2019", "--source", isic, "--output", tmp_path / "out", *CLASSES)
    prepared = read_prepared(tmp_path / "out")
    assert [(datalist.site, datalist.task, datalist.classes) for datalist in prepared] == [
        ("centre-0", "multiclass", ("MEL", "NV", "BKL")),
        ("centre-1", "multiclass", ("MEL", "NV", "BKL")),
    ]
    test = {case.subject: case.unit for datalist in prepared for case in datalist.test}
    assert sorted(test) == [f"ISIC_{number:04d}" for number in range(7, 48, 8)]
    others = [case for datalist in prepared for case in (*datalist.training, *datalist.validation)]
    assert len(others) == 36 and not {case.unit for case in others} & set(test.values())
    printed = capsys.readouterr().out
    assert "published test or validation split: 6 of 48" in printed
    assert "fed_isic2019 has the centres 0, 1, 2, 3, 4, 5; this copy lacks 2, 3, 4, 5" in printed


def test_fed_isic2019_can_be_drawn_anew_limited_and_made_binary(tmp_path, isic, capsys):
    words = ("--source", isic, "--no-published-split", "--limit", 12, "--seed", 5, "--site", "all", "--check", "full")
    run("fed_isic2019", *words, "--output", tmp_path / "out", "--task", "binary")
    (datalist,) = read_prepared(tmp_path / "out")
    assert [sum(datalist.counts(split)) for split in ("training", "validation", "test")] == [6, 2, 4]
    assert sum(case.label == 0 for _, case in datalist.all_cases()) == 4
    assert all(case.label == int(case.group != "NV") for _, case in datalist.all_cases())
    assert "site all: 12 of 48, a subset of seed 5" in capsys.readouterr().out
    run("fed_isic2019", *words, "--output", tmp_path / "mel", "--task", "binary", "--normal", "MEL")
    (datalist,) = read_prepared(tmp_path / "mel")
    assert all(case.label == int(case.group != "MEL") for _, case in datalist.all_cases())


def test_a_class_that_no_centre_has_is_named(tmp_path, isic):
    with pytest.raises(DataError, match="no site has a training case of BCC"):
        run("fed_isic2019", "--source", isic, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_feddrg_takes_crossval_for_validation_and_draws_a_test_split(tmp_path, gdrbench, capsys):
    run("feddrg", "--source", gdrbench, "--output", tmp_path / "out", "--check", "full")
    aptos, idrid = read_prepared(tmp_path / "out")
    assert (aptos.site, idrid.site) == ("aptos", "idrid")
    assert aptos.classes == ("nodr", "mild_npdr", "moderate_npdr", "severe_npdr", "pdr")
    assert aptos.counts("training") == (2,) * 5
    assert aptos.counts("validation") == aptos.counts("test") == (1,) * 5
    assert {Path(str(item["image"])).stem for item in aptos.items("validation")} == {"0"}
    printed = capsys.readouterr().out
    assert "feddrg has no published test split here" in printed
    assert "30 of 30 images have no known patient or lesion" in printed
    assert "this copy lacks DEEPDR, FGADR, MESSIDOR, RLDR" in printed


def test_a_csv_of_photographs_is_multiclass_unless_told_otherwise(tmp_path):
    path = tmp_path / "clinic" / "eyes.csv"
    lines = ["file,grade,patient"]
    for number in range(16):
        photograph(path.parent / f"{number}.png", number)
        lines.append(f"{number}.png,{number // 2 % 2}.0,P{number // 4}")
    path.write_text("\n".join(lines))
    words = ["csv", "--source", path, "--site", "clinic", "--label-column", "grade", "--image-column", "file"]
    run(*words, "--unit-column", "patient", "--output", tmp_path / "out")
    (datalist,) = read_prepared(tmp_path / "out")
    assert (datalist.task, datalist.classes, datalist.dataset) == ("multiclass", ("0", "1"), "eyes")
    for patient in range(4):
        units = [split for split, case in datalist.all_cases() if case.unit == f"P{patient}"]
        assert len(units) == 4 and len(set(units)) == 1
    run(*words, "--task", "binary", "--normal", "0", "--output", tmp_path / "binary")
    assert read_prepared(tmp_path / "binary")[0].classes == ("NOR", "ABN")


def test_a_photograph_spoilt_inside_is_found_by_the_full_check_before_anything_is_written(tmp_path, isic):
    bad = isic / "ISIC_2019_Training_Input_preprocessed" / "ISIC_0003.jpg"
    Image.new("RGB", (40, 32), (9, 9, 9)).save(bad)
    run("fed_isic2019", "--source", isic, "--output", tmp_path / "quick", *CLASSES)
    with pytest.raises(DataError, match=r"ISIC_0003\.jpg is blank"):
        run("fed_isic2019", "--source", isic, "--output", tmp_path / "out", "--check", "full", *CLASSES)
    bad.write_bytes(bad.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"ISIC_0003\.jpg is truncated"):
        run("fed_isic2019", "--source", isic, "--output", tmp_path / "out", *CLASSES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("acdc",),
        ("acdc", "--source", "a", "--output", "b", "--by", "vendor", "--site", "x"),
        ("acdc", "--source", "a", "--output", "b", "--fractions", "a,b"),
        ("mnms2", "--source", "a", "--output", "b", "--by", "centre"),
        ("feddrg", "--source", "a", "--output", "b", "--by", "spacing"),
        ("acdc", "--source", "a", "--output", "b", "--no-published-split"),
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


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
def test_real_fed_isic2019_becomes_four_sites_without_a_lesion_in_two_splits(tmp_path):
    source = Path(os.environ["MONAI_FEDLORA_REAL_DATA"]) / "fed_isic2019"
    run("fed_isic2019", "--source", source, "--output", tmp_path)
    prepared = read_prepared(tmp_path)
    assert {d.site: sum(1 for _ in d.all_cases()) for d in prepared} == {
        "centre-1": 3163,
        "centre-2": 2691,
        "centre-3": 1807,
        "centre-5": 351,
    }
    splits: dict[str | None, set[str]] = {}
    for datalist in prepared:
        assert sum(datalist.counts("test")) >= 0.2 * sum(1 for _ in datalist.all_cases())
        for split, case in datalist.all_cases():
            splits.setdefault(case.unit, set()).add(split)
    assert len(splits) == 6304
    assert all(len(names) == 1 for names in splits.values())


READER = """
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Photograph, Record

def read(source):
    return [
        Record(subject=f"p{n}", origin="here", images=Photograph(path), group="ab"[n % 2], centre="xy"[n // 8])
        for n, path in enumerate(sorted(source.glob("*.png")))
    ]

READER = Reader(read=read, text="a set of photographs", by=("centre",), source="somebody", photographs=True)
"""


def test_a_reader_of_another_package_prepares_its_data_set(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    entries = {
        "readers:eyes": "eyes_reader:READER",
        "readers:odd": "eyes_reader:read",
        "readers:csv": "eyes_reader:read",
    }
    install("eyes", entries, {"eyes_reader": READER})
    for number in range(16):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    assert run("eyes", "--source", tmp_path, "--output", tmp_path / "out") == 0
    prepared = read_prepared(tmp_path / "out")
    assert [(one.site, one.classes, one.dataset) for one in prepared] == [(s, ("a", "b"), "eyes") for s in "xy"]
    assert prepared[0].origin.source == "somebody"
    for name, why in (("odd", "which is no monai_fedlora.data.published_set.Reader"), ("csv", "eyes 1.0")):
        with pytest.raises(SystemExit):
            run(name, "--source", tmp_path, "--output", tmp_path / "other")
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--help")
    assert "added by eyes" in capsys.readouterr().out


def test_help_needs_nothing_that_reads_images() -> None:
    heavy = "torch", "monai", "scipy", "nibabel"
    program = "import sys\nfrom monai_fedlora import cli\n"
    program += "try:\n    cli.main(['data', 'acdc', '--help'])\nexcept SystemExit:\n"
    program += f"    print('loaded:', *[name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.splitlines()[-1].split() == ["loaded:"]
