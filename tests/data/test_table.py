"""Any hospital's csv, with two 3D files or one 4D file per patient."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.data.records import Cine, FramePair, Photograph
from monai_fedlora.data.table import Columns, read_table
from monai_fedlora.errors import DataError

HEADER = "subject,site,label,ed_image,es_image,cine,ed,es"
ROWS = ["p2,north,DCM,v/ed.nii.gz,v/es.nii.gz,,,", "p1,south,NOR,,,v/4d.nii.gz,0,7"]


@pytest.fixture
def folder(tmp_path, nifti) -> Path:
    nifti(tmp_path / "v" / "ed.nii.gz")
    nifti(tmp_path / "v" / "es.nii.gz")
    nifti(tmp_path / "v" / "4d.nii.gz", (4, 4, 3, 10))
    return tmp_path


def write(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    (folder / "patients.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "patients.csv"


def test_both_kinds_of_images_are_read(folder):
    one, two = read_table(write(folder, ROWS))
    assert (one.subject, one.centre, one.group) == ("p1", "south", "NOR")
    assert one.images == Cine(folder / "v/4d.nii.gz", 0, 7)
    assert (two.subject, two.centre, two.group) == ("p2", "north", "DCM")
    assert two.images == FramePair(folder / "v/ed.nii.gz", folder / "v/es.nii.gz")


def test_columns_may_have_other_names_and_frames_may_count_from_one(folder):
    path = write(folder, ["a,NOR,v/4d.nii.gz,1,10"], "id,diagnosis,file,first,second")
    columns = Columns(subject="id", label="diagnosis", site=None, cine="file", ed="first", es="second", first_frame=1)
    record = read_table(path, columns)[0]
    assert (record.subject, record.centre, record.group) == ("a", None, "NOR")
    assert record.images == Cine(folder / "v/4d.nii.gz", 0, 9)


def test_absolute_paths_and_paths_beside_the_csv_are_read(folder):
    (folder / "lists").mkdir()
    path = write(folder / "lists", [f"a,north,NOR,{folder}/v/ed.nii.gz,../v/es.nii.gz,,,"])
    assert read_table(path)[0].images == FramePair(folder / "v/ed.nii.gz", folder / "v/es.nii.gz")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p3,north,NOR,,,,,", ":2: no image; fill ed_image and es_image"),
        ("p3,north,NOR,v/ed.nii.gz,,,,", ":2: es_image is empty"),
        ("p3,north,NOR,,v/es.nii.gz,,,", ":2: ed_image is empty"),
        ("p3,north,NOR,v/ed.nii.gz,v/gone.nii.gz,,,", r":2: es_image .*gone\.nii\.gz does not exist"),
        ("p3,north,NOR,,,v/4d.nii.gz,0,", ":2: es is empty"),
        ("p3,north,NOR,,,v/4d.nii.gz,0,10", ":2: ES is frame 10"),
        ("p3,north,,v/ed.nii.gz,v/es.nii.gz,,,", ":2: label is empty"),
        ("p3,,NOR,v/ed.nii.gz,v/es.nii.gz,,,", ":2: site is empty"),
        (",north,NOR,v/ed.nii.gz,v/es.nii.gz,,,", ":2: subject is empty"),
        ("p1,north,NOR,v/ed.nii.gz,v/es.nii.gz,,,", "p1 occurs twice: .*:2 and .*:4"),
    ],
)
def test_a_wrong_line_is_named(folder, row, message):
    with pytest.raises(DataError, match=message):
        read_table(write(folder, [row, *ROWS]))


def test_counting_from_one_refuses_frame_zero(folder):
    with pytest.raises(DataError, match=":3: ED is frame -1"):
        read_table(write(folder, ROWS), Columns(first_frame=1))


def photographs(folder: Path, photograph, rows: list[str], header: str = "subject,site,label,image,unit") -> Path:
    for name in ("a.jpg", "b.PNG", "c.tif"):
        photograph(folder / "v" / name)
    return write(folder, rows, header)


def test_photographs_are_read_with_their_patient(folder, photograph):
    rows = ["i2,north,3.0,v/b.PNG,p1", "i1,south,MEL,v/a.jpg,", "i3,south,v1.0,v/c.tif,p1"]
    records = read_table(photographs(folder, photograph, rows))
    assert [(r.subject, r.centre, r.group, r.unit, r.spacing) for r in records] == [
        ("i1", "south", "MEL", None, None),
        ("i2", "north", "3", "p1", None),
        ("i3", "south", "v1.0", "p1", None),
    ]
    assert records[0].images == Photograph(folder / "v/a.jpg")


def test_photographs_without_a_code_are_known_by_their_path_and_columns_may_have_other_names(folder, photograph):
    path = photographs(folder, photograph, ["v/a.jpg,0,P7", "v/b.PNG,1,P7"], "file,grade,patient")
    columns = Columns(label="grade", site=None, image="file", unit="patient")
    assert [(r.subject, r.unit) for r in read_table(path, columns)] == [("v/a.jpg", "P7"), ("v/b.PNG", "P7")]
    with pytest.raises(DataError, match=":1: column lesion is missing"):
        read_table(path, Columns(label="grade", site=None, image="file", unit="lesion"))
    with pytest.raises(DataError, match=":1: column code is missing"):
        read_table(path, Columns(subject="code", label="grade", site=None, image="file"))
    unknown = read_table(path, Columns(label="grade", site=None, image="file"))
    assert [record.unit for record in unknown] == [None, None]


def test_a_table_may_be_separated_by_tabs_but_hearts_need_a_subject_column(folder, photograph):
    rows = ["i1\tnorth\tMEL\tv/a.jpg\t"]
    assert read_table(photographs(folder, photograph, rows, "subject\tsite\tlabel\timage\tunit"))[0].subject == "i1"
    with pytest.raises(DataError, match=":1: column subject is missing"):
        read_table(write(folder, ["NOR,v/ed.nii.gz,v/es.nii.gz"], "label,ed_image,es_image"), Columns(site=None))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("i1,north,MEL,v/gone.jpg,", r":2: image .*gone\.jpg does not exist"),
        ("i1,north,,v/a.jpg,", ":2: label is empty"),
        (",north,NV,v/a.jpg,", ":2: subject is empty"),
        ("i1,north,NV,,", ":2: no image"),
        ("i9,north,NV,v/a.jpg,", "i9 occurs twice: .*:2 and .*:3; every photograph needs a code of its own"),
        ("i1,north,NV,v/b.PNG,", r"b\.PNG is listed twice: .*:2 and .*:3"),
        ("i1,north,NV,v/ed.nii.gz,", r"ed\.nii\.gz is not a JPEG, PNG or TIFF"),
    ],
)
def test_a_wrong_photograph_is_named(folder, photograph, row, message):
    with pytest.raises(DataError, match=message):
        read_table(photographs(folder, photograph, [row, "i9,south,MEL,v/b.PNG,"]))


def test_a_line_is_a_heart_or_a_photograph(folder, photograph):
    path = photographs(folder, photograph, ["a,NV,v/a.jpg,v/4d.nii.gz,0,1"], "subject,label,image,cine,ed,es")
    with pytest.raises(DataError, match=":2: image and cine are both filled"):
        read_table(path, Columns(site=None))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(0, 2), column=st.integers(0, 4), cell=st.text(max_size=6))
def test_any_garbled_cell_of_photographs_gives_a_data_error_or_existing_images(folder, photograph, line, column, cell):
    lines = ["subject,site,label,image,unit", "i2,north,3.0,v/b.PNG,p1", "i1,south,MEL,v/a.jpg,"]
    cells = lines[line].split(",")
    cells[column] = cell
    lines[line] = ",".join(cells)
    try:
        records = read_table(photographs(folder, photograph, lines[1:], lines[0]))
    except DataError as error:
        assert "patients.csv" in str(error) or str(folder) in str(error)
        return
    assert all(isinstance(record.images, Photograph) and record.images.file.is_file() for record in records)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(0, 1), column=st.integers(0, 7), cell=st.text(max_size=6))
def test_any_garbled_cell_gives_a_data_error_or_existing_images(folder, line, column, cell):
    cells = ROWS[line].split(",")
    cells[column] = cell
    try:
        records = read_table(write(folder, [*ROWS[:line], ",".join(cells), *ROWS[line + 1 :]]))
    except DataError:
        return
    assert all(file.is_file() for record in records for file in record.files())


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
def test_the_real_sunnybrook_csv_is_read():
    source = Path(os.environ["MONAI_FEDLORA_REAL_DATA"]) / "sunnybrook" / "patients.csv"
    records = read_table(source, Columns(label="acdc_class", site="vendor"))
    assert len(records) == 37
    assert {record.centre for record in records} == {"GE"}
    assert {record.group for record in records} == {"NOR", "MINF", "DCM", "HCM"}
