"""The references drawn from a model so far, kept beside it: exporting again ships the same numbers.

Another draw of the noise for the same patients would tell more of them, and enough draws average the noise away. So a
new one is made for other public images alone, and what all of them tell together is added up.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_fedlora.errors import ExportError, WeightsError
from monai_fedlora.export.reference import Reference
from monai_fedlora.files import load_tensors, save_tensors, sha256

NAME = "reference.safetensors"
_TENSORS = ("directions", "location")


def kept_reference(final: Path, public: str) -> Reference | None:
    """The reference that an earlier export of a model drew with the same public images.

    Args:
        final: the model's file.
        public: description of the public images.

    Raises:
        WeightsError: the file beside the model is damaged.
    """
    return next((reference for reference in _kept(final) if reference.public == public), None)


def keep_reference(final: Path, reference: Reference) -> Reference:
    """Keep a reference beside its model.

    Returns:
        The same with the zCDP of everything drawn from this model.

    Raises:
        ExportError: the folder cannot be written.
        WeightsError: the file beside the model is damaged.
    """
    earlier = _kept(final)
    drawn = replace(reference, rho=reference.rho + max((each.rho for each in earlier), default=0.0))
    every = [*earlier, drawn]
    tensors = {f"{number}/{name}": getattr(each, name) for number, each in enumerate(every) for name in _TENSORS}
    entries = json.dumps([_numbers(each) for each in every])
    path = final.with_name(NAME)
    try:
        save_tensors(path, tensors, {"final_sha256": sha256(final), "references": entries})
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}): without it every export would draw noise anew and tell more "
            "of the patients each time"
        ) from error
    return drawn


def _kept(final: Path) -> list[Reference]:
    path = final.with_name(NAME)
    if not path.is_file():
        return []
    tensors, metadata = load_tensors(path)
    if metadata.get("final_sha256") != sha256(final):
        return []  # of a model that was trained again since
    try:
        return [
            Reference(**{**entry, **{name: tensors[f"{number}/{name}"] for name in _TENSORS}})
            for number, entry in enumerate(json.loads(metadata["references"]))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} holds no references ({error}); move it away to draw new ones, which tell more of the patients"
        ) from error


def _numbers(reference: Reference) -> dict[str, Any]:
    return {name: value for name, value in vars(reference).items() if not isinstance(value, Tensor)}
