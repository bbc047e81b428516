"""What a finished network says of its site's cases: logits, and the vectors its heads read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from monai_fedlora.engines.dataset import CaseDataset, collate_cases, prepare_cases
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.orders import runs, unknown_orientations
from monai_fedlora.engines.precision import Precision, autocast, computing
from monai_fedlora.networks.head_inputs import head_inputs, joined
from monai_fedlora.out_of_memory import EVALUATING, memory_told


def run_and_keep(evaluator: Any) -> dict[str, Tensor]:
    """Run an evaluator as it is, and keep what the network gave before it became probabilities.

    Returns:
        ``logits`` (N, C) in float32 and ``labels`` (N,), in the order of the cases; nothing without a case.
    """
    batches: list[tuple[Tensor, Tensor]] = []

    def keep(engine: Any) -> None:
        output = engine.state.output
        batches.append((output[Keys.PRED].detach().float().cpu(), output[Keys.LABEL].detach().long().cpu().flatten()))

    handle = evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, keep)
    try:
        evaluator.run()
    finally:
        handle.remove()
    if not batches:
        return {}
    logits, labels = zip(*batches, strict=True)
    return {"logits": torch.cat(logits), "labels": torch.cat(labels)}


@contextmanager
def scoring(evaluator: Any, score: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Keep what an evaluator's run inside the block says of every case.

    Args:
        evaluator: whose items have a ``subject``.
        score: given a case's decollated output, numbers by name.

    Yields:
        A list, to which the run adds ``case`` and the numbers of every case, in the order of the cases.
    """
    rows: list[dict[str, Any]] = []

    def keep(engine: Any) -> None:
        pairs = zip(engine.state.batch, engine.state.output, strict=True)
        rows.extend({"case": str(item["subject"]), **score(output)} for item, output in pairs)

    handle = evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
    try:
        yield rows
    finally:
        handle.remove()


def plain_outputs(
    network: Any,
    dataset: CaseDataset,
    *,
    inferer: Callable[..., Tensor],
    device: torch.device,
    batch_size: int,
    mixed_precision: Precision = "off",
) -> dict[str, Tensor]:
    """Run a network on the cases of a data set without their augmentation.

    Args:
        network: on ``device``.
        dataset: of the cases.
        inferer: as in evaluation.
        device: where to compute.
        batch_size: cases at a time.
        mixed_precision: of the run, in which its evaluations compute, so that what these have kept is used again.

    Returns:
        ``logits`` (N, C) and ``features`` (N, D), what the heads read, in float32, and ``labels`` (N,), in the order of
        the cases; nothing without a case, no features where the network does not show them, and no labels where a
        case has none. Of a cine whose file
        does not tell an orientation, both are means over all orders of its axes.
    """
    found: dict[str, list[Tensor]] = {"logits": [], "features": [], "labels": []}
    precision = autocast(device, mixed_precision)
    named = dataset.unopened() if isinstance(inferer, FrozenInferer) and inferer.keeps(network) else nullcontext()
    told = memory_told(f"evaluating on {device}", *EVALUATING)
    with (
        told,
        computing(network, mixed_precision),
        eval_mode(network),
        head_inputs(network) as inputs,
        torch.no_grad(),
        named,
    ):
        for start in range(0, len(dataset), batch_size):
            cases = range(start, min(start + batch_size, len(dataset)))
            batch = collate_cases([dataset.plain(index) for index in cases])
            images, labels = prepare_cases(batch, device)
            if labels is not None:
                found["labels"].append(torch.as_tensor(labels).long().cpu().flatten())
            for shown, together in runs(images, unknown_orientations(batch)):
                with precision():
                    logits = inferer(shown, network).float().cpu()
                found["logits"].append(logits.mean(dim=0, keepdim=True) if together else logits)
                if inputs:
                    features = joined(inputs).float().cpu()
                    found["features"].append(features.mean(dim=0, keepdim=True) if together else features)
    return {name: torch.cat(rows) for name, rows in found.items() if rows}
