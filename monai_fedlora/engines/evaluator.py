"""The evaluation engine: MONAI's, with bf16 on any device and a selectable key metric."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents, default_metric_cmp_fn
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_fedlora.engines.dataset import PrepareCases, prepare_cases
from monai_fedlora.engines.distributed import unwrap
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.engines.features import unopened_images
from monai_fedlora.engines.orders import mean_logits, mean_maps, unknown_orientations
from monai_fedlora.engines.precision import Precision, autocast, computing
from monai_fedlora.out_of_memory import EVALUATING, memory_told

_log = logging.getLogger(__name__)


class CaseEvaluator(SupervisedEvaluator):
    """Evaluate a network on batches with ``image`` and, where known, targets such as ``label``.

    Of a cine whose file does not tell an orientation, the logits are averaged over all orders of its axes; those on the
    image's grid are turned back before.

    Args:
        device: where to compute.
        val_data_loader: batches.
        network: maps (B, ...) images to logits (B, C, ...), returned in float32.
        mixed_precision: "off", "tf32" or "bf16", see :func:`~monai_fedlora.engines.precision.autocast`.
        key_val_metric: an :class:`EpochMetrics`, whose ``key`` then names and compares the best
            epoch, or a dictionary as in MONAI; None evaluates without labels.
        inferer, postprocessing, additional_metrics, val_handlers, prepare_batch: as in MONAI.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        device: torch.device | str,
        val_data_loader: Iterable | DataLoader,
        network: nn.Module,
        mixed_precision: Precision = "off",
        key_val_metric: EpochMetrics | dict[str, Any] | None = None,
        inferer: Inferer | None = None,
        postprocessing: Any | None = None,
        additional_metrics: dict[str, Any] | None = None,
        val_handlers: Sequence | None = None,
        prepare_batch: Callable = prepare_cases,
    ) -> None:
        self._autocast = autocast(device, mixed_precision)
        self._precision: Precision = mixed_precision
        compare: Callable = default_metric_cmp_fn
        if isinstance(key_val_metric, EpochMetrics):
            compare, key_val_metric = key_val_metric.better, {key_val_metric.key: key_val_metric}
        super().__init__(
            device=torch.device(device),
            val_data_loader=val_data_loader,
            network=unwrap(network),
            inferer=inferer,
            postprocessing=postprocessing,
            key_val_metric=key_val_metric,
            additional_metrics=additional_metrics,
            metric_cmp_fn=compare,
            val_handlers=val_handlers,
            prepare_batch=prepare_batch,
            non_blocking=True,
        )

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate once; without a case, leave no metric behind.

        Args:
            global_epoch: the training epoch this belongs to, counted from 1.

        Raises:
            OutOfMemory: memory ran out.
        """
        self.state.metrics, self.state.metric_details = {}, {}
        if self.state.epoch_length == 0:
            _log.warning("the split is empty: nothing is evaluated")
            return
        with (
            memory_told(f"evaluating on {self.state.device}", *EVALUATING),
            computing(self.network, self._precision),
            unopened_images(self),
        ):
            super().run(global_epoch)

    def _iteration(self, engine: Any, batchdata: Any) -> dict:
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        if labels is not None and isinstance(self.prepare_batch, PrepareCases):
            labels = self.prepare_batch.target(batchdata)  # which is on the processor already
        self.state.output = {Keys.LABEL: labels, **({Keys.IMAGE: images} if isinstance(images, Tensor) else {})}
        with self.mode(self.network), self._autocast():
            if isinstance(self.prepare_batch, PrepareCases) and self.prepare_batch.turns:
                logits = mean_maps(images, batchdata, lambda some: self.inferer(some, self.network))
            else:
                unknown = unknown_orientations(batchdata)
                logits = mean_logits(images, unknown, lambda some: self.inferer(some, self.network))
            self.state.output[Keys.PRED] = logits.float().cpu()  # what a batch waits for
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output


ClassificationEvaluator = CaseEvaluator
"""Its name in the configurations of bundles of earlier versions."""
