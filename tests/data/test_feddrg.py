"""GDRBench's layout: one list per domain and split, paths with the class folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.data.readers.feddrg import CENTRES, GROUPS, read_feddrg
from monai_fedlora.errors import DataError

LISTS = {
    "APTOS_train": ["APTOS/moderate_npdr/000c.png 2", "APTOS/nodr/002c.png 0"],
    "APTOS_crossval": ["APTOS/pdr/0016.png 4"],
    "DEEPDR_train": ["DEEPDR/nodr/1_l1.jpg 0", "DEEPDR/nodr/1_r2.jpg 0", "DEEPDR/mild_npdr/12_l1.jpg 1"],
    "DEEPDR_crossval": ["DEEPDR/severe_npdr/3_l2.jpg 3"],
    "IDRID_train": ["IDRID/severe_npdr/IDRiD_001.jpg 3"],
    "IDRID_crossval": ["IDRID/pdr/IDRiD_001.jpg 4"],
    "RLDR_train": ["RLDR/moderate_npdr/7384_right.jpg 2"],
    "RLDR_crossval": ["RLDR/mild_npdr/7384_left.jpg 1"],
}


def write(root: Path, **changed: list[str]) -> None:
    (root / "splits").mkdir(exist_ok=True)
    for name, lines in (LISTS | changed).items():
        (root / "splits" / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path, photograph) -> Path:
    for text in (text for lines in LISTS.values() for text in lines):
        photograph(tmp_path / "images" / text.split(" ")[0])
    write(tmp_path)
    return tmp_path


def test_grades_domains_and_lists_are_read(root):
    records = {record.subject: record for record in read_feddrg(root)}
    assert list(records) == sorted(text.split(" ")[0] for lines in LISTS.values() for text in lines)
    for name, lines in LISTS.items():
        domain, split = name.split("_")
        for text in lines:
            path, grade = text.split(" ")
            record = records[path]
            assert record.group == GROUPS[int(grade)] == Path(path).parent.name
            assert (record.centre, record.split) == (domain, {"train": "training", "crossval": "validation"}[split])
            assert record.images.file == root / "images" / path


def test_file_names_tell_the_patient_in_two_domains(root):
    units = {record.subject.split("/")[-1]: record.unit for record in read_feddrg(root)}
    assert units == {
        "000c.png": None,
        "002c.png": None,
        "0016.png": None,
        "1_l1.jpg": "DEEPDR/1",
        "1_r2.jpg": "DEEPDR/1",
        "12_l1.jpg": "DEEPDR/12",
        "3_l2.jpg": "DEEPDR/3",
        "IDRiD_001.jpg": None,
        "7384_right.jpg": "RLDR/7384",
        "7384_left.jpg": "RLDR/7384",
    }


def test_the_parent_of_gdrbench_and_folders_in_small_letters_are_found(root):
    before = [(record.subject, record.group, record.unit) for record in read_feddrg(root)]
    (root / "GDRBench").mkdir()
    for name in ("images", "splits"):
        (root / name).rename(root / "GDRBench" / name)
    (root / "GDRBench" / "images" / "DEEPDR").rename(root / "GDRBench" / "images" / "DeepDR")
    assert [(record.subject, record.group, record.unit) for record in read_feddrg(root)] == before


def test_a_domain_without_images_is_not_read_and_other_domains_are_none_of_ours(root):
    write(root, FGADR_train=["FGADR/nodr/1.png 0"], FGADR_crossval=[], EYEPACS_train=["EYEPACS/Images/10_left.jpeg 0"])
    (root / "images" / "EYEPACS").mkdir()
    assert {record.centre for record in read_feddrg(root)} == {"APTOS", "DEEPDR", "IDRID", "RLDR"} < set(CENTRES)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n") + "\n\n",
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" 2", "  2.0"),
        lambda text: text.replace(".png", ".JPG"),
        lambda text: text.replace("APTOS", "aptos"),
    ],
    ids=["bom", "crlf", "tabs", "floats", "suffix", "small letters"],
)
def test_editions_of_a_list_read_alike(root, change):
    before = [(record.group, record.images) for record in read_feddrg(root)]
    path = root / "splits" / "APTOS_train.txt"
    path.write_bytes(change(path.read_text()).encode())
    assert sorted((record.group, str(record.images)) for record in read_feddrg(root)) == sorted(
        (group, str(images)) for group, images in before
    )


def test_a_file_name_may_have_blanks(root, photograph):
    photograph(root / "images" / "APTOS" / "nodr" / "a b.png")
    write(root, APTOS_train=["APTOS/nodr/a b.png 0"])
    assert "APTOS/nodr/a b.png" in [record.subject for record in read_feddrg(root)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("APTOS/nodr/002c.png", r"APTOS_train\.txt:2: .* is not '<DOMAIN>"),
        ("APTOS/nodr/002c.png 5", ":2: grade 5 is not one of 0 to 4"),
        ("APTOS/nodr/002c.png -1", ":2: grade must be a whole number"),
        ("APTOS/nodr/002c.png 10000000", ":2: grade must be a whole number"),
        ("APTOS/nodr/002c.png 1", ":2: grade 1 is mild_npdr, but the folder is nodr"),
        ("IDRID/nodr/002c.png 0", ":2: 'IDRID/nodr/002c.png' is not APTOS/<class folder>/<file>"),
        ("nodr/002c.png 0", ":2: 'nodr/002c.png' is not APTOS"),
        ("APTOS/../002c.png 0", ":2: .* is not APTOS"),
        ("/APTOS/nodr/002c.png 0", ":2: .* is not APTOS"),
        ("APTOS/nodr/gone.png 0", r":2: .*APTOS/nodr/gone\.png does not exist .*1 of 11 listed"),
        ("APTOS/moderate_npdr/000c.png 2", r"000c\.png occurs twice: .*_train\.txt:1 and .*_train\.txt:2"),
        ("APTOS/moderate_npdr/000c.jpg 2", r"000c\.png is listed twice: .*_train\.txt:1 and .*_train\.txt:2"),
        ("APTOS/pdr/0016.png 4", r"0016\.png occurs twice: .*_train\.txt:2 and .*_crossval\.txt:1"),
    ],
)
def test_a_wrong_line_is_named(root, line, message):
    write(root, APTOS_train=[LISTS["APTOS_train"][0], line])
    with pytest.raises(DataError, match=message):
        read_feddrg(root)


def test_a_missing_list_and_a_folder_of_something_else_are_named(root):
    (root / "splits" / "IDRID_crossval.txt").unlink()
    with pytest.raises(DataError, match=r"IDRID_crossval\.txt does not exist"):
        read_feddrg(root)
    with pytest.raises(DataError, match="images has none of the folders APTOS"):
        read_feddrg(root / "splits")


def test_a_corrupt_image_is_named(root):
    path = root / "images" / "DEEPDR" / "nodr" / "1_r2.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"1_r2\.jpg is truncated or damaged"):
        read_feddrg(root)


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=40)
    | st.lists(st.sampled_from(["APTOS", "nodr", "pdr", "002c.png", "..", "/", " ", "0", "4", "\n"]), max_size=12)
    .map("".join)
    .map(str.encode)
)
def test_any_list_gives_a_data_error_or_existing_images_of_known_classes(root, content):
    path = root / "splits" / "APTOS_train.txt"
    path.write_bytes(content)
    try:
        records = read_feddrg(root)
    except DataError as error:
        assert str(root) in str(error)
        return
    assert {record.group for record in records} <= set(GROUPS)
    assert all(root / "images" in record.images.file.parents for record in records)
