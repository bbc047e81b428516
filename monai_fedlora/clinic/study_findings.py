"""What a model that measures says of a study: numbers, with how far they are usually off, and perhaps a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.opened_model import OpenedModel
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.state import state_of, state_sentences


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A number of a study.

    Attributes:
        name: of a value, or of the structure whose area it is.
        value: None where the structure was not found.
        unit: empty where it is not known.
        cells: columns of a table with their texts.
        shown: the number for display.
        usually: how far such numbers of the model are off, or that this is not known, for display.
    """

    name: str
    value: float | None
    unit: str
    cells: Mapping[str, str]
    shown: str
    usually: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A model's numbers of a study. None of them has a probability, or an interval of its own.

    Attributes:
        study: name of the study.
        model: that measured.
        found: the numbers.
        doubts: reasons why they may mean nothing.
        notes: remarks on how the study was read and measured.
        loaded: what was read.
        picture: (height, width, 3) uint8, what was measured: the photograph, or both frames as the network sees them.
        mask: (H, W) uint8 on the pixels of an upright photograph: 0 background, 1 to K the structures; None for
            numbers alone.
    """

    study: str
    model: OpenedModel
    found: tuple[Finding, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    loaded: LoadedStudy
    picture: np.ndarray
    mask: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers: of a mask's structures in the order of its values from 1."""
        return tuple(finding.name for finding in self.found)

    @property
    def quotes(self) -> tuple[str, ...]:
        """Sentences with names of series and files, which may name a person."""
        return self.loaded.quotes

    @property
    def frames(self) -> FrameChoice | None:
        """How the frames of a cine were chosen."""
        return self.loaded.frames

    @property
    def state(self) -> str:
        """Whether the numbers can be relied on, see :mod:`monai_fedlora.clinic.state`."""
        return state_of(self.doubts, self.model.trust.blind)

    @property
    def answer(self) -> str:
        """The numbers in one line."""
        return ", ".join(f"{finding.name} {finding.shown}" for finding in self.found)

    def sentences(self) -> tuple[str, ...]:
        """Numbers with their usual errors, state, doubts and notes for display."""
        numbers = (f"{finding.name}: {finding.shown}. {finding.usually}." for finding in self.found)
        blind = self.model.trust.blind
        notes = (f"Note: {note}." for note in self.notes if self.doubts or note not in blind)
        return (*numbers, *state_sentences(self.doubts, blind), *notes)

    def to_json(self) -> dict[str, Any]:
        """Everything but the images, for a JSON file. Apart from the quotes it names no patient and no file."""
        model = self.model
        frames = None
        if self.loaded.cine is not None:
            frames = {"how": "two files"} if self.frames is None else self.frames.to_json()
        return {
            "notice": NOT_FOR_CLINICAL_USE,
            "study": self.study,
            "probabilities": None,
            "numbers": [
                {
                    "name": finding.name,
                    "value": finding.value,
                    "unit": finding.unit,
                    "shown": finding.shown,
                    "usually": finding.usually,
                }
                for finding in self.found
            ],
            "answer": self.answer,
            "state": self.state,
            "doubts": list(self.doubts),
            "notes": [*self.notes, *self.quotes],
            "left_out": [omission.to_json() for omission in self.loaded.omissions],
            "frames": frames,
            "orientation": self.loaded.orientation,
            "trained_on": model.trust.origin.to_json(),
            "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        }
