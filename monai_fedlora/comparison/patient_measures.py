"""What methods are compared by beside the key metric: further numbers of every patient, such as Dice on the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.score_differences import MethodDifference, MethodMean, ScoreTable


@dataclass(frozen=True, kw_only=True)
class PatientMeasure:
    """A measure of patients with the methods' means and their differences to the first method.

    Attributes:
        word: for it.
        means: of the methods that have one, in the order in which they were named.
        differences: each of the others against the first.
        best: the best method, if the interval of its difference to the next one excludes none.
    """

    word: str
    means: Sequence[MethodMean]
    differences: Sequence[MethodDifference]
    best: str | None

    @property
    def detectable(self) -> float | None:
        """The largest of the differences that are found in 80 % of repetitions."""
        found = [each.here.detectable for each in self.differences if each.here.detectable is not None]
        return max(found, default=None)


def patient_measures(scores: Iterable[CaseScore], methods: Sequence[str], measures: Measures) -> list[PatientMeasure]:
    """Compare methods by the further measures of their task that patients have."""
    scores, found = list(scores), []
    for word, measured in measures.by_patient.items():
        table = ScoreTable((replace(each, score=measured(each.more)) for each in scores), measures)
        means = [mean for method in methods if (mean := table.alone(method))]
        if means:
            reference, *others = (mean.method for mean in means)
            order = sorted(means, key=lambda mean: measures.better(0.0, mean.value))
            found.append(
                PatientMeasure(
                    word=word,
                    means=means,
                    differences=table.against(reference, others),
                    best=best_of(table, [mean.method for mean in order], measures),
                )
            )
    return found


def best_of(table: ScoreTable, order: Sequence[str], measures: Measures) -> str | None:
    """The first of methods in order, if the interval of its difference to the next excludes none.

    Means are over all runs of a method, the difference is over those that both have; where they disagree, none is best.
    """
    found = table.between(*order[:2]) if len(order) > 1 else None
    agree = found and measures.better(0.0, found.difference) < 0
    return found.method if found and agree and found.here.excludes_none else None
