"""The exported model as one TorchScript module, from an image of any size to logits; it needs torch alone."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Optional

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from monai_fedlora.exporting.modality import Modality
from monai_fedlora.files import atomic_path
from monai_fedlora.transforms.orientation import all_orders, is_known


class Classifier(nn.Module):
    """Preprocessing and network in one.

    Args:
        preprocessor: maps images of any size to the network's input, and raises an error for unusable ones.
        network: maps prepared images to logits.
    """

    def __init__(self, preprocessor: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of raw images (B, channels, \\*size)."""
        return self.network(self.preprocessor(image))


class AssessingClassifier(Classifier):
    """A :class:`Classifier` that can also measure how far an image lies from the site's training cases.

    Args:
        preprocessor: as in :class:`Classifier`.
        network: one with ``assess``, see :class:`monai_fedlora.exporting.network.AssessingNetwork`.
    """

    @torch.jit.export
    def assess(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and distances (B) of raw images."""
        return self.network.assess(self.preprocessor(image))  # type: ignore[operator]


class CineClassifier(Classifier):
    """A :class:`Classifier` of images with an affine.

    Where an image has no affine, or one that tells no orientation, the logits are averaged over all orders of its axes.

    Args:
        preprocessor: maps images and affines to the network's input, and raises an error for unusable ones.
        network: maps prepared images to logits.
    """

    def forward(self, image: Tensor, affine: Optional[Tensor] = None) -> Tensor:  # noqa: UP045  for TorchScript
        """Logits (B, classes) of raw images (B, 2, X, Y, Z) with affines (B, 4, 4)."""
        prepared = self.preprocessor(image, affine)
        shape = [image.shape[2], image.shape[3], image.shape[4]]
        rows: list[Tensor] = []
        for index in range(len(prepared)):
            one = prepared[index]
            if affine is not None and is_known(affine[index], shape):
                rows.append(self.network(one.unsqueeze(0)))
            else:
                rows.append(self.network(all_orders(one)).mean(dim=0, keepdim=True))
        return torch.cat(rows)


class AssessingCineClassifier(CineClassifier):
    """A :class:`CineClassifier` with the second method of :class:`AssessingClassifier`.

    Args:
        preprocessor: as in :class:`CineClassifier`.
        network: one with ``assess`` and ``assess_together``, see
            :class:`monai_fedlora.exporting.network.AssessingNetwork`.
    """

    @torch.jit.export
    def assess(
        self,
        image: Tensor,
        affine: Optional[Tensor] = None,  # noqa: UP045  for TorchScript
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and distances (B) of raw images; of unknown orientation, over all orders of the axes."""
        prepared = self.preprocessor(image, affine)
        shape = [image.shape[2], image.shape[3], image.shape[4]]
        rows: list[Tensor] = []
        distances: list[Tensor] = []
        for index in range(len(prepared)):
            one = prepared[index]
            if affine is not None and is_known(affine[index], shape):
                logits, distance = self.network.assess(one.unsqueeze(0))  # type: ignore[operator]
            else:
                logits, distance = self.network.assess_together(all_orders(one))  # type: ignore[operator]
            rows.append(logits)
            distances.append(distance)
        return torch.cat(rows), torch.cat(distances)


def eager_classifier(network: nn.Module, modality: Modality) -> nn.Module:
    """The classifier as a Python module in evaluation mode, with ``assess`` if the network has it."""
    kinds = (CineClassifier, AssessingCineClassifier) if modality.takes_affine else (Classifier, AssessingClassifier)
    return kinds[hasattr(network, "assess")](modality.preprocessor(), network).eval()


def scripted_model(
    network: nn.Module, modality: Modality, whole: Callable[[nn.Module, Modality], nn.Module] = eager_classifier
) -> torch.jit.ScriptModule:
    """The model as TorchScript: the network is traced, and what surrounds it scripted, so that it takes any size.

    Args:
        network: maps prepared images to logits.
        modality: kind of its images.
        whole: puts preprocessing around the traced network.
    """
    example = torch.zeros(1, *modality.input_shape)
    methods = {name: example for name in ("forward", "assess", "assess_together") if hasattr(network, name)}
    _name_classes_as_ours(network)
    with quiet_torch(), torch.no_grad(), _NothingInPlace():
        traced = torch.jit.trace_module(network.eval(), methods, check_trace=False)
        for module in traced.modules():
            for name in module._c._method_names():
                torch._C._jit_pass_remove_mutation(module._c._get_method(name).graph)  # the bundle check refuses them
        return torch.jit.script(whole(traced, modality))


class _NothingInPlace(TorchFunctionMode):
    """Compute sums and activations that would change a tensor, as in MONAI's residual blocks, into a new one.

    TorchScript can only remove such changes where the tensor is no argument of the module.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.add_, Tensor.__iadd__):
            return torch.add(*args, **(kwargs or {}))
        if func is nn.functional.leaky_relu:
            image, slope = args[0], (kwargs or {}).get("negative_slope", args[1] if len(args) > 1 else 0.01)
            return nn.functional.leaky_relu(image, slope)
        return func(*args, **(kwargs or {}))


def _name_classes_as_ours(network: nn.Module) -> None:
    """Give modules of other packages (MONAI, transformers) a subclass of the same name that is defined here.

    TorchScript stores the qualified names of Python's classes. The bundle check accepts those of this package and of
    torch.nn alone, because others could be classes written in C++. The subclass computes the same.
    """
    for module in network.modules():
        kind = type(module)
        if not f"{kind.__module__}.".startswith(("monai_fedlora.", "torch.nn.")):
            module.__class__ = type(kind.__name__, (kind,), {"__module__": __name__})


def write_script(
    script: torch.jit.ScriptModule, path: Path, *, metadata: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Write ``model.ts`` with the bundle's metadata and inference configuration inside."""
    from monai.data import save_net_with_metadata

    buffer = io.BytesIO()
    with quiet_torch():
        save_net_with_metadata(
            script,
            buffer,
            include_config_vals=False,
            meta_values=metadata,
            more_extra_files={"inference.json": json.dumps(config).encode()},
        )
    with atomic_path(path) as temporary:
        copy_without_call_stacks(buffer, temporary)


def copy_without_call_stacks(script: IO[bytes], target: Path) -> None:
    """Copy a saved TorchScript module without its debug records.

    For its error messages TorchScript stores the call stack of every operation, with full paths of source files of this
    machine. The module computes the same without.

    Args:
        script: the saved module.
        target: file to write.
    """
    with zipfile.ZipFile(script) as source, zipfile.ZipFile(target, "w") as stripped:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                stripped.writestr(record, source.read(record))


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Silence TorchScript's deprecation notices and MONAI's remark that bundles can run code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
