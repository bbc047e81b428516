"""Read a run's ``results.json`` into typed values; missing or invalid ones become None or are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_fedlora.data.origin import KINDS, UNKNOWN
from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.run_record import READABLE, differences_said, interruption_said, restarts_said
from monai_fedlora.federated.shortfalls import absences_said
from monai_fedlora.site_report import VIEWS, current_views
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.known import TASKS
from monai_fedlora.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a model on one split of a site.

    Attributes:
        values: metrics by name, without undefined ones.
        n: number of cases; None where unknown.
        confusion: a row per true and a column per predicted class; empty where unknown.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    n: int | None = None
    confusion: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A site's report of a round or of the final evaluation.

    Attributes:
        cases: number of training cases.
        train_loss: mean over the round.
        seconds: duration of the site's task.
        sent, received: bytes of all messages that the site sent and received; None where they were not counted.
        validation, test: metrics by view ("personal", "shared"), of the model that the site received.
    """

    cases: int | None = None
    train_loss: float | None = None
    seconds: float | None = None
    sent: int | None = None
    received: int | None = None
    validation: Mapping[str, Metrics] = field(default_factory=dict)
    test: Mapping[str, Metrics] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Directions and lengths of a round's accepted updates.

    Attributes:
        sites: sites whose updates were accepted.
        norms: Euclidean norm of each site's change.
        cosines: cosine by pair of sites; None for a change of norm zero.
    """

    sites: tuple[str, ...]
    norms: Mapping[str, float]
    cosines: Mapping[tuple[str, str], float | None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Effects of the limits on single updates in a round.

    Attributes:
        usual, longest: median norm of the changes and the bound; None where there were too few changes.
        clipped: by site, the norm of its change and the factor by which it was scaled down.
        weights: by site, the number of training cases that it reported and the number by which it was weighted.
    """

    usual: float | None = None
    longest: float | None = None
    clipped: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    weights: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round.

    Attributes:
        number: counted from 0.
        score: case-weighted mean of the task's key metric on validation cases, of the model with which the round
            started.
        answers: reports by site.
        agreement, limits: None where the record lacks them.
    """

    number: int
    score: float | None
    answers: Mapping[str, Answer]
    agreement: Agreement | None
    limits: Limits | None = None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An update that the server refused."""

    round: int | None
    site: str
    reason: str
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of a run, finished or not.

    Attributes:
        plan: the plan as the run's version has written it.
        sites: the plan's sites, in its order.
        classes: the plan's classes.
        status: "finished", "incomplete", "interrupted", "running", or "site" where only models of sites were found.
        lacks: messages about what an incomplete run has not done.
        absent: messages about sites that the plan allows to be missing, and that were.
        interrupted_by: what ended a run before its time, in words; empty where that is not known.
        restarted: messages about sites that began a round without the state of the round before.
        differing: messages about sites with other packages or another bundle than the other ends.
        last: number of rounds after which the plan ends, counted from the first one of the experiment.
        rounds: the rounds that have started, in order.
        final: by site, the evaluation of the last model.
        refused: refused updates, in chronological order.
        payload: bytes of the tensors that a site sends in a round.
        seconds: duration so far.
        version: version of the package that wrote the record.
        images: kind of all images that influenced the shared tensors; None where the record lacks it.
        site_images: by site, the kind of its training images as reported by the site.
        start: name of the initial shared tensors and kind of the images behind them; empty if they come from a seed.
    """

    plan: Mapping[str, Any]
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    status: str
    last: int | None
    rounds: tuple[Round, ...]
    final: Mapping[str, Answer]
    refused: tuple[Refused, ...]
    payload: int | None
    seconds: float | None
    version: str
    lacks: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    interrupted_by: str = ""
    restarted: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    images: str | None = None
    site_images: Mapping[str, str] = field(default_factory=dict)
    start: str = ""

    @property
    def task(self) -> Task:
        """What was learnt.

        Raises:
            FedLoraError: no installed package has the task that the plan names.
        """
        return TASKS[str(self.plan.get("task", CLASSIFICATION.name))]


def parse_record(value: Any, source: str) -> Record:
    """Read the content of ``results.json``.

    Args:
        value: the parsed file.
        source: its name, for messages.

    Raises:
        FedLoraError: it is not the record of a run, or has another format.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("plan"), Mapping):
        raise FedLoraError(f"{source} is no record of a run (it has no plan); give the workspace of a simulation")
    if value.get("format") not in READABLE:
        raise FedLoraError(
            f"{source} has the format {value.get('format')!r}, this version reads "
            f"{' and '.join(map(str, READABLE))}; use the version of monai-fedlora that wrote it "
            f"({value.get('version', 'not recorded')})"
        )
    plan = value["plan"]
    data = _mapping(value.get("training_data"))
    sites = _texts(plan.get("sites"))
    if not sites:
        raise FedLoraError(f"{source} names no sites in its plan; it may be damaged")
    start, planned = count(plan.get("start_round")) or 0, count(plan.get("rounds"))
    return Record(
        plan=plan,
        sites=sites,
        classes=_texts(plan.get("classes")),
        status=str(value.get("status", "running")),
        last=None if planned is None else start + planned,
        rounds=tuple(_round(entry, start + place) for place, entry in enumerate(_list(value.get("rounds")))),
        final={site: answer(report) for site, report in _mapping(value.get("final")).items()},
        refused=tuple(
            Refused(
                round=count(e.get("round")),
                site=str(e.get("site", "")),
                reason=str(e.get("reason", "")),
                code=str(e.get("code", "")),
            )
            for e in map(_mapping, _list(value.get("refused")))
        ),
        payload=count(value.get("payload_bytes")),
        seconds=number(value.get("seconds")),
        version=str(value.get("version", "")),
        lacks=_texts(value.get("lacks")),
        absent=tuple(absences_said({"absent": _texts(value.get("absent"))})),
        images=data["kind"] if data.get("kind") in KINDS else None,
        site_images={str(site): kind for site, kind in _mapping(data.get("sites")).items() if kind in KINDS},
        start=_start(plan.get("start")),
        interrupted_by=interruption_said(value),
        restarted=tuple(restarts_said({"restarted": _restarts(value.get("restarted"))})),
        differing=tuple(differences_said(_installed(value))),
    )


def _installed(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ends have installed, as far as a record tells it."""
    said = {}
    for site, each in _mapping(value.get("ready")).items():
        found, bundle = _mapping(each), _mapping(each).get("bundle")
        said[site] = {
            "versions": _mapping(found.get("versions")),
            **({"bundle": bundle} if isinstance(bundle, str) else {}),
        }
    return {"versions": _mapping(value.get("versions")), "ready": said}


def answer(value: Any) -> Answer:
    """Read a site's report of a round or of the end."""
    report = _mapping(value)
    return Answer(
        cases=count(report.get("cases")),
        train_loss=number(report.get("train_loss")),
        seconds=number(report.get("seconds")),
        sent=count(report.get("bytes_sent")),
        received=count(report.get("bytes_received")),
        validation=_views(report.get("validation")),
        test=_views(report.get("test")),
    )


def _start(value: Any) -> str:
    start = _mapping(value)
    return f"{start.get('name') or 'stored tensors'} ({start.get('kind', UNKNOWN)} images)" if start else ""


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def count(value: Any) -> int | None:
    """A whole number from 0, or None."""
    return value if type(value) is int and value >= 0 else None


def _restarts(value: Any) -> list[dict[str, Any]]:
    keys = ("round", "restored_rounds")
    found = [
        {"site": str(entry.get("site", "")), **{key: count(entry.get(key)) for key in keys}}
        for entry in map(_mapping, _list(value))
    ]
    return [entry for entry in found if None not in entry.values()]


def _round(value: Any, place: int) -> Round:
    entry = _mapping(value)
    known = count(entry.get("round"))
    return Round(
        number=place if known is None else known,
        score=number(entry.get("score")),
        answers={site: answer(report) for site, report in _mapping(entry.get("sites")).items()},
        agreement=_agreement(entry.get("agreement")),
        limits=_limits(entry["limits"]) if isinstance(entry.get("limits"), Mapping) else None,
    )


def _limits(entry: Mapping[str, Any]) -> Limits:
    clipped, weights = {}, {}
    for site, change in _mapping(entry.get("clipped")).items():
        length, kept = (number(_mapping(change).get(name)) for name in ("length", "kept"))
        if length is not None and kept is not None:
            clipped[site] = length, kept
    for site, cases in _mapping(entry.get("weights")).items():
        claimed, counted = (count(_mapping(cases).get(name)) for name in ("claimed", "counted"))
        if claimed is not None and counted is not None:
            weights[site] = claimed, counted
    return Limits(
        usual=number(entry.get("usual")), longest=number(entry.get("longest")), clipped=clipped, weights=weights
    )


def _agreement(value: Any) -> Agreement | None:
    entry = _mapping(value)
    sites, rows = _texts(entry.get("sites")), [_list(row) for row in _list(entry.get("cosines"))]
    norms = [number(norm) for norm in _list(entry.get("norms"))]
    if not sites or len(norms) != len(sites) or [len(row) for row in rows] != [len(sites)] * len(sites):
        return None
    return Agreement(
        sites=sites,
        norms={site: norm for site, norm in zip(sites, norms, strict=True) if norm is not None},
        cosines={
            (one, other): number(rows[i][j]) for i, one in enumerate(sites) for j, other in enumerate(sites) if i < j
        },
    )


def _views(value: Any) -> dict[str, Metrics]:
    return {view: _metrics(found) for view, found in _mapping(current_views(value)).items() if view in VIEWS}


def _metrics(value: Any) -> Metrics:
    found = _mapping(value)
    values = {str(name): known for name, v in found.items() if name != "n" and (known := number(v)) is not None}
    rows = tuple(tuple(_list(row)) for row in _list(found.get("confusion_matrix")))
    whole = all(len(row) == len(rows) and all(count(cell) is not None for cell in row) for row in rows)
    return Metrics(values=values, n=count(found.get("n")), confusion=rows if whole else ())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for item in _list(value) if isinstance(item, str)))
