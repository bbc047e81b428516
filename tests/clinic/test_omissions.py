"""What was left out is counted by reason, and names of files are told apart from it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic.omissions import Omission, Unused, quote, summarise

FOLDER = Path("study")


def image(number: int, why: str, **changes: object) -> Unused:
    settings = {"path": FOLDER / "IM", "series": f"1.{number}", "series_number": number} | changes
    return Unused(why=why, **settings)  # type: ignore[arg-type]


def test_sentences_count_by_reason_doubts_first() -> None:
    unused = [
        image(40, "parametric maps"), image(41, "parametric maps"), image(0, "localisers"),
        Unused(path=FOLDER / "a", why="no DICOM"), Unused(path=FOLDER / "b", why="damaged", is_doubt=True),
    ]  # fmt: skip
    assert [str(omission) for omission in summarise(unused)] == [
        "1 file was left out: damaged",
        "2 images of series 40, 41 were left out: parametric maps",
        "1 image was left out: localisers",
        "1 file was left out: no DICOM",
    ]


def test_json_says_the_same() -> None:
    (omission,) = summarise([image(40, "parametric maps"), image(40, "parametric maps")])
    assert omission.to_json() == {
        "count": 2, "unit": "image", "why": "parametric maps", "series": [40], "doubt": False
    }  # fmt: skip


def test_quotes_name_series_and_files() -> None:
    unused = [
        image(40, "maps", description="T1 MOLLI"), image(7, "few"),
        Unused(path=FOLDER / "deep" / "b.txt", why="no DICOM"), Unused(path=Path("/elsewhere/000001"), why="no DICOM"),
    ]  # fmt: skip
    assert quote(unused, [(5, "sax"), (6, "")], {Path("/elsewhere/000001"): "scan/a.txt"}) == (
        "series 5 is 'sax'; series 40 is 'T1 MOLLI'",
        "files that were left out: b.txt, scan/a.txt",
    )
    assert quote([], [(5, "")], {}) == ()


def test_long_lists_end_with_their_number() -> None:
    omission = Omission(count=20, unit="image", why="few", series=tuple(range(1, 21)), is_doubt=False)
    assert "series 1, 2, 3, 4, 5, 6, 7, 8 and 12 more" in str(omission)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.booleans())))
def test_every_one_is_counted_once(items: list[tuple[int, str, bool]]) -> None:
    omissions = summarise(image(number, why, is_doubt=is_doubt) for number, why, is_doubt in items)
    assert sum(omission.count for omission in omissions) == len(items)
    doubts = [omission.is_doubt for omission in omissions]
    assert doubts == sorted(doubts, reverse=True)
