"""FLamby's layout of Fed-ISIC2019, its variants and its accidents."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.data.readers.fed_isic2019 import CENTRES, GROUPS, read_fed_isic2019
from monai_fedlora.errors import DataError

FOLDER = "ISIC_2019_Training_Input_preprocessed"
HEADER = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK,target,center,fold,fold2"


def line(image: str, target: int, centre: int = 0, fold: str = "train", *, number: str = "{:.1f}") -> str:
    marks = [number.format(float(place == target)) for place in range(9)]
    return ",".join([image, *marks, str(target), str(centre), fold, f"{fold}_{centre}"])


LINES = [
    line("ISIC_2", 0, 1),
    line("ISIC_1", 7, 0, "test"),
    line("ISIC_3_downsampled", 4, 4),
    line("ISIC_4", 1, 5),
]


@pytest.fixture
def root(tmp_path, photograph) -> Path:
    for name in ("ISIC_1", "ISIC_2", "ISIC_3_downsampled", "ISIC_4"):
        photograph(tmp_path / FOLDER / f"{name}.jpg")
    write(tmp_path, LINES)
    return tmp_path


def write(root: Path, lines: list[str], *, header: str = HEADER, name: str = "train_test_split") -> None:
    (root / name).write_text("\n".join([header, *lines]) + "\n")


def found(root: Path) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(r.subject, r.group, r.centre, r.split) for r in read_fed_isic2019(root)]


EXPECTED = [
    ("ISIC_1", "SCC", "0", "test"),
    ("ISIC_2", "MEL", "1", "training"),
    ("ISIC_3_downsampled", "BKL", "4", "training"),
    ("ISIC_4", "NV", "5", "training"),
]


def test_images_have_flambys_class_centre_and_fold(root):
    assert found(root) == EXPECTED
    record = read_fed_isic2019(root)[0]
    assert record.images.file == root / FOLDER / "ISIC_1.jpg"
    assert record.origin == f"{root / 'train_test_split'}:3"
    assert record.spacing is record.vendor is record.unit is None


def test_the_targets_are_numbered_as_the_class_columns_are():
    assert HEADER.split(",")[1:9] == list(GROUPS)
    assert tuple(str(number) for number in range(6)) == CENTRES


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(".0", ""),
        lambda text: text.replace("train,", "Train,"),
        lambda text: "\n".join(f"{number},{row}" for number, row in enumerate(text.splitlines())),
        lambda text: "\n".join(
            ",".join((row.split(",") * 2)[10:15]) for row in text.replace("fold2", "x").splitlines()
        ),
    ],
    ids=["tabs", "bom", "crlf", "integers", "capitals", "index column", "without class columns"],
)
def test_editions_of_the_split_file_read_alike(root, change):
    path = root / "train_test_split"
    path.write_bytes(change(path.read_text()).encode())
    assert found(root) == EXPECTED


@pytest.mark.parametrize("name", ["train_test_split.csv", "train_test_split.tsv", "train_test_split.txt"])
def test_the_split_file_may_have_a_suffix(root, name):
    (root / "train_test_split").rename(root / name)
    assert found(root) == EXPECTED


def test_float_targets_and_centres_are_whole_numbers(root):
    write(root, ["ISIC_1,7.0,0.0,test", "ISIC_2,0.0,1.0,train"], header="image,target,center,fold")
    assert found(root) == EXPECTED[:2]


def test_raw_images_are_read_where_there_are_no_preprocessed_ones(root):
    (root / FOLDER).rename(root / "ISIC_2019_Training_Input")
    assert found(root) == EXPECTED


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png"])
def test_images_may_have_another_suffix(root, photograph, suffix):
    (root / FOLDER / "ISIC_1.jpg").unlink()
    photograph(root / FOLDER / f"ISIC_1{suffix}")
    assert read_fed_isic2019(root)[0].images.file.name == f"ISIC_1{suffix}"
    (root / "train_test_split").write_text((root / "train_test_split").read_text().replace("ISIC_1,", "ISIC_1.jpg,"))
    assert found(root) == EXPECTED


def lesions(root: Path) -> list[str | None]:
    return [record.unit for record in read_fed_isic2019(root)]


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab"])
def test_lesions_come_from_ham10000(root, name):
    text = "lesion_id,image_id,dx\nHAM_1,ISIC_2,mel\nHAM_1,ISIC_4,nv\nHAM_9,ISIC_9,nv\n"
    (root / name).write_text(text.replace(",", "\t") if name.endswith("tab") else text)
    assert lesions(root) == [None, "HAM_1", None, "HAM_1"]


def test_lesions_of_all_sources_come_from_isic_2019_first(root):
    (root / "HAM10000_metadata.csv").write_text("image_id,lesion_id\nISIC_2,HAM_1\nISIC_4,HAM_2\n")
    (root / "ISIC_2019_Training_Metadata.csv").write_text(
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_1,,,BCN_1,\nISIC_2,,,HAM_3,\nISIC_3_downsampled,,,,\n"
    )
    assert lesions(root) == ["BCN_1", "HAM_3", None, "HAM_2"]


def test_a_metadata_file_without_lesions_is_named(root):
    (root / "HAM10000_metadata.csv").write_text("image_id,dx\nISIC_2,mel\n")
    with pytest.raises(DataError, match=r"HAM10000_metadata\.csv:1: column lesion_id is missing"):
        read_fed_isic2019(root)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (line("ISIC_2", 8, 1), ":2: target 8 is not one of 0 to 7"),
        (line("ISIC_2", 0, 6), ":2: center 6 is not one of 0 to 5"),
        (line("ISIC_2", 0, 1, "val"), ":2: fold 'val' is unknown"),
        (line("ISIC_2", 0, 1, ""), ":2: fold is empty"),
        (line("ISIC_2", 0).replace(",0,0,train", ",-1,0,train"), ":2: target must be a whole number"),
        (line("ISIC_2", 0).replace(",0,0,train", ",,0,train"), ":2: target is empty"),
        (line("ISIC_2", 0).replace(",0,0,train", ",1,0,train"), ":2: target 1 is NV, but the class columns say MEL"),
        (line("ISIC_2", 0).replace("1.0", "0.0"), ":2: target 0 is MEL, but the class columns say nothing"),
        (line("ISIC_2", 0).replace("0.0", "1.0", 1), "the class columns say MEL and NV"),
        (line("ISIC_2", 8).replace(",8,0", ",0,0"), "the class columns say UNK"),
        (line("ISIC_2", 0).replace("1.0", "yes"), ":2: MEL must be a whole number"),
        (line("", 0), ":2: image is empty"),
        (line("ISIC_9", 0), r":2: .*ISIC_9 does not exist .*1 of 4 listed"),
        (line("../ISIC_2", 0), r":2: .* does not exist"),
        (line("ISIC_1", 7), "subject ISIC_1 occurs twice: .*:2 and .*:3; every photograph needs a code of its own"),
    ],
)
def test_a_wrong_line_is_named(root, wrong, message):
    write(root, [wrong, *LINES[1:]])
    with pytest.raises(DataError, match=message):
        read_fed_isic2019(root)


def test_one_image_under_two_names_is_refused(root):
    write(root, [line("ISIC_1", 7), line("ISIC_1.jpg", 7)])
    with pytest.raises(DataError, match="ISIC_1 occurs twice"):
        read_fed_isic2019(root)


def test_a_corrupt_image_is_named(root):
    path = root / FOLDER / "ISIC_4.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"ISIC_4\.jpg is truncated or damaged"):
        read_fed_isic2019(root)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"ISIC_4\.jpg is not a JPEG"):
        read_fed_isic2019(root)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no file train_test_split"):
        read_fed_isic2019(tmp_path)
    write(tmp_path, LINES)
    with pytest.raises(DataError, match=f"has no folder {FOLDER}"):
        read_fed_isic2019(tmp_path)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.integers(0, 4), column=st.integers(0, 13), cell=st.text(max_size=6))
def test_any_garbled_cell_gives_a_data_error_or_existing_images_of_known_classes(root, row, column, cell):
    rows = [text.split(",") for text in (HEADER, *LINES)]
    rows[row][column] = cell
    write(root, [",".join(cells) for cells in rows[1:]], header=",".join(rows[0]))
    try:
        records = read_fed_isic2019(root)
    except DataError as error:
        assert str(root) in str(error)
        return
    assert {record.group for record in records} <= set(GROUPS)
    assert {record.centre for record in records} <= set(CENTRES)
    assert all(record.images.file.parent == root / FOLDER for record in records)


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
def test_the_real_training_fold_is_read_completely():
    records = read_fed_isic2019(Path(os.environ["MONAI_FEDLORA_REAL_DATA"]) / "fed_isic2019")
    assert Counter(record.centre for record in records) == {"1": 3163, "2": 2691, "3": 1807, "5": 351}
    assert {record.group for record in records} == set(GROUPS)
    assert {record.split for record in records} == {"training"}
    assert len({record.unit for record in records}) == 6304
