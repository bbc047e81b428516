"""When a site was at work: notes that every system writes alike, and what follows from them."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

EVENTS = "FRAMEWORKS_EVENTS"
"""Environment variable: the file that takes the notes of all processes."""

TASK = "task"
"""From having the server's tensors to having the answer."""
EPOCHS = "epochs"
"""A task's local epochs alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that a site did.

    Attributes:
        what: ``TASK`` or ``EPOCHS``.
        site: its name.
        round: counted from 0.
        started, ended: seconds of the machine's clock.
    """

    what: str
    site: str
    round: int
    started: float
    ended: float


@contextmanager
def noted(what: str, *, site: str, round_number: int) -> Iterator[None]:
    """Note that a site did something in this context."""
    started = time.time()
    yield
    span = Span(what=what, site=site, round=round_number, started=started, ended=time.time())
    with open(os.environ[EVENTS], "a", encoding="utf-8") as stream:  # one short write, which processes do not mix
        stream.write(json.dumps(asdict(span)) + "\n")


def read(path: Path) -> list[Span]:
    """The notes in a file."""
    return [Span(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(spans: Sequence[Span], *, epochs: int) -> dict[str, float]:
    """Median seconds of local epochs and rounds.

    A round lasts from its first task to the next round's first task, so that everything between two rounds counts.
    The first round, in which everything is new, is reported apart or left out, and so is the last one, which no other
    follows.

    Args:
        spans: of three rounds at least.
        epochs: per task.

    Returns:
        ``first_epoch_seconds`` and ``epoch_seconds`` of a site; ``task_seconds`` of one that has what it needs;
        ``round_seconds``; and ``beyond_training_seconds``, that part of a round in which no site trains.
    """
    tasks, trainings = _by_round(spans, TASK), _by_round(spans, EPOCHS)
    first, last = min(tasks), max(tasks)
    if last - first < 2:
        raise ValueError(f"rounds {first} to {last} are too few: the first and the last do not count")
    starts = {number: min(span.started for span in tasks[number]) for number in tasks}
    rounds = range(first + 1, last)
    lengths = {number: starts[number + 1] - starts[number] for number in rounds}
    idle = [lengths[number] - covered((span.started, span.ended) for span in trainings[number]) for number in rounds]
    later = [number for number in tasks if number > first]
    return {
        "first_epoch_seconds": _median_length(trainings[first]) / epochs,
        "epoch_seconds": _median_length([span for number in later for span in trainings[number]]) / epochs,
        "task_seconds": _median_length([span for number in later for span in tasks[number]]),
        "round_seconds": statistics.median(lengths.values()),
        "beyond_training_seconds": statistics.median(idle),
    }


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_round(spans: Sequence[Span], what: str) -> dict[int, list[Span]]:
    found = defaultdict(list)
    for span in spans:
        if span.what == what:
            found[span.round].append(span)
    return found


def _median_length(spans: Sequence[Span]) -> float:
    return statistics.median(span.ended - span.started for span in spans)
