"""Keep and count on this machine whether readers agree with the answers, so that a site can evaluate its models.

The csv table holds no image, and of a study only the name that the results give it. Only its owner can read it, and no
cell is a formula for a spreadsheet.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_fedlora.clinic.cells import guarded, unguarded
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.exporting.intervals import Interval, wilson
from monai_fedlora.files import make_folder, write_text
from monai_fedlora.formats.rows import Row, read_rows

FEEDBACK_NAME = "feedback.csv"
AGREE, DISAGREE = "agree", "disagree"
LONGEST_REASON = 500
"""Characters (ours)."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """A reader's opinion on an answer; also a row of the table.

    Attributes:
        time: when it was given, UTC, to the second.
        study: name of the study in the results.
        model, version, sha256: of the model that answered.
        prediction: the most probable class.
        probability: of that class.
        state: of the answer, see :mod:`monai_fedlora.clinic.state`.
        undecided: "yes" or "no".
        opinion: "agree" or "disagree" with ``prediction``.
        instead: the class that the reader names; empty if none.
        because: the reader's reason, in one line; empty if none.
        answer: identifier of the answer, also among several of one study; empty in tables of earlier versions.
    """

    time: str
    study: str
    model: str
    version: str
    sha256: str
    prediction: str
    probability: float
    state: str
    undecided: str
    opinion: str
    instead: str
    because: str
    answer: str


COLUMNS = tuple(field.name for field in fields(Opinion))
_EARLIER = COLUMNS[:-1]
"""Columns of a table of earlier versions, which is still read and extended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often readers agreed with a group of answers.

    Attributes:
        group: name of the group.
        agreed: number of answers that they agreed with.
        total: number of answers, at least 1.
    """

    group: str
    agreed: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.agreed / self.total

    @property
    def interval(self) -> Interval:
        """95 %, Wilson score."""
        return wilson(self.agreed, self.total)


def opinion_on(
    result: Mapping[str, Any],
    *,
    agrees: bool,
    because: str = "",
    instead: str = "",
    study: str | None = None,
    answer: str | None = None,
) -> Opinion:
    """Make an opinion on an answer.

    Args:
        result: from :meth:`monai_fedlora.clinic.prediction.Prediction.to_json`.
        agrees: whether the reader agrees with the most probable class.
        because: the reason; required from a reader who disagrees. It must name nobody.
        instead: the class that a reader who disagrees would have given.
        study: name of the study in the table; None takes that of the result.
        answer: identifier of the answer; None takes a hash of the result.

    Raises:
        DataError: there is no answer, the reason is missing or too long, or the model has no class ``instead``.
    """
    if not result.get("prediction"):
        raise DataError(f"{result.get('study', 'the study')} has no answer that somebody could agree with")
    if missing := [name for name in ("probabilities", "state", "undecided", "model") if name not in result]:
        raise DataError(f"the result says nothing of {missing[0]}; an earlier version wrote it: classify again")
    reason = " ".join("".join(sign if _is_plain(sign) else " " for sign in because).split())
    if len(reason) > LONGEST_REASON:
        raise DataError(f"a reason has at most {LONGEST_REASON} characters, and this has {len(reason)}; shorten it")
    if not agrees and not reason:
        raise DataError("say in a few words why you disagree; a reason is what the next reader learns from")
    others = [name for name in result["probabilities"] if name != result["prediction"]]
    if instead and (agrees or instead not in others):
        raise DataError(f"the class that you would give instead is one of {', '.join(others)}, not {instead[:80]!r}")
    model, content = result["model"], json.dumps(result, sort_keys=True).encode()
    return Opinion(
        time=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        study=str(result["study"] if study is None else study),
        model=str(model["name"]),
        version=str(model["version"]),
        sha256=str(model["sha256"]),
        prediction=str(result["prediction"]),
        probability=float(result["probabilities"][result["prediction"]]),
        state=str(result["state"]),
        undecided="yes" if result["undecided"] else "no",
        opinion=AGREE if agrees else DISAGREE,
        instead=instead,
        because=reason,
        answer=f"result-{hashlib.sha256(content).hexdigest()[:16]}" if answer is None else answer,
    )


def keep_opinion(opinion: Opinion, folder: Path) -> Path:
    """Add an opinion to the table of a folder. The file is replaced atomically, and several writers take turns.

    Returns:
        The table.

    Raises:
        ConfigError: the folder cannot be made or written to.
        DataError: what lies there is no such table.
    """
    line = [guarded(str(getattr(opinion, name))) for name in COLUMNS]
    line[COLUMNS.index("probability")] = f"{opinion.probability:.6f}"
    return _extend(folder, _line(line), failing="the opinion cannot be kept in")


def check_table(folder: Path) -> None:
    """Check in advance that opinions can be kept in a folder.

    Raises:
        ConfigError: the folder cannot be made or written to.
        DataError: what lies there is no such table.
    """
    _extend(folder, "", failing="opinions cannot be kept in")


def read_opinions(path: Path) -> list[Opinion]:
    """Read a table, or the table of a folder.

    Raises:
        DataError: there is none, or a row is no opinion.
    """
    path = path / FEEDBACK_NAME if path.is_dir() else path
    return [_opinion(row) for row in read_rows(path, required=_EARLIER)]


def last_opinions(opinions: Iterable[Opinion]) -> list[Opinion]:
    """The last opinion on each answer; earlier ones on the same answer are dropped.

    Where a table of an earlier version does not identify the answer, all opinions on a study are on one answer.
    """
    return list({_key(opinion): opinion for opinion in opinions}.values())


def agreements(opinions: Sequence[Opinion]) -> list[Agreement]:
    """Count agreement over all answers, by predicted class, by state, and for undecided answers.

    Args:
        opinions: on one model, from :func:`last_opinions`.
    """
    groups = [("all", list(opinions))]
    for attribute, title in (("prediction", "answer {}"), ("state", "state {}"), ("undecided", "undecided: {}")):
        for value in sorted({getattr(opinion, attribute) for opinion in opinions}):
            name = title.format(str(value).replace("_", " ") if attribute == "state" else value)
            groups.append((name, [opinion for opinion in opinions if getattr(opinion, attribute) == value]))
    return [
        Agreement(group=name, agreed=sum(opinion.opinion == AGREE for opinion in found), total=len(found))
        for name, found in groups
        if found
    ]


def _key(opinion: Opinion) -> tuple[str, str, str]:
    return (opinion.sha256, opinion.answer, "" if opinion.answer else opinion.study)


def _opinion(row: Row) -> Opinion:
    cells = {name: unguarded(row.cells.get(name, "")) for name in COLUMNS}
    try:
        probability = float(cells.pop("probability"))
    except ValueError:
        probability = -1.0
    if (
        not 0 <= probability <= 1
        or cells["opinion"] not in (AGREE, DISAGREE)
        or cells["undecided"] not in ("yes", "no")
    ):
        raise DataError(f"{row.origin} is no opinion as monai-fedlora keeps it; take the line out, or mend it")
    return Opinion(probability=probability, **cells)


def _extend(folder: Path, lines: str, *, failing: str) -> Path:
    """Append lines to the table of a folder; ``failing`` is the beginning of an error message."""
    path = folder / FEEDBACK_NAME
    try:
        make_folder(folder)
        with _locked(folder):
            write_text(path, _text(path) + lines)
    except OSError as error:
        raise ConfigError(f"{failing} {path}: {error}") from error
    return path


def _text(path: Path) -> str:
    if not os.path.lexists(path):
        return _line(COLUMNS)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text; move it away, and a new table is begun") from error
    if text.partition("\n")[0].rstrip() == _line(_EARLIER).rstrip():
        text = _continued(text)
    if not text.startswith(_line(COLUMNS).rstrip()):
        raise DataError(f"{path} is no table of opinions, or another program has changed it; move it away")
    return text if text.endswith("\n") else text + "\n"


def _continued(text: str) -> str:
    """A table of an earlier version with the present columns."""
    try:
        _, *lines = csv.reader(io.StringIO(text, newline=""))
    except csv.Error:
        return text
    return _line(COLUMNS) + "".join(_line([*cells, ""]) for cells in lines if cells)


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _is_plain(sign: str) -> bool:
    return unicodedata.category(sign)[0] != "C"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
