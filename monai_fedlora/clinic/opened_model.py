"""An exported bundle's model, whatever it answers: its module, and what its metadata say of its images.

The TorchScript module does all the computing. Only plain values are read from the configuration; its expressions are
never evaluated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.clinic.trust import Trust, read_trust
from monai_fedlora.errors import DataError, FedLoraError, WeightsError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.studies.study import CINE, IMAGE

MODEL_NAME = "models/model.ts"
_MODALITIES = {"MR": CINE, "photograph": IMAGE}
_SHORT_OF_MEMORY = (
    "the image is not to blame: close other programs that use it",
    "compute on the processor, with CUDA_VISIBLE_DEVICES= in front of the command",
)


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """An exported model, ready to use.

    Attributes:
        path: the bundle.
        name: from its metadata.
        version: from its metadata.
        sha256: of ``models/model.ts``, which holds weights, preprocessing and metadata.
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

    def prepare(self, image: Tensor, affine: Tensor | None = None) -> Tensor:
        """The input of the network after the module's own preprocessing, without the batch dimension, on the CPU.

        Where the orientation of a cine is unknown, this is the first of the 16 orders of its axes, see
        :func:`monai_fedlora.transforms.orientation.all_orders`.

        Args:
            image: cine (2, X, Y, Z); photograph (3, H, W) in [0, 1].
            affine: (4, 4) from the voxels of a cine to the world in mm; None for one of unknown orientation.
        """
        return self.run(self.script.preprocessor, *self.inputs(image, affine))[0].cpu()

    def inputs(self, image: Tensor, affine: Tensor | None) -> tuple[Tensor, ...]:
        """The arguments of the module, with a batch dimension."""
        return (image[None],) if not self.takes_affine or affine is None else (image[None], affine[None])

    def visible(self, prepared: Tensor) -> Tensor:
        """The output of :meth:`prepare` as levels in [0, 1] for display: a photograph's normalisation is undone."""
        if self.modality == CINE:
            return prepared.clamp(0, 1)
        settings = {name.rpartition(".")[2]: value.cpu() for name, value in self.script.preprocessor.named_buffers()}
        return (prepared * settings["std"] + settings["mean"]).clamp(0, 1)

    def run(self, module: Callable[..., Any], *inputs: Tensor) -> Any:
        """Run the module, or one of its methods, see :func:`run_module`."""
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


def device_of(given: torch.device | str | None) -> torch.device:
    """The device where a model is to run; None takes the first GPU, or the CPU where there is none."""
    return torch.device(given or ("cuda:0" if torch.cuda.is_available() else "cpu"))


def settings_of(
    bundle: Path,
    contents: Contents,
    device: torch.device,
    *,
    metadata: Mapping[str, Any],
    inference: Mapping[str, Any],
) -> dict[str, Any]:
    """The attributes of an :class:`OpenedModel`, by name.

    Args:
        bundle: where it lies.
        contents: the checked copy of its files.
        device: where the model is to run.
        metadata, inference: content of its configuration.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, StopIteration: it is not what an export writes.
        OutOfMemory: the device has no room for it.
        WeightsError: it is damaged.
    """
    image = metadata["network_data_format"]["inputs"]["image"]
    modality = _MODALITIES[image["modality"]]
    return {
        "path": bundle,
        "name": str(metadata["name"]),
        "version": str(metadata["version"]),
        "sha256": contents.digests[MODEL_NAME],
        "modality": modality,
        "style": str(image["style"]) if modality == IMAGE else None,
        "spacing": voxel_size(image) if modality == CINE else None,
        "resampling": _resampling(inference) if modality == CINE else None,
        "script": load_script(contents, bundle, device),
        "device": device,
        "trust": read_trust(metadata),
        "metadata": metadata,
    }


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
