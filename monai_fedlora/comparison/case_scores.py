"""What every model of a comparison says of every test case: what its statistics are computed from."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.data.cases import NO_LABEL, Datalist
from monai_fedlora.errors import FedLoraError
from monai_fedlora.files import csv_cell, csv_text, write_text
from monai_fedlora.tasks.task import SCORE

HEAD = ("method", "seed", "repeat", "fold", "site", "view", "training_cases", "patient", "case", "label", SCORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """What one model says of one test case.

    The method's key metric is the mean of the scores over cases, or, in a task with classes, the mean over the classes
    of each one's mean score (balanced accuracy is that of 1 for right and 0 for wrong predictions).

    Attributes:
        method, seed: of the run.
        repeat, fold: of the cross-validation, see :class:`~monai_fedlora.comparison.comparison_settings.Run`; both 0
            where the cases keep their own split.
        site: the site of the case.
        view: "personal", "shared", "new" or "limited".
        cases: number of training patients that a new or limited site used; None for others.
        patient: the patient or lesion; several cases may be of one. Unique within a site.
        case: unique within a site.
        label: name of the true class; empty in a task without classes.
        score: see :attr:`monai_fedlora.tasks.task.Task.scores`; None where undefined.
        more: the task's finer numbers, such as the probability of each class.
    """

    method: str
    seed: int
    repeat: int = 0
    fold: int = 0
    site: str
    view: str
    cases: int | None = None
    patient: str
    case: str
    label: str
    score: float | None
    more: Mapping[str, float | None] = field(default_factory=dict)


def case_scores(
    run: Run,
    datalist: Datalist,
    rows: Iterable[Mapping[str, Any]],
    *,
    view: str | None = None,
    cases: int | None = None,
) -> list[CaseScore]:
    """Say whose scores these are.

    Args:
        run: that made them.
        datalist: of the site, with these test cases.
        rows: of the site, with ``case``, ``score`` and more numbers, and ``view`` unless this is given.
        view, cases: see :class:`CaseScore`.
    """
    known = {case.subject: case for case in datalist.test}
    found = []
    for row in rows:
        values = {name: _number(value) for name, value in row.items() if name not in ("view", "case")}
        case = known[row["case"]]
        found.append(
            CaseScore(
                method=run.method,
                seed=run.seed,
                repeat=run.repeat or 0,
                fold=run.fold or 0,
                site=datalist.site,
                view=view or row["view"],
                cases=cases,
                patient=case.unit or case.subject,
                case=case.subject,
                label="" if case.label == NO_LABEL else datalist.classes[case.label],
                score=values.pop(SCORE),
                more=values,
            )
        )
    return found


def write_scores(path: Path, scores: Sequence[CaseScore]) -> None:
    """Write a csv with a line for each score, readable by its owner only."""
    more = list(dict.fromkeys(name for each in scores for name in each.more))
    lines = ([*_first(each), *(csv_cell(each.more.get(name)) for name in more)] for each in scores)
    write_text(path, csv_text([[*HEAD, *more], *lines]))


def read_scores(path: Path) -> list[CaseScore]:
    """Read what :func:`write_scores` has written.

    Raises:
        FedLoraError: the file is missing, or another one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [_read(line) for line in csv.DictReader(stream)]
    except OSError as error:
        raise FedLoraError(f"{path}, with the scores of every test case, cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FedLoraError(
            f"{path} holds no scores of test cases: {error!r}; remove it and its run's result"
        ) from error


def read_table(path: Path) -> list[dict[str, str]]:
    """The lines of a csv by column; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _first(each: CaseScore) -> list[Any]:
    run = [each.method, each.seed, each.repeat, each.fold, each.site, each.view]
    return [*run, csv_cell(each.cases), each.patient, each.case, each.label, csv_cell(each.score)]


def _read(line: Mapping[str, str]) -> CaseScore:
    return CaseScore(
        method=line["method"],
        seed=int(line["seed"]),
        repeat=int(line["repeat"]),
        fold=int(line["fold"]),
        site=line["site"],
        view=line["view"],
        patient=line["patient"],
        case=line["case"],
        label=line["label"],
        cases=int(line["training_cases"]) if line["training_cases"] else None,
        score=_number(line[SCORE]),
        more={name: _number(value) for name, value in line.items() if name not in HEAD},
    )


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    return None if math.isnan(number) else number
