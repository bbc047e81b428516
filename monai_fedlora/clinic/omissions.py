"""Count the images and files of a study that were not used, with reasons, so that the reader learns of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """An image, or a file, that was not used.

    Attributes:
        path: the file.
        why: the reason, without names of people or files.
        series: series instance UID; empty if unknown.
        series_number: SeriesNumber, 0 if missing.
        description: SeriesDescription.
        lacks: whether a needed attribute is missing, as opposed to an image of another kind.
        is_doubt: whether it may belong to the cine that was to be read.
    """

    path: Path
    why: str
    series: str = ""
    series_number: int = 0
    description: str = ""
    lacks: bool = False
    is_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Omission:
    """The images or files that were left out for one reason.

    Attributes:
        count: of images, or of files that hold none.
        unit: "image" or "file".
        why: the reason.
        series: numbers of the series in order; empty for files.
        is_doubt: whether they may belong to the cine that was to be read.
    """

    count: int
    unit: str
    why: str
    series: tuple[int, ...]
    is_doubt: bool

    def __str__(self) -> str:
        plural = "" if self.count == 1 else "s"
        numbers = [number for number in self.series if number]
        of = f" of series {_listed(numbers)}" if numbers else ""
        return f"{self.count} {self.unit}{plural}{of} {'was' if self.count == 1 else 'were'} left out: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """As an entry of a result's JSON file."""
        return {
            "count": self.count,
            "unit": self.unit,
            "why": self.why,
            "series": list(self.series),
            "doubt": self.is_doubt,
        }


def summarise(unused: Iterable[Unused]) -> tuple[Omission, ...]:
    """Group what was left out by reason: doubts first, then in the order of the files."""
    groups: dict[tuple[bool, str, str], list[Unused]] = {}
    for one in unused:
        groups.setdefault((one.is_doubt, "image" if one.series else "file", one.why), []).append(one)
    found = [
        Omission(
            count=len(group),
            unit=unit,
            why=why,
            series=tuple(sorted({one.series_number for one in group if one.series})),
            is_doubt=is_doubt,
        )
        for (is_doubt, unit, why), group in groups.items()
    ]
    return tuple(sorted(found, key=lambda omission: not omission.is_doubt))


def quote(unused: Sequence[Unused], used: Iterable[tuple[int, str]], names: Mapping[Path, str]) -> tuple[str, ...]:
    """Sentences with the descriptions of all series and the names of unused files, which may name a person.

    Args:
        unused: images and files.
        used: number and description of the series that were used.
        names: original names of files, where they are stored under others.
    """
    series = {number: text for number, text in used if text}
    for one in unused:
        if one.series and one.description:
            series.setdefault(one.series_number, one.description)
    files = sorted({names.get(one.path, one.path.name) for one in unused if not one.series})
    sentences = []
    if series:
        sentences.append("; ".join(f"series {number} is {text!r:.66}" for number, text in sorted(series.items())))
    if files:
        sentences.append(f"files that were left out: {_listed(files)}")
    return tuple(sentences)


def _listed(items: Sequence[object]) -> str:
    more = len(items) - _NAMED
    return ", ".join(map(str, items[:_NAMED])) + (f" and {more} more" if more > 0 else "")
