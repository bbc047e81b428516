"""Open an exported bundle as a classifier, without training code.

The TorchScript module does all the computing. Only plain values are read from the configuration; its expressions are
never evaluated.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.clinic.trust import Trust, read_trust
from monai_fedlora.errors import ConfigError, DataError, FedLoraError, WeightsError
from monai_fedlora.exporting.check.checker import check_contents
from monai_fedlora.exporting.check.contents import Contents, open_contents
from monai_fedlora.exporting.check.findings import FOREIGN, VERIFIED
from monai_fedlora.exporting.check.layout import PROGRAM, model_of
from monai_fedlora.exporting.check.provenance import NOT_MADE_HERE
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.exporting.mask_answer import SEGMENTATION_FORMAT
from monai_fedlora.exporting.reference import METHOD
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.site_report import renamed_views
from monai_fedlora.studies.study import CINE, IMAGE

_MODALITIES = {"MR": CINE, "photograph": IMAGE}
MODEL_NAME = "models/model.ts"
_SHORT_OF_MEMORY = (
    "the image is not to blame: close other programs that use it",
    "compute on the processor, with CUDA_VISIBLE_DEVICES= in front of the command",
)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """An exported model, ready to use.

    Attributes:
        path: the bundle.
        name: from its metadata.
        version: from its metadata.
        sha256: of ``models/model.ts``, which holds weights, preprocessing and metadata.
        classes: names, in the order of the logits.
        modality: "cine" or "image".
        style: of photographs: "dermoscopy", "fundus" or "plain"; None for cines.
        spacing: voxel size (x, y, z) of the network's input in mm; None for photographs.
        resampling: arguments of MONAI's ``Spacing``, which has to run before the model of a bundle of an earlier
            version: such a module takes the image without an affine. None for later bundles and for photographs.
        script: the TorchScript module: ``preprocessor``, then ``network``.
        device: where the module runs.
        trust: what is known about calibration, unusual images and training data.
        metadata: content of ``configs/metadata.json``.
    """

    path: Path
    name: str
    version: str
    sha256: str
    classes: tuple[str, ...]
    modality: str
    style: str | None
    spacing: tuple[float, float, float] | None = None
    resampling: Mapping[str, Any] | None
    script: torch.jit.ScriptModule
    device: torch.device
    trust: Trust = field(default_factory=Trust)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_affine(self) -> bool:
        """Whether the module takes the affine of an image, and reorders its axes by it."""
        return self.modality == CINE and self.resampling is None

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
        inputs = self._inputs(image, affine)
        if self.trust.ood_threshold is None:
            return self._run(self.script, *inputs), None
        return self._run(getattr(self.script, METHOD), *inputs)

    def prepare(self, image: Tensor, affine: Tensor | None = None) -> Tensor:
        """The input of the network after the module's own preprocessing, without the batch dimension, on the CPU.

        Arguments as of :meth:`probabilities`. Where the orientation of a cine is unknown, this is the first of the 16
        orders of its axes, see :func:`monai_fedlora.transforms.orientation.all_orders`.
        """
        return self._run(self.script.preprocessor, *self._inputs(image, affine))[0].cpu()

    def _inputs(self, image: Tensor, affine: Tensor | None) -> tuple[Tensor, ...]:
        """The arguments of the module, with a batch dimension."""
        return (image[None],) if not self.takes_affine or affine is None else (image[None], affine[None])

    def visible(self, prepared: Tensor) -> Tensor:
        """The output of :meth:`prepare` as levels in [0, 1] for display: a photograph's normalisation is undone."""
        if self.modality == CINE:
            return prepared.clamp(0, 1)
        settings = {name.rpartition(".")[2]: value.cpu() for name, value in self.script.preprocessor.named_buffers()}
        return (prepared * settings["std"] + settings["mean"]).clamp(0, 1)

    def batch_log_probabilities(self, prepared: Tensor) -> Tensor:
        """Natural logarithms of the probabilities (B, classes) for a batch (B, ...) of outputs of :meth:`prepare`."""
        return self._run(self.script.network, prepared).log_softmax(dim=1).cpu()

    def _run(self, module: Callable[..., Any], *inputs: Tensor) -> Any:
        return run_module(module, *inputs, device=self.device)


def run_module(module: Callable[..., Any], *inputs: Tensor, device: torch.device) -> Any:
    """Run a module of a bundle, or one of its methods, without gradients.

    Raises:
        DataError: the model refuses the image.
        OutOfMemory: memory ran out.
        FedLoraError: the GPU has failed.
    """
    try:
        with torch.no_grad():
            return module(*(tensor.to(device) for tensor in inputs))
    except (MemoryError, RuntimeError, torch.jit.Error) as error:
        tell_out_of_memory(error, "the model looked at the image", *_SHORT_OF_MEMORY)
        if device_failed(error):
            said = str(error).strip().splitlines()[-1]
            raise FedLoraError(
                f"the GPU has failed, and computes nothing more for this program ({said}); start it again, "
                "with CUDA_VISIBLE_DEVICES= in front of the command to compute on the processor"
            ) from error
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(f"the model refuses this image: {reason.partition('Error: ')[2] or reason}") from error


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


def gives_masks(metadata: Mapping[str, Any]) -> bool:
    """Whether a bundle's model answers with masks, by its metadata."""
    return bool(metadata["network_data_format"]["outputs"]["pred"].get("format") == SEGMENTATION_FORMAT)


def device_of(given: torch.device | str | None) -> torch.device:
    """The device where a model is to run; None takes the first GPU, or the CPU where there is none."""
    return torch.device(given or ("cuda:0" if torch.cuda.is_available() else "cpu"))


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
        image = metadata["network_data_format"]["inputs"]["image"]
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        modality = _MODALITIES[image["modality"]]
        trust, script = read_trust(metadata), load_script(contents, bundle, device)
        if trust.ood_threshold is not None:
            getattr(script, METHOD)
        return Classifier(
            path=bundle,
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            sha256=contents.digests[MODEL_NAME],
            classes=tuple(str(channels[str(index)]) for index in range(len(channels))),
            modality=modality,
            style=str(image["style"]) if modality == IMAGE else None,
            spacing=voxel_size(image) if modality == CINE else None,
            resampling=_resampling(inference) if modality == CINE else None,
            script=script,
            device=device,
            trust=trust,
            metadata=metadata,
        )
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ConfigError(f"{bundle} is not what monai-fedlora export writes: {error!r} is missing") from error


def current_names(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a bundle of any version, with the views of its test metrics called "personal" and "shared"."""
    metrics = metadata.get("eval_metrics")
    if not isinstance(metrics, dict) or "test" not in metrics:
        return metadata
    return {**metadata, "eval_metrics": {**metrics, "test": renamed_views(metrics["test"])}}


def device_failed(error: BaseException) -> bool:
    """Whether a GPU has failed, such as by an assertion, after which nothing computes there in the same process."""
    return "CUDA error" in str(error)


def load_script(contents: Contents, bundle: Path, device: torch.device) -> torch.jit.ScriptModule:
    """Load the TorchScript module of a checked bundle.

    Raises:
        OutOfMemory: the device has no room for it.
        WeightsError: it is damaged.
    """
    model = contents.path(MODEL_NAME)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
            return torch.jit.load(str(model), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        tell_out_of_memory(error, f"opening {bundle} on {device}", *_SHORT_OF_MEMORY[1:])
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{bundle}: {MODEL_NAME} cannot be read ({reason}); copy it again from the source"
        ) from error


def voxel_size(image: Mapping[str, Any]) -> tuple[float, float, float]:
    """Voxel size (x, y, z) of the network's input in mm, by the metadata's description of it."""
    x, y, z = (float(step) for step in image["spacing_mm"])
    return x, y, z


def _resampling(inference: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of the configuration's ``Spacingd``, if it has one. They are plain values, not expressions."""
    steps = inference["preprocessing"]["transforms"]
    spacing = next((step for step in steps if step["_target_"] == "Spacingd"), None)
    return spacing and {name: value for name, value in spacing.items() if name not in ("_target_", "keys")}
