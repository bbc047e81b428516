"""What readers say of answers is kept for the site alone, harmless to a spreadsheet, and counted."""

from __future__ import annotations

import csv
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from monai_fedlora.clinic.reader_feedback import (
    COLUMNS,
    FEEDBACK_NAME,
    Agreement,
    agreements,
    check_table,
    keep_opinion,
    last_opinions,
    opinion_on,
    read_opinions,
)
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.exporting.intervals import wilson

RESULT: dict[str, Any] = {
    "study": "P1",
    "prediction": "ABN",
    "probabilities": {"NOR": 0.25, "ABN": 0.75},
    "state": "doubtful",
    "undecided": False,
    "model": {"name": "heart", "version": "1.0.0", "sha256": "a" * 64},
}


def test_opinion_comes_back_as_it_was_given(tmp_path: Path) -> None:
    given_ = opinion_on(RESULT, agrees=False, because=' thick,\n "wall" ', instead="NOR")
    assert (given_.study, given_.prediction, given_.probability, given_.state) == ("P1", "ABN", 0.75, "doubtful")
    assert (given_.opinion, given_.instead, given_.because) == ("disagree", "NOR", 'thick, "wall"')
    keep_opinion(given_, tmp_path / "new")
    keep_opinion(opinion_on(RESULT, agrees=True, study="case 7"), tmp_path / "new")
    first, second = read_opinions(tmp_path / "new")
    assert first == given_
    assert (second.study, second.opinion, second.because) == ("case 7", "agree", "")


def test_table_is_its_owners_alone(tmp_path: Path) -> None:
    path = keep_opinion(opinion_on(RESULT, agrees=True), tmp_path / "a" / "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == [FEEDBACK_NAME]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.text(min_size=1, max_size=60), name=st.text(max_size=20))
@example(text="=HYPERLINK(1)", name="=1+1")
@example(text="@SUM(A1)", name="-1")
@example(text="'quoted", name="''")
@example(text="\uff1dcmd|' /C calc'!A0", name="+x")
@example(text='"\r\n=1', name="\t=1")
def test_no_cell_is_a_formula_and_every_line_is_one(text: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / os.urandom(8).hex()
    try:
        opinion = opinion_on(RESULT, agrees=False, because=text, study=" ".join(name.split()))
    except DataError:  # nothing is left of the reason
        return
    if any(not sign.isprintable() for sign in opinion.study):
        return
    with keep_opinion(opinion, folder).open(encoding="utf-8", newline="") as stream:
        header, cells = csv.reader(stream)
    assert tuple(header) == COLUMNS
    assert not any(cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) for cell in cells)
    (again,) = read_opinions(folder)
    assert again == opinion


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agrees": False}, "why you disagree"),
        ({"agrees": False, "because": " \n\x00"}, "why you disagree"),
        ({"agrees": False, "because": "x" * 501}, "at most 500 characters"),
        ({"agrees": False, "because": "x", "instead": "ABN"}, "one of NOR, not 'ABN'"),
        ({"agrees": False, "because": "x", "instead": "DCM"}, "one of NOR, not 'DCM'"),
        ({"agrees": True, "instead": "NOR"}, "one of NOR"),
    ],
)
def test_opinion_that_says_too_little_or_too_much_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opinion_on(RESULT, **options)


def test_answer_that_is_none_has_no_opinion() -> None:
    with pytest.raises(DataError, match="P1 has no answer"):
        opinion_on({"study": "P1", "error": "damaged"}, agrees=True)
    with pytest.raises(DataError, match="says nothing of state"):
        opinion_on({name: value for name, value in RESULT.items() if name != "state"}, agrees=True)


def test_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FEEDBACK_NAME
    for content in (b"study,prediction\nP1,ABN\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        for attempt in (lambda: keep_opinion(opinion_on(RESULT, agrees=True), tmp_path), lambda: check_table(tmp_path)):
            with pytest.raises(DataError, match="move it away"):
                attempt()
        assert path.read_bytes() == content


def test_table_that_a_spreadsheet_saved_is_read_and_a_broken_line_named(tmp_path: Path) -> None:
    path = keep_opinion(opinion_on(RESULT, agrees=True), tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert len(read_opinions(path)) == 1
    path.write_text(text + text.splitlines()[1].replace(",agree,", ",maybe,") + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"{FEEDBACK_NAME}:3 is no opinion"):
        read_opinions(path)


def test_answers_of_one_study_and_studies_of_one_name_are_told_apart() -> None:
    other = RESULT | {"probabilities": {"NOR": 0.125, "ABN": 0.875}}
    told = [opinion_on(result, agrees=True) for result in (RESULT, other, RESULT)]
    assert last_opinions(told) == [told[2], told[1]]
    names = [("case 7", "a-answer1"), ("case 7", "a-answer2"), ("case 7", "b-answer1"), ("case 8", "a-answer1")]
    named = [opinion_on(RESULT, agrees=True, study=name, answer=sign) for name, sign in names]
    assert last_opinions(named) == [named[3], *named[1:3]], "another name makes no other answer"


def test_table_without_answers_is_read_and_continued(tmp_path: Path) -> None:
    kept = [opinion_on(RESULT, agrees=agrees, because='a, "b"', study=study, answer="") for study, agrees in
            (("P1", False), ("P1", True), ("P2", False))]  # fmt: skip
    for opinion in kept:
        path = keep_opinion(opinion, tmp_path)
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    earlier = "\n".join([header.removesuffix(",answer"), *(line.removesuffix(",") for line in lines)]) + "\n"
    for text in (earlier, "\ufeff" + earlier.replace("\n", "\r\n")):
        path.write_text(text, encoding="utf-8", newline="")
        assert read_opinions(path) == kept
        assert last_opinions(read_opinions(path)) == kept[1:]
        check_table(tmp_path)
        path.write_text(text, encoding="utf-8", newline="")
        new = opinion_on(RESULT, agrees=True)
        keep_opinion(new, tmp_path)
        assert new.answer
        assert read_opinions(path) == [*kept, new]


def test_folder_that_cannot_be_written_to_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="opinions cannot be kept"):
        check_table(tmp_path / "file")
    check_table(tmp_path / "new")
    assert (tmp_path / "new" / FEEDBACK_NAME).read_text().strip() == ",".join(COLUMNS)


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(5):
            keep_opinion(opinion_on(RESULT, agrees=True, study=f"{name}{number}"), tmp_path)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({opinion.study for opinion in read_opinions(tmp_path)}) == 20


def test_agreement_is_counted_by_class_and_state_of_the_last_opinions() -> None:
    agree, disagree = (opinion_on(RESULT, agrees=agrees, because="x") for agrees in (True, False))
    told = [
        replace(disagree, study="a", answer="1"),
        replace(agree, study="a", answer="1"),
        replace(disagree, study="b", answer="2", undecided="yes"),
        replace(agree, study="c", answer="3", prediction="NOR", state="no_doubt_found"),
        replace(disagree, study="a", answer="1", sha256="b" * 64),
    ]
    last = [opinion for opinion in last_opinions(told) if opinion.sha256 == "a" * 64]
    assert [opinion.study for opinion in last] == ["a", "b", "c"]
    counted = {row.group: (row.agreed, row.total) for row in agreements(last)}
    assert counted == {
        "all": (2, 3),
        "answer ABN": (1, 2),
        "answer NOR": (1, 1),
        "state doubtful": (1, 2),
        "state no doubt found": (1, 1),
        "undecided: no": (2, 2),
        "undecided: yes": (0, 1),
    }
    assert agreements([]) == []
    row = Agreement(group="all", agreed=2, total=3)
    assert (row.share, row.interval) == (2 / 3, wilson(2, 3))
