"""What a site's two models say of its cases: the personal one, and the shared one without the private part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep, scoring
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods import Method
from monai_fedlora.scope import Role, Scope
from monai_fedlora.site_report import PERSONAL, SHARED, round_metrics
from monai_fedlora.tasks.task import FEATURES, OUTPUTS

Said = tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]
"""Metrics, logits and labels, and what the task says of every case."""


@dataclass(frozen=True, kw_only=True)
class SiteEvaluation:
    """Runs the evaluators of a site's bundle.

    Attributes:
        plan: the experiment.
        method: of the site.
        network: attached to it.
        scope: roles of the network's tensors.
        config: the bundle's configuration.
        bundled: builds a part of it.
        uses: is told every inferer.
        units: a number per patient, by split.
    """

    plan: Plan
    method: Method
    network: nn.Module
    scope: Scope
    config: ConfigParser
    bundled: Callable[[str], Any]
    uses: Callable[[Any], None]
    units: Mapping[str, Sequence[int]]

    def of_both(
        self, split: str, before: Mapping[str, Said | None] | None = None, *, personal: bool = True
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor], list[dict[str, Any]]]:
        """The metrics of both views, logits and labels of the personal one and logits of the shared one, and scores.

        Where nothing is private and nothing was trained further, both are one model, which is evaluated once.

        Args:
            split: "validate" or "test".
            before: by split what the shared model has said already, see :meth:`of_shared`; it is asked otherwise.
            personal: whether there is a personal model; without, its view is left out.
        """
        views: dict[str, dict[str, Any]] = {}
        kept, rows = dict[str, Tensor](), list[dict[str, Any]]()
        found: Said | None = None
        if personal:
            views[PERSONAL], kept, scores = found = self.of_network(split)
            rows = _of_view(PERSONAL, scores)
        said = before[split] if before else self.of_shared(split, found)
        if said is not None:
            views[SHARED], shared, scores = said
            rows += _of_view(SHARED, scores)
            if "logits" in shared:
                kept = {**kept, "shared_logits": shared["logits"]}
        return views, kept, rows

    def of_shared(self, split: str, personal: Said | None = None) -> Said | None:
        """What the evaluator finds of the shared model; None where the method has none.

        Args:
            split: "validate" or "test".
            personal: what it has found of the personal model, which is the same one where nothing is private.
        """
        context = self.method.shared_only(self.network)
        if context is None or (personal is not None and not self.scope.keys(Role.PRIVATE)):
            return None if context is None else personal
        with context:
            return self.of_network(split)

    def of_network(self, split: str) -> Said:
        """What the network says as it is: metrics, logits and labels, and scores of every case of the test split."""
        evaluator = self.bundled(f"{split}::evaluator")
        if len(evaluator.data_loader) == 0:
            return {}, {}, []
        self.uses(evaluator.inferer)
        task, rows = self.plan.task_of, list[dict[str, Any]]()
        with ExitStack() as stack:
            if split == "test" and task.scores is not None:
                rows = stack.enter_context(scoring(evaluator, _scored_by(task.scores, self.plan.classes)))
            if OUTPUTS in task.sections:
                kept = run_and_keep(evaluator)
            else:
                evaluator.run()
                kept = {}
        return round_metrics(evaluator.state.metric_details), kept, rows

    def plain_outputs(self) -> dict[str, Tensor]:
        """What the personal model says of the cases of every split without augmentation, and whose images they are."""
        found: dict[str, Tensor] = {}
        sections = self.plan.task_of.sections
        wanted = [
            *(["logits", "labels"] if OUTPUTS in sections else []),
            *(["features"] if FEATURES in sections else []),
        ]
        if not wanted:
            return found
        precision: Any = self.bundled("mixed_precision") if "mixed_precision" in self.config.get() else "off"
        for part, name in (("train", "training"), ("validate", "validation"), ("test", "test")):
            dataset = self.bundled(f"{part}::dataset")
            if not isinstance(dataset, CaseDataset):  # a hospital's own bundle may train on something else
                continue
            outputs = plain_outputs(
                self.network,
                dataset,
                inferer=self.bundled("validate::inferer"),
                device=self.bundled("device"),
                batch_size=self.bundled("batch_size"),
                mixed_precision=precision,
            )
            found |= {f"{name}/{key}": value for key, value in outputs.items() if key in wanted}
            if len(dataset) == len(self.units[name]):
                found[f"{name}/units"] = torch.tensor(self.units[name], dtype=torch.int64)
        return found


def _scored_by(
    scores: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]], names: Sequence[str]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda output: scores(output, names)


def _of_view(view: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"view": view, **row} for row in rows]
