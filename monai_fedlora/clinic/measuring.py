"""Exported bundles that measure: a regression's numbers, and masks of photographs with areas of their structures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_fedlora.clinic.answer_formats import gives_masks, gives_values
from monai_fedlora.clinic.bundle import Classifier, bundle_texts, checked_files, classifier_of
from monai_fedlora.clinic.cine_orders import order_notes
from monai_fedlora.clinic.opened_model import OpenedModel, device_of, settings_of
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.segmenting import Segmenter, segmenter_of
from monai_fedlora.clinic.study_findings import Finding, Findings
from monai_fedlora.clinic.usual_errors import usual_error, usual_overlap
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.exporting.value_answer import value_column
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.studies.study import CINE

NO_SCALE = "a photograph has no scale: an area is a share of the picture, and changes with the distance of the camera"


@dataclass(frozen=True, kw_only=True)
class Measurer(OpenedModel):
    """An exported model that measures.

    Attributes:
        names: of the values, or of the structures.
    """

    names: tuple[str, ...]

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Those of a table, see :class:`monai_fedlora.clinic.study_findings.Finding`."""

    @property
    @abstractmethod
    def gives(self) -> str:
        """A sentence on what it answers."""

    @abstractmethod
    def measure(self, loaded: LoadedStudy, *, name: str) -> Findings:
        """Measure a study that was read; ``name`` is the study's.

        Raises:
            DataError: the model refuses the image, or its output cannot be used.
        """


@dataclass(frozen=True, kw_only=True)
class Estimator(Measurer):
    """A regression of cines or photographs; ``names`` are its values."""

    @property
    def columns(self) -> tuple[str, ...]:
        """One for each value, with its unit."""
        return tuple(value_column(name) for name in self.names)

    @property
    def gives(self) -> str:
        """Values with their units."""
        said = ", ".join(f"{name} in {UNITS[name]}" if name in UNITS else name for name in self.names)
        return f"This model gives {said} to every image, and neither a class nor a probability."

    def measure(self, loaded: LoadedStudy, *, name: str) -> Findings:
        """Estimate the values of a study; one that no heart can have is a doubt."""
        affine = None if loaded.image_affine is None else torch.from_numpy(loaded.image_affine)
        values = self.run(self.script, *self.inputs(loaded.image, affine)).flatten().double().tolist()
        if len(values) != len(self.names) or not np.isfinite(values).all():
            raise DataError(f"the model does not give {len(self.names)} finite numbers; image or model are damaged")
        found = tuple(self._finding(each, value) for each, value in zip(self.names, values, strict=True))
        impossible = [doubt for finding in found if (doubt := _impossible(finding))]
        return Findings(
            study=name,
            model=self,
            found=found,
            doubts=(*self.trust.origin.doubts(), *loaded.doubts, *impossible),
            notes=(*loaded.notes, *self.trust.notes, *order_notes(self, loaded)),
            loaded=loaded,
            picture=self._picture(loaded, affine),
        )

    def _finding(self, name: str, value: float) -> Finding:
        unit = UNITS.get(name, "")
        return Finding(
            name=name,
            value=value,
            unit=unit,
            cells={value_column(name): f"{value:.6g}"},
            shown=f"{value:.0f} {unit}" if unit else f"{value:.3g}",
            usually=usual_error(self.metadata, name, unit=unit),
        )

    def _picture(self, loaded: LoadedStudy, affine: torch.Tensor | None) -> np.ndarray:
        levels = self.visible(self.prepare(loaded.image, affine))
        if self.modality != CINE:
            return _pixels(levels)
        there = levels.sum(dim=(0, 1, 2)).nonzero().flatten().tolist() or [levels.shape[3] // 2]
        both = torch.cat(list(levels[..., there[len(there) // 2]]), dim=0)  # end-diastole to the left of end-systole
        return _pixels(both.T[None].expand(3, -1, -1))


@dataclass(frozen=True, kw_only=True)
class PhotographSegmenter(Measurer):
    """A segmentation of photographs; ``names`` are the structures with the values 1 to K of a mask."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Share of the picture and number of pixels of each structure."""
        return tuple(column for name in self.names for column in _area_columns(name))

    @property
    def gives(self) -> str:
        """The structures."""
        return f"This model outlines {', '.join(self.names)}, and gives neither a class nor a probability."

    def measure(self, loaded: LoadedStudy, *, name: str) -> Findings:
        """Outline a photograph on its own pixels."""
        mask = self.run(self.script, *self.inputs(loaded.image, None))[0].cpu().numpy()
        if mask.dtype != np.uint8 or mask.shape != loaded.image.shape[1:] or int(mask.max()) > len(self.names):
            raise DataError("the model does not give a mask on the photograph's pixels; the bundle is damaged")
        return Findings(
            study=name,
            model=self,
            found=tuple(self._finding(each, mask == value) for value, each in enumerate(self.names, 1)),
            doubts=(*self.trust.origin.doubts(), *loaded.doubts),
            notes=(*loaded.notes, *self.trust.notes, NO_SCALE, *self._of_mask(mask)),
            loaded=loaded,
            picture=_pixels(loaded.image),
            mask=mask,
        )

    def _finding(self, name: str, there: np.ndarray) -> Finding:
        count = int(there.sum())
        share = 100 * count / there.size
        return Finding(
            name=name,
            value=share if count else None,
            unit="%",
            cells=dict(zip(_area_columns(name), (f"{share:.4g}", str(count)), strict=True)),
            shown=f"{share:.3g} % of the picture" if count else "not found",
            usually=usual_overlap(self.metadata, name),
        )

    def _of_mask(self, mask: np.ndarray) -> list[str]:
        """What the mask cannot tell: what was not found, and what lies beyond the part that the network sees."""
        notes = [
            f"no {name} was found, which is no sign that there is none"
            for value, name in enumerate(self.names, 1)
            if not (mask == value).any()
        ]
        height, width = mask.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        if self.style != "fundus" and height != width:
            unseen = 100 * (1 - side / max(height, width))
            notes.append(
                f"the network sees the middle square of a photograph alone: {unseen:.0f} % of this one, at its "
                f"{'sides' if width > height else 'top and bottom'}, have no outlines whatever they show"
            )
        if self.style != "fundus":
            seen = mask[top : top + side, left : left + side]
            edge = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
            notes += [
                f"the outline of {name} reaches the edge of what the network sees, and may go on beyond it"
                for value, name in enumerate(self.names, 1)
                if (edge == value).any()
            ]
        return notes


def _area_columns(name: str) -> tuple[str, str]:
    return f"{name}_percent_of_picture", f"{name}_pixels"


def _impossible(finding: Finding) -> str:
    """Why a number of a heart cannot be true; empty if it can."""
    value, unit = finding.value, finding.unit
    if value is None or not unit or (value > 0 and (unit != "%" or value < 100)):
        return ""
    return f"no heart has {finding.name} of {finding.shown}"


def _pixels(levels: torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (3, H, W) in [0, 1]."""
    return np.rint(255 * levels.permute(1, 2, 0).numpy().clip(0, 1)).astype(np.uint8)


def open_model(
    path: str | Path, *, keys: Sequence[PublicKey] = (), device: torch.device | str | None = None
) -> Classifier | Segmenter | Measurer:
    """Open a bundle of any kind; arguments and errors as of `bundle.open_bundle`."""
    with checked_files(path, keys=keys) as (bundle, contents):
        metadata, _ = bundle_texts(contents)
        if gives_values(metadata) or (gives_masks(metadata) and _takes_photographs(metadata)):
            return _measurer_of(bundle, contents, device_of(device))
        if gives_masks(metadata):
            return segmenter_of(bundle, contents, device_of(device))
        return classifier_of(bundle, contents, device)


def _takes_photographs(metadata: Mapping[str, Any]) -> bool:
    return bool(metadata["network_data_format"]["inputs"]["image"]["modality"] == "photograph")


def _measurer_of(bundle: Path, contents: Contents, device: torch.device) -> Measurer:
    metadata, inference = bundle_texts(contents)
    try:
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        settings = settings_of(bundle, contents, device, metadata=metadata, inference=inference)
        if gives_values(metadata):
            return Estimator(names=tuple(str(channels[str(index)]) for index in range(len(channels))), **settings)
        names = tuple(str(channels[str(value)]) for value in range(1, len(channels)))
        return PhotographSegmenter(names=names, **settings)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ConfigError(f"{bundle} is not what monai-fedlora export writes: {error!r} is missing") from error
