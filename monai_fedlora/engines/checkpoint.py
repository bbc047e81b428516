"""Checkpoints of the trainable part alone, as safetensors, loaded completely or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor, nn

from monai_fedlora.engines.distributed import is_main, unwrap
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import load_tensors, save_tensors

_log = logging.getLogger(__name__)

FORMAT = "1"
BEST = "best.safetensors"
LAST = "last.safetensors"
_FROZEN = "frozen_sha256"
_TRAINED = "trained_sha256"
_NAMES_SHOWN = 5


def trainable_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The parameters that require a gradient, by their state-dict key."""
    return {name: p.detach() for name, p in unwrap(network).named_parameters() if p.requires_grad}


def frozen_sha256(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of the parameters that do not train.

    It tells two backbones apart whatever file they came from.
    """
    return _digest({name: p.detach() for name, p in unwrap(network).named_parameters() if not p.requires_grad})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FrozenDigest:
    """:func:`frozen_sha256` of a network that trains, computed anew only when a frozen parameter has changed.

    A change is another parameter, memory, type or shape, or one that autograd counts, as every operation in place and
    ``load_state_dict`` is. What is written through ``.data`` alone is not noticed.

    Args:
        network: to hash.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = unwrap(network)
        self._seen: Sequence[object] = ()
        self._digest = ""

    def __call__(self) -> str:
        """Hexadecimal digits."""
        frozen = [(name, p) for name, p in self._network.named_parameters() if not p.requires_grad]
        seen = [(name, id(p), p._version, p.data_ptr(), p.dtype, p.shape) for name, p in frozen]
        if not self._digest or seen != self._seen:
            self._digest, self._seen = frozen_sha256(self._network), seen
        return self._digest


def save_checkpoint(
    path: Path, network: nn.Module, settings: Mapping[str, Any], *, frozen: FrozenDigest | None = None
) -> None:
    """Write the trainable tensors and what they belong to.

    Args:
        path: the safetensors file.
        network: the network, attached to its method.
        settings: JSON-compatible values that :func:`load_checkpoint` can compare, such as the method.
        frozen: of the network, for one that is saved again and again; None hashes what is frozen now.
    """
    tensors = trainable_tensors(network)
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(dict(settings), sort_keys=True),
        _TRAINED: _digest(tensors),
        _FROZEN: frozen_sha256(network) if frozen is None else frozen(),
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(path: str | Path, network: nn.Module, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Copy a checkpoint into ``network``; on any disagreement nothing is changed.

    Args:
        path: a file of :func:`save_checkpoint`.
        network: built and attached as it was for training.
        settings: values the checkpoint must have been trained with; None compares only the tensors.

    Returns:
        The settings stored in the file.

    Raises:
        WeightsError: the file is missing, damaged or of another kind; its settings, frozen weights, keys or
            shapes are not this network's; or a tensor is not finite.
    """
    if not Path(path).is_file():
        raise WeightsError(f"there is no checkpoint {path}; train first, or give the path of one")
    tensors, metadata = load_tensors(path)
    stored = _settings(path, metadata)
    for name, value in (settings or {}).items():
        value = json.loads(json.dumps(value))
        if stored.get(name) != value:
            raise WeightsError(f"{path} was trained with {name} {stored.get(name)!r}, and this network has {value!r}")
    targets = trainable_tensors(network)
    if tensors.keys() != targets.keys():
        missing, unexpected = targets.keys() - tensors.keys(), tensors.keys() - targets.keys()
        raise WeightsError(
            f"{path} does not fit this network: missing {_names(missing)}, unexpected {_names(unexpected)}; "
            "use the method and its settings of the training"
        )
    for name, tensor in tensors.items():
        if tensor.shape != targets[name].shape or tensor.dtype != targets[name].dtype:
            raise WeightsError(
                f"{path}: {name} is {tensor.dtype}{list(tensor.shape)}, "
                f"and this network needs {targets[name].dtype}{list(targets[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: {name} holds NaN or infinity; the training diverged")
    if metadata.get(_TRAINED) != _digest(tensors):
        raise WeightsError(f"{path} is damaged: its tensors are not the ones that were saved; copy it again")
    if metadata.get(_FROZEN) != frozen_sha256(network):
        raise WeightsError(f"{path} was trained on another backbone than the one loaded; give the same backbone file")
    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)
    return stored


def with_checkpoint(network: nn.Module, *, path: str | Path, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """Return ``network`` after :func:`load_checkpoint`; for configs."""
    load_checkpoint(path, network, settings)
    return network


def _settings(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        if metadata["format"] != FORMAT:
            raise WeightsError(f"{path} has checkpoint format {metadata['format']!r}; this version reads {FORMAT}")
        settings = json.loads(metadata["settings"])
        if not isinstance(settings, dict):
            raise TypeError("its settings are not an object")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a checkpoint of this package ({error})") from error
    return settings


def _names(keys: set[str]) -> str:
    shown = ", ".join(sorted(keys)[:_NAMES_SHOWN]) or "nothing"
    return f"{shown} and {len(keys) - _NAMES_SHOWN} more" if len(keys) > _NAMES_SHOWN else shown


class CheckpointSaver:
    """Handler that keeps the last epoch's and the best epoch's trainable tensors.

    Attach it to the trainer behind the validation. The best epoch is the one that the evaluator's key metric
    says; the first process alone writes.

    Args:
        network: what to save.
        evaluator: the validation engine.
        output_dir: receives ``last.safetensors`` and ``best.safetensors``.
        settings: see :func:`save_checkpoint`; the epoch and the key metric's value are added.
        enabled: False turns the handler off.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        evaluator: Evaluator,
        output_dir: str | Path,
        settings: Mapping[str, Any],
        enabled: bool = True,
    ) -> None:
        self.network = network
        self.evaluator = evaluator
        self.output_dir = Path(output_dir)
        self.settings = dict(settings)
        self.enabled = enabled
        self._frozen = FrozenDigest(network)

    def attach(self, engine: Engine) -> None:
        """Save at the end of each of ``engine``'s epochs."""
        if self.enabled and is_main():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
            engine.add_event_handler(Events.COMPLETED, self._report)

    def _save(self, engine: Engine) -> None:
        scores, epoch = self.evaluator.state, engine.state.epoch
        is_best = scores.best_metric_epoch == epoch
        value = scores.metrics.get(scores.key_metric_name)
        settings = {**self.settings, "epoch": epoch, "key_metric": scores.key_metric_name, "value": value}
        for name in (LAST, BEST) if is_best else (LAST,):
            save_checkpoint(self.output_dir / name, self.network, settings, frozen=self._frozen)

    def _report(self, engine: Engine) -> None:
        scores = self.evaluator.state
        if scores.best_metric_epoch > 0:
            _log.info(
                "best epoch %d, %s %.4f: %s",
                scores.best_metric_epoch,
                scores.key_metric_name,
                scores.best_metric,
                self.output_dir / BEST,
            )
        else:
            _log.warning(
                "no epoch could be told from another, because %s was undefined on the validation cases (those of one "
                "class have no balanced accuracy); there is no %s, and %s has the last epoch",
                scores.key_metric_name,
                BEST,
                self.output_dir / LAST,
            )
