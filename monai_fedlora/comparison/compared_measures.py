"""What the methods of a comparison are compared by, from its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monai_fedlora.tasks.task import CONFUSION, Task

_AREA = "auroc"
_FIRST = ("balanced_accuracy", _AREA, "sensitivity", "specificity", "mcc", "accuracy", "ece")
"""Order of the columns of those metrics that a task has."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What methods are compared by.

    Attributes:
        key: the metric that they are ranked and tested by, see :attr:`monai_fedlora.tasks.task.Task.key`.
        word: for it.
        lower_is_better: whether a smaller value is the better one.
        columns: every metric of a row.
        further: words for the metrics that tables have beside the key.
        by_class: whether the key is a mean over classes.
        chance: value of the key by chance with all classes; None where there is no such level.
        by_cases: whether sites count by their numbers of test cases in means over sites; otherwise all alike.
        named: what the task's names are, in the plural.
        by_patient: see :attr:`monai_fedlora.tasks.task.Task.by_patient`.
    """

    key: str
    word: str
    lower_is_better: bool
    columns: tuple[str, ...]
    further: Mapping[str, str]
    by_class: bool
    chance: float | None
    named: str
    by_cases: bool = False
    by_patient: Mapping[str, Callable[[Mapping[str, float | None]], float | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task, names: Sequence[str], *, by_cases: bool = False) -> Measures:
        """Those of a task and of its classes, structures or values."""
        more = dict(task.more(names))
        known = {**task.measures, **more}
        return cls(
            key=task.key,
            word=task.word,
            lower_is_better=task.lower_is_better,
            columns=tuple(dict.fromkeys([*(name for name in _FIRST if name in known), *known])),
            further={name: word for name, word in task.measures.items() if name == _AREA} | more,
            by_class=task.by_class,
            chance=1 / len(names) if CONFUSION in task.sections else None,
            named=task.named,
            by_cases=by_cases,
            by_patient=task.by_patient(names),
        )

    @property
    def title(self) -> str:
        """The word as a sentence begins with it."""
        return self.word[0].upper() + self.word[1:]

    def better(self, one: float, other: float) -> float:
        """By how much one value is better than another."""
        return other - one if self.lower_is_better else one - other
