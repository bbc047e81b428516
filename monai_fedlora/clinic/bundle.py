"""Open an exported bundle as a classifier, without training code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.clinic.answer_formats import gives_masks, gives_values
from monai_fedlora.clinic.opened_model import MODEL_NAME, OpenedModel, device_of, settings_of
from monai_fedlora.errors import ConfigError, DataError, WeightsError
from monai_fedlora.exporting.check.checker import check_contents
from monai_fedlora.exporting.check.contents import Contents, open_contents
from monai_fedlora.exporting.check.findings import FOREIGN, VERIFIED
from monai_fedlora.exporting.check.layout import PROGRAM, model_of
from monai_fedlora.exporting.check.provenance import NOT_MADE_HERE
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.exporting.reference import METHOD
from monai_fedlora.site_report import current_views


@dataclass(frozen=True, kw_only=True)
class Classifier(OpenedModel):
    """An exported model that classifies.

    Attributes:
        classes: names, in the order of the logits.
    """

    classes: tuple[str, ...]

    def probabilities(self, image: Tensor, affine: Tensor | None = None) -> tuple[float, ...]:
        """Classify one image.

        Args:
            image: cine (2, X, Y, Z); photograph (3, H, W) in [0, 1].
            affine: (4, 4) from the voxels of a cine to the world in mm; None for a cine of unknown orientation, which
                then needs the network's voxel size. A bundle that takes no affine ignores it and needs the image
                resampled.

        Returns:
            Softmax of the logits, by class.

        Raises:
            DataError: the model refuses the image, or its output is not finite.
            OutOfMemory: memory ran out.
            FedLoraError: the GPU has failed.
        """
        return self.assess(image, affine)[0]

    def assess(self, image: Tensor, affine: Tensor | None = None) -> tuple[tuple[float, ...], float | None]:
        """Classify one image, and measure how far it lies from the training cases.

        Args:
            image: as of :meth:`probabilities`.
            affine: as of :meth:`probabilities`.

        Returns:
            Softmax of the logits, by class; distance from the training cases, None if the bundle has no statistics.

        Raises:
            DataError: as of :meth:`probabilities`.
        """
        logits, distances = self.answer(image, affine)
        distance = None if distances is None else float(distances[0])
        found = logits.softmax(dim=1)[0].cpu()
        if len(found) != len(self.classes):
            raise DataError(f"the model gives {len(found)} classes, and its metadata name {', '.join(self.classes)}")
        if not (bool(torch.isfinite(found).all()) and (distance is None or math.isfinite(distance))):
            raise DataError("the prediction is not finite; the image or the model is damaged")
        return tuple(found.double().tolist()), distance

    def answer(self, image: Tensor, affine: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Run the module on one image; arguments as of :meth:`probabilities`.

        Returns:
            Logits (1, classes), and the distance (1) if the bundle has statistics, else None.

        Raises:
            DataError: the model refuses the image.
        """
        inputs = self.inputs(image, affine)
        if self.trust.ood_threshold is None:
            return self.run(self.script, *inputs), None
        return self.run(getattr(self.script, METHOD), *inputs)

    def batch_log_probabilities(self, prepared: Tensor) -> Tensor:
        """Natural logarithms of the probabilities (B, classes) for a batch (B, ...) of outputs of :meth:`prepare`."""
        return self.run(self.script.network, prepared).log_softmax(dim=1).cpu()


def open_bundle(
    path: str | Path, *, keys: Sequence[PublicKey] = (), device: torch.device | str | None = None
) -> Classifier:
    """Check and open a bundle as `monai-fedlora export` writes it.

    The bundle is copied to a private folder first; the copy is checked, loaded and removed, so that no file can be
    exchanged between check and loading.

    Args:
        path: the bundle's folder, or a zip that holds it.
        keys: public keys, one of which must have signed the bundle; without keys no signature is needed.
        device: where the model is to run; None takes the first GPU, or the CPU where there is none.

    Raises:
        ConfigError: this is no exported bundle, or its configuration is not what an export writes.
        ExportError: it cannot be read or copied.
        WeightsError: it does not pass ``monai-fedlora check`` (nothing is loaded before), or is damaged.
        OutOfMemory: the device has no room for it.
    """
    with open_with_files(path, keys=keys, device=device) as (classifier, _):
        return classifier


@contextmanager
def open_with_files(
    path: str | Path, *, keys: Sequence[PublicKey] = (), device: torch.device | str | None = None
) -> Iterator[tuple[Classifier, Contents]]:
    """Open a bundle as :func:`open_bundle` does, and yield the checked copy of its files with it.

    A caller that needs further files of the bundle must read them from this copy, never from the original.

    Args:
        path: as of :func:`open_bundle`.
        keys: as of :func:`open_bundle`.

    Raises:
        ConfigError, ExportError, WeightsError: as of :func:`open_bundle`.
    """
    with checked_files(path, keys=keys) as (bundle, contents):
        yield classifier_of(bundle, contents, device), contents


@contextmanager
def checked_files(path: str | Path, *, keys: Sequence[PublicKey] = ()) -> Iterator[tuple[Path, Contents]]:
    """Yield the path of a bundle and the checked copy of its files.

    Args:
        path: as of :func:`open_bundle`.
        keys: as of :func:`open_bundle`.

    Raises:
        ConfigError, ExportError, WeightsError: as of :func:`open_bundle`.
    """
    bundle = Path(path).absolute()
    if not (bundle.is_file() or any((bundle / name).is_file() for name in (MODEL_NAME, PROGRAM))):
        why = f"it has no {MODEL_NAME}" if bundle.exists() else "it does not exist"
        raise ConfigError(f"{bundle} is no exported bundle: {why}; make one with monai-fedlora export")
    with open_contents(bundle) as contents:
        report = check_contents(contents, bundle=bundle, keys=keys)
        if report.verdict == FOREIGN:
            raise ConfigError(f"{bundle} {NOT_MADE_HERE}; only bundles of monai-fedlora export can be opened here")
        if findings := report.findings:
            problems = "; ".join(f"{finding.file}: {finding.problem}" for finding in findings[:3])
            raise WeightsError(
                f"{bundle} does not pass monai-fedlora check ({problems}); do not use it, ask its maker for another"
            )
        if keys and report.signature != VERIFIED:
            raise WeightsError(f"{bundle} is not signed with a key that is trusted here; do not use it")
        if isinstance(contents, Contents) and model_of(contents) != MODEL_NAME:
            raise ConfigError(
                f"{bundle} takes arrays that its makers have prepared, and no image files; run it as its own "
                "docs/README.md says"
            )
        if not isinstance(contents, Contents) or MODEL_NAME not in contents.files:
            raise ConfigError(
                f"{bundle} is no exported bundle: it has no {MODEL_NAME}; make one with monai-fedlora export"
            )
        yield bundle, contents


def bundle_texts(contents: Contents) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of a bundle's ``metadata.json``, with today's names, and of its ``inference.json``."""
    metadata, inference = (json.loads(contents.read(f"configs/{name}.json")) for name in ("metadata", "inference"))
    return current_names(metadata), inference


def classifier_of(bundle: Path, contents: Contents, place: torch.device | str | None) -> Classifier:
    """The classifier of a checked bundle.

    Args:
        bundle: where it lies.
        contents: the checked copy of its files.
        place: as the device of :func:`open_bundle`.

    Raises:
        ConfigError, OutOfMemory, WeightsError: as of :func:`open_bundle`.
    """
    device = device_of(place)
    try:
        metadata, inference = bundle_texts(contents)
        if gives_masks(metadata):
            raise ConfigError(f"{bundle} outlines structures, and a model that classifies is needed here")
        if gives_values(metadata):
            raise ConfigError(f"{bundle} gives numbers, and a model that classifies is needed here")
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        settings = settings_of(bundle, contents, device, metadata=metadata, inference=inference)
        if settings["trust"].ood_threshold is not None:
            getattr(settings["script"], METHOD)
        return Classifier(classes=tuple(str(channels[str(index)]) for index in range(len(channels))), **settings)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ConfigError(f"{bundle} is not what monai-fedlora export writes: {error!r} is missing") from error


def current_names(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a bundle of any version, with the views of its test metrics called "personal" and "shared"."""
    metrics = metadata.get("eval_metrics")
    if not isinstance(metrics, dict) or "test" not in metrics:
        return metadata
    return {**metadata, "eval_metrics": {**metrics, "test": current_views(metrics["test"])}}
