"""A csv gives rows that say where they stand, or a DataError naming file and line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import read_header_row, read_rows, whole_number


def test_rows_carry_their_line_and_skip_empty_ones(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfsubject,label\r\n a , NOR \r\n,,\r\n\r\n,\r\nb,DCM\r\n".replace(b",,\r", b",\r"))
    rows = read_rows(path, required=["subject"])
    assert [(row.text("subject"), row.text("label")) for row in rows] == [("a", "NOR"), ("b", "DCM")]
    assert rows[1].origin == f"{path}:6"
    assert read_header_row(path) == ("subject", "label")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_are_read_too(tmp_path, mark):
    (tmp_path / "a.csv").write_text("subject;label\na;NOR\n".replace(";", mark))
    assert read_rows(tmp_path / "a.csv", required=["label"])[0].text("label") == "NOR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"subject,label\n", "no patient"),
        (b"subject\na\n", r"a\.csv:1: column label is missing"),
        (b"subject,label,label\na,b,c\n", r"a\.csv:1: the column label occurs twice"),
        (b"subject,label\na,b\nc,d,e\n", r"a\.csv:3: 3 cells"),
        (b"subject,label\na\n", r"a\.csv:2: 1 cells"),
        (b'subject,label\na,b\n"a,b\n', r"a\.csv:3 is not readable as csv: .*quotation mark"),
        (b'subject,label\na,b\n"' + 140_000 * b"a" + b"\nb,c\n", r"a\.csv:3 is not readable as csv: .*quotation mark"),
        (b"subject,label\n\xff\x01,b\n", "not readable as csv"),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "a.csv", required=["subject", "label"])


def test_an_empty_cell_is_named_when_it_is_needed(tmp_path):
    (tmp_path / "a.csv").write_text("subject,label\na,\n")
    with pytest.raises(DataError, match=r"a\.csv:2: label is empty"):
        read_rows(tmp_path / "a.csv", required=["label"])[0].text("label")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("12", 12), ("12.0", 12), ("007", 7)])
def test_whole_numbers_may_come_from_a_spreadsheet(text, value):
    assert whole_number(text, name="ED", origin="a") == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "nan", "1e3", "1234567", "١٢"])
def test_other_numbers_are_refused(text):
    with pytest.raises(DataError, match="a: ED must be a whole number"):
        whole_number(text, name="ED", origin="a")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet='ab,;\t"\n\r\0é', max_size=40).map(str.encode))
def test_any_bytes_give_rows_or_a_data_error(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    try:
        rows = read_rows(tmp_path / "a.csv", required=["a"])
    except DataError:
        return
    assert all("a" in row.cells for row in rows)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=5)] * 2), min_size=1, max_size=4))
def test_what_a_csv_writer_wrote_is_read_back(tmp_path, cells):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("x", "y"), *cells])
    (tmp_path / "a.csv").write_bytes(text.getvalue().encode())
    nothing = ("nan", "n/a", "#n/a", "<na>", "null")
    known = [["" if c.strip() == "NA" or c.strip().lower() in nothing else c.strip() for c in line] for line in cells]
    expected = [(x, y) for x, y in known if x or y]
    try:
        rows = read_rows(tmp_path / "a.csv", required=["x", "y"])
    except DataError:
        assert not expected
        return
    assert [(row.cells["x"], row.cells["y"]) for row in rows] == expected


TABLE = "subject,label\nMüller,b c\n"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (TABLE.encode(), 0),
        (TABLE.encode("utf-8-sig"), 0),
        (TABLE.encode("utf-16"), 0),
        (TABLE.encode("utf-16-le"), 0),
        (TABLE.encode("utf-16-be"), 0),
        (b"\xfe\xff" + TABLE.encode("utf-16-be"), 0),
        (TABLE.encode("latin-1"), 1),
        (TABLE.replace("\n", "\r\n").encode("cp1252"), 1),
        (TABLE.replace(",", ";").encode(), 0),
        (("sep=;\n" + TABLE.replace(",", ";")).encode(), 0),
        (("sep=,\r\n" + TABLE).encode("utf-8-sig"), 0),
        (TABLE.replace("\n", ",\n").encode(), 0),
        (TABLE.replace("c\n", "c,,\n").encode(), 0),
        (TABLE.replace("label\n", "label,\n").encode(), 0),
        (b'"subject","label"\n"M\xc3\xbcller","b c"\n', 0),
    ],
)
def test_a_table_is_read_whatever_program_wrote_it(tmp_path, content, notes):
    (tmp_path / "a.csv").write_bytes(content)
    (row,) = read_rows(tmp_path / "a.csv", required=["subject", "label"])
    assert (row.text("subject"), row.text("label"), len(row.notes)) == ("Müller", "b c", notes)
    assert row.origin.endswith(":3" if content.lstrip(b"\xef\xbb\xbf").startswith(b"sep") else ":2")


def test_quoted_commas_do_not_decide_on_the_separator(tmp_path):
    (tmp_path / "a.csv").write_text('"a, b, c";d\n"1, 2";3\n')
    assert read_rows(tmp_path / "a.csv", required=["d"])[0].cells == {"a, b, c": "1, 2", "d": "3"}


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "<NA>", "N/A", "null", " "])
def test_what_programs_write_for_nothing_is_nothing(tmp_path, cell):
    (tmp_path / "a.csv").write_text(f"subject,label\na,{cell}\nNaomi,None\n")
    rows = read_rows(tmp_path / "a.csv", required=["subject"])
    assert [row.cells["label"] for row in rows] == ["", "None"]
    with pytest.raises(DataError, match=r"a\.csv:2: label is empty \(as are NA"):
        rows[0].text("label")
