"""Keep the noisy references of a model beside it, so that every export contains the same numbers.

Every new draw of noise for the same patients reveals more about them, and the mean of many draws would remove the
noise. So a new draw is made only for other public images or another model, and the privacy loss of all draws is added
up, including that of earlier models of the same site, because the patients are the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_fedlora.errors import ExportError, WeightsError
from monai_fedlora.exporting.reference import Reference
from monai_fedlora.files import load_tensors, save_tensors, sha256

NAME = "reference.safetensors"
_TENSORS = ("directions", "location")
_OF = "final_sha256"


def kept_reference(final: Path, public: str) -> Reference | None:
    """The reference that an earlier export of a model made with the same public images.

    Args:
        final: the model's file.
        public: description of the public images.

    Returns:
        The reference with the total zCDP of all draws so far; None if there is none.

    Raises:
        WeightsError: the file beside the model is damaged.
    """
    drawn, model = _kept(final), sha256(final)
    for of, reference in drawn:
        if of == model and reference.public == public:
            return replace(reference, rho=_told(drawn))
    return None


def keep_reference(final: Path, reference: Reference) -> Reference:
    """Keep a reference beside its model.

    Returns:
        The reference with the total zCDP of all draws so far.

    Raises:
        ExportError: the folder cannot be written.
        WeightsError: the file beside the model is damaged.
    """
    earlier = _kept(final)
    drawn = replace(reference, rho=reference.rho + _told(earlier))
    every = [*earlier, (sha256(final), drawn)]
    tensors = {f"{number}/{name}": getattr(each, name) for number, (_, each) in enumerate(every) for name in _TENSORS}
    entries = json.dumps([{_OF: of, **_numbers(each)} for of, each in every])
    path = final.with_name(NAME)
    try:
        save_tensors(path, tensors, {"references": entries})
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}): without it every export would draw noise anew and tell more "
            "of the patients each time"
        ) from error
    return drawn


def _told(drawn: Sequence[tuple[str, Reference]]) -> float:
    """The total zCDP, which the last reference holds."""
    return max((reference.rho for _, reference in drawn), default=0.0)


def _kept(final: Path) -> list[tuple[str, Reference]]:
    """All references so far, each with the SHA-256 of its model."""
    path = final.with_name(NAME)
    if not path.is_file():
        return []
    tensors, metadata = load_tensors(path)
    try:
        return [
            (str(entry.pop(_OF)), Reference(**{**entry, **{name: tensors[f"{number}/{name}"] for name in _TENSORS}}))
            for number, entry in enumerate(json.loads(metadata["references"]))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} holds no references ({error}); move it away to draw new ones, which tell more of the patients"
        ) from error


def _numbers(reference: Reference) -> dict[str, Any]:
    return {name: value for name, value in vars(reference).items() if not isinstance(value, Tensor)}
