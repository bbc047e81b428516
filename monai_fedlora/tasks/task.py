"""What differs between tasks; sites, methods, caches, jobs and reports are the same for all.

A batch and a round pass a task at these places: :attr:`Task.target` takes from a batch what the loss compares with,
:attr:`Task.loss` compares, :attr:`Task.metrics` sums up an evaluation, and :attr:`Task.form` says which of these
numbers may leave the site; the server chooses the best round by :attr:`Task.key`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import nn

from monai_fedlora.data.collected import TargetKind
from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.site_report import MOST_CLASSES, MetricsForm

OUTPUTS = "outputs"
"""Section of results: logits and labels, which calibration is measured on."""
FEATURES = "features"
"""Section of results: inputs of the heads, which unusual images are measured on."""
CONFUSION = "confusion"
"""Section of results: confusion matrices, and with them calibration errors and levels of chance."""
SCORE = "score"
"""Name of a case's score, see :attr:`Task.scores`."""
MEMBERSHIP = "membership"
"""Section of results: the membership audit, which attacks class probabilities."""
EXPORT = "export"
"""Section of results: a bundle that runs without this package."""


class AgreementNames(NamedTuple):
    """The metrics of how well a number agrees with its reference (Bland and Altman, Lancet 1986).

    Attributes:
        unit: of the number and of all of them; empty where it is not known.
        bias: mean of the differences, found minus reference.
        low, high: limits of agreement, 1.96 standard deviations of the differences below and above the bias.
    """

    unit: str
    bias: str
    low: str
    high: str


class MakeLoss(Protocol):
    """Builds a loss of the network's outputs and a batch's targets."""

    def __call__(
        self,
        *,
        names: int,
        cases: Sequence[Mapping[str, Any]],
        class_weights: Any,
        label_smoothing: float,
        device: Any,
    ) -> nn.Module:
        """Build it.

        Args:
            names: how many classes, structures or values there are.
            cases: the training cases.
            class_weights, label_smoothing: training settings; a task that has none refuses others than None and 0.
            device: where to compute.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.

    Attributes:
        name: as plans and datalists write it.
        named: what its names are, in the plural: classes, structures, values.
        least_names, most_names: how many it needs, and how many it can have.
        listed_as: what a datalist may call it.
        outputs: number of the head's outputs, by number of names.
        check_output: given the shape of a network's output for one image and that of the image, says what is wrong;
            None if nothing is.
        channels: given the same two shapes, the number of outputs.
        gives_logits: whether the loss takes a softmax of the outputs.
        gives_masks: whether the outputs are of every voxel, so that a network of the catalogue needs its decoder.
        collected: how a Python program gives the targets of cases.
        prepare: takes images, or their names, and targets from a batch.
        along: keys of an item that change with the image wherever it is augmented.
        loss: see :class:`MakeLoss`.
        metrics: given the name of the metric that decides and the names, a new Ignite metric.
        postprocessing: of an evaluation's decollated outputs; None for none.
        predictions: given ``output_dir``, ``names``, ``filename`` and ``labels``, a handler that writes what an
            evaluation found of every case.
        on_files: given ``dataset``, ``names``, ``size`` and ``output_dir``, a handler that adds to an evaluation's
            metrics what it measures on the grids of the cases' own files, and writes it by case into the folder, if
            there is one; None for a task without such measures.
        file_measures: words for those of them that the table of a run begins with.
        form: which metrics may leave a site, by names.
        key: the metric of curves, comparisons and of the choice of the best round.
        measures: words for the metrics of tables, :attr:`key` first.
        lower_is_better: whether a smaller :attr:`key` is the better one.
        ends: lowest and highest value of the key on an axis; None where these follow from the values.
        more: given the names, words for further metrics of tables, one for each name.
        agreements: given the names, the metrics of each number that is compared with a reference.
        counted: given the names, the metric that counts the cases behind another one, for those that not all cases
            have.
        sections: further parts of results that this task has, see :data:`OUTPUTS` and those below it.
        scores: given a case's decollated output with ``pred`` and ``label``, and the names, numbers by name: first
            :data:`SCORE`, whose mean over cases is :attr:`key`, then finer ones; None or NaN where undefined. None for
            a task that tells nothing of single cases.
        by_patient: given the names, what patients are compared by beside the score: words with what gives the number
            (better and worse as the score is) from the finer ones of :attr:`scores`, or None.
        by_class: whether the key is the mean of the classes' mean scores in place of that of all cases.
        settings: training settings of its own in place of a classification bundle's.
        scaled: given the scale of a datalist's values, the task with targets on that scale; None for tasks without.
    """

    name: str
    named: str
    least_names: int
    listed_as: tuple[str, ...]
    outputs: Callable[[int], int]
    check_output: Callable[[tuple[int, ...], tuple[int, ...]], str | None]
    collected: TargetKind
    prepare: PrepareCases
    loss: MakeLoss
    metrics: Callable[[str, Sequence[str]], EpochMetrics]
    postprocessing: Callable[[], Any]
    predictions: Callable[..., Any]
    form: Callable[[Sequence[str]], MetricsForm]
    key: str
    measures: Mapping[str, str]
    gives_logits: bool = True
    gives_masks: bool = False
    on_files: Callable[..., Any] | None = None
    file_measures: Mapping[str, str] = field(default_factory=dict)
    channels: Callable[[tuple[int, ...], tuple[int, ...]], int] = lambda output, image: output[1]
    most_names: int = MOST_CLASSES
    lower_is_better: bool = False
    ends: tuple[float, float] | None = (0.0, 1.0)
    more: Callable[[Sequence[str]], Mapping[str, str]] = lambda names: {}
    agreements: Callable[[Sequence[str]], Mapping[str, AgreementNames]] = lambda names: {}
    counted: Callable[[Sequence[str]], Mapping[str, str]] = lambda names: {}
    along: tuple[str, ...] = ()
    sections: frozenset[str] = frozenset()
    scores: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, float | None]] | None = None
    by_patient: Callable[[Sequence[str]], Mapping[str, Callable[[Mapping[str, float | None]], float | None]]] = (
        lambda names: {}
    )
    by_class: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    scaled: Callable[[Sequence[tuple[float, float]]], Task] | None = None

    @property
    def word(self) -> str:
        """Word for the key metric."""
        return self.measures[self.key]

    def on(self, scale: Sequence[tuple[float, float]]) -> Task:
        """The task with targets on a scale; itself where there is none, or where it knows none."""
        return self.scaled(scale) if self.scaled is not None and scale else self

    def names_of_outputs(self, outputs: int) -> int:
        """The number of names that a head of so many outputs has."""
        return outputs - self.outputs(0)


def no_postprocessing() -> None:
    """Leave outputs as they are."""
