"""Open an exported bundle as a classifier, without training code.

Only the TorchScript module computes; of the configuration plain values are read, and no expression is evaluated.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ConfigError, DataError, FedLoraError, WeightsError
from monai_fedlora.files import read_json, sha256

CINE, IMAGE = "cine", "image"
_MODALITIES = {"MR": CINE, "photograph": IMAGE}
_CONFIGS = ("metadata.json", "inference.json")


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """An exported model, ready to use.

    Attributes:
        folder: the bundle.
        name: as its metadata say.
        version: as its metadata say.
        sha256: of ``models/model.ts``, which holds weights, preprocessing and metadata.
        classes: names, in the order of the logits.
        modality: "cine" or "image".
        style: of photographs: "dermoscopy", "fundus" or "plain"; None for cines.
        resampling: arguments of MONAI's ``Spacing`` before the model; None for photographs.
        script: the TorchScript module: ``preprocessor``, then ``network``.
        device: where it computes.
    """

    folder: Path
    name: str
    version: str
    sha256: str
    classes: tuple[str, ...]
    modality: str
    style: str | None
    resampling: Mapping[str, Any] | None
    script: torch.jit.ScriptModule
    device: torch.device

    def probabilities(self, image: Tensor) -> tuple[float, ...]:
        """Classify one image.

        Args:
            image: cine (2, X, Y, Z), resampled; photograph (3, H, W) in [0, 1].

        Returns:
            Softmax of the logits, by class.

        Raises:
            DataError: the model refuses the image, or gives something that is not finite.
        """
        found = self._run(self.script, image).softmax(dim=1)[0].cpu()
        if len(found) != len(self.classes):
            raise DataError(f"the model gives {len(found)} classes, and its metadata name {', '.join(self.classes)}")
        if not bool(torch.isfinite(found).all()):
            raise DataError("the prediction is not finite; the image or the model is damaged")
        return tuple(found.double().tolist())

    def prepare(self, image: Tensor) -> Tensor:
        """What the network itself sees of an image as of :meth:`probabilities`; without the batch, on the CPU."""
        return self._run(self.script.preprocessor, image)[0].cpu()

    def log_probabilities(self, prepared: Tensor) -> Tensor:
        """(classes,) natural logarithms of the probabilities for what :meth:`prepare` gave."""
        return self._run(self.script.network, prepared).log_softmax(dim=1)[0].cpu()

    def _run(self, module: torch.jit.ScriptModule, image: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                return module(image[None].to(self.device))
        except (RuntimeError, torch.jit.Error) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise DataError(f"the model refuses this image: {reason.partition('Error: ')[2] or reason}") from error


def open_bundle(path: str | Path) -> Classifier:
    """Read a bundle as `monai-fedlora export` writes it, onto a GPU if there is one.

    Args:
        path: the bundle's folder.

    Raises:
        ConfigError: there is no such bundle, or its configuration is not one that an export writes.
        WeightsError: ``model.ts`` is damaged, or carries another configuration than the folder.
    """
    folder = Path(path).absolute()
    model = folder / "models" / "model.ts"
    if not model.is_file():
        raise ConfigError(
            f"{folder} is no exported bundle: it has no models/model.ts; make one with monai-fedlora export"
        )
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    script, embedded = _load(model, device)
    found = {name: _config(folder / "configs" / name) for name in _CONFIGS}
    for name, content in found.items():
        if embedded[name] != content:
            raise WeightsError(
                f"{model} carries another {name} than the folder does: files of two bundles were mixed, or one was "
                "changed; export the bundle again"
            )
    metadata, inference = found["metadata.json"], found["inference.json"]
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        modality = _MODALITIES[image["modality"]]
        return Classifier(
            folder=folder,
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            sha256=sha256(model),
            classes=tuple(str(channels[str(index)]) for index in range(len(channels))),
            modality=modality,
            style=str(image["style"]) if modality == IMAGE else None,
            resampling=_resampling(inference) if modality == CINE else None,
            script=script,
            device=device,
        )
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigError(f"{folder}/configs is not what monai-fedlora export writes: {error!r} is missing") from error


def _load(model: Path, device: torch.device) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    extra: dict[str, Any] = dict.fromkeys(_CONFIGS, "")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
            script = torch.jit.load(str(model), map_location=device, _extra_files=extra)
        return script.eval(), {name: json.loads(content) for name, content in extra.items()}
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{model} cannot be read ({reason}); copy it again from the source") from error


def _config(path: Path) -> Any:
    try:
        return read_json(path)
    except FedLoraError as error:
        raise ConfigError(f"{error}; an exported bundle has it") from error


def _resampling(inference: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``Spacingd``; they hold no expression, because nothing here would evaluate it."""
    steps = inference["preprocessing"]["transforms"]
    spacing = next(step for step in steps if step["_target_"] == "Spacingd")
    return {name: value for name, value in spacing.items() if name not in ("_target_", "keys")}
