"""The references drawn from a model so far, kept beside it: exporting again ships the same numbers.

Another draw of the noise for the same patients would tell more of them, and enough draws average the noise away. So a
new one is made for other public images or another model alone, and what all of them tell together is added up: those of
models that lay here before count as well, because the patients are the same.
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
    """The reference that an earlier export of a model drew with the same public images.

    Args:
        final: the model's file.
        public: description of the public images.

    Returns:
        It with the zCDP of everything drawn so far.

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
        The same with the zCDP of everything drawn so far.

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
    """The zCDP of all together, which the last one states."""
    return max((reference.rho for _, reference in drawn), default=0.0)


def _kept(final: Path) -> list[tuple[str, Reference]]:
    """Every reference drawn here so far, with the SHA-256 of the model that it is of."""
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
