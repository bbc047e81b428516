"""Classify one study, and collect what is known of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cine_orders import order_notes
from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.occlusion import occlusion_map
from monai_fedlora.clinic.omissions import Omission
from monai_fedlora.clinic.placement import Placement, place
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.stability import Stability, find_stability
from monai_fedlora.clinic.state import (
    contenders,
    is_undecided,
    most_probable,
    percent,
    span,
    state_of,
    state_sentences,
)
from monai_fedlora.studies.study import CINE, Study

NOT_FOR_CLINICAL_USE = "Research only. Not a medical device, not for clinical use, not for diagnosis."


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's answer to a study.

    Attributes:
        study: name of the study.
        classifier: the model.
        probabilities: of its classes.
        doubts: reasons why the answer may mean nothing, the strongest first: synthetic training images, a wrong kind of
            image, a large distance from the training cases, an unstable answer.
        notes: remarks on how the study was read.
        frames: how ED and ES were chosen; None for two files, and for a photograph.
        prepared: input of the network: (2, X, Y, Z) in [0, 1] or a normalised photograph (3, H, W).
        relevance: (X, Y) or (H, W), see :func:`monai_fedlora.clinic.occlusion.occlusion_map`; None if not computed.
        sources: the DICOM objects with the images of ED, then of ES, base first; empty if it was not read from DICOM.
        distance: of the image from the model's training cases, see :mod:`monai_fedlora.exporting.reference`; None if
            the bundle has no statistics of them.
        stability: the answers to slightly changed images; None if not computed.
        omissions: images and files of a DICOM study that were not used, which notes and doubts name.
        quotes: sentences with names of series and files, which may name a person. Tables and the page of who sent the
            study show them; figures and DICOM objects do not.
        placement: where the slices of the network's input lie in the patient; None for a photograph.
    """

    study: str
    classifier: Classifier
    probabilities: tuple[float, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    frames: FrameChoice | None
    prepared: Tensor
    relevance: Tensor | None
    sources: tuple[Source, ...]
    distance: float | None = None
    stability: Stability | None = None
    omissions: tuple[Omission, ...] = ()
    quotes: tuple[str, ...] = ()
    placement: Placement | None = None

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return most_probable(self.probabilities)

    @property
    def predicted(self) -> str:
        """Name of the most probable class."""
        return self.classifier.classes[self.best]

    @property
    def state(self) -> str:
        """Whether the answer can be relied on, see :mod:`monai_fedlora.clinic.state`."""
        return state_of(self.doubts, self.classifier.trust.blind)

    @property
    def undecided(self) -> bool:
        """Whether two classes are too close to call one of them the answer."""
        return is_undecided(self.probabilities, self._answers())

    @property
    def answer(self) -> str:
        """The answer for display, for example "ABN 57 %"."""
        if not self.undecided:
            return f"{self.predicted} {self.percent(self.probabilities[self.best])}"
        between = contenders(self.probabilities, self._answers())
        named = [f"{self.classifier.classes[index]} {self.percent(self.probabilities[index])}" for index in between]
        return f"undecided: {' or '.join(named)}"

    def percent(self, share: float) -> str:
        """A probability for display."""
        return percent(share, calibrated=self.classifier.trust.calibrated)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Lowest and highest probability of each class over small changes of the image; empty if not computed."""
        return () if self.stability is None else self.stability.ranges(self.probabilities)

    def range_text(self, index: int) -> str:
        """The range of a class for display, for example "51 to 60 %"; empty if not computed."""
        return span(*self.ranges[index], calibrated=self.classifier.trust.calibrated) if self.ranges else ""

    def sentences(self) -> tuple[str, ...]:
        """State, doubts and notes for display."""
        blind = self.classifier.trust.blind
        notes = (f"Note: {note}." for note in self.notes if self.doubts or note not in blind)
        return (*state_sentences(self.doubts, blind), *notes)

    def _answers(self) -> tuple[int, ...]:
        return () if self.stability is None else self.stability.answers

    def to_json(self) -> dict[str, Any]:
        """Everything but the images, for a JSON file. Apart from the quotes it names no patient and no file."""
        model, frames, stability = self.classifier, self.frames, self.stability
        origin = frames.to_json() if frames is not None else {"how": "two files"} if model.modality == CINE else None
        return {
            "notice": NOT_FOR_CLINICAL_USE,
            "study": self.study,
            "prediction": self.predicted,
            "answer": self.answer,
            "undecided": self.undecided,
            "probabilities": dict(zip(model.classes, self.probabilities, strict=True)),
            "shown": {name: self.percent(share) for name, share in zip(model.classes, self.probabilities, strict=True)},
            "stability": None if stability is None else stability.to_json(model.classes, self.probabilities),
            "shown_range": {name: self.range_text(index) for index, name in enumerate(model.classes)},
            "state": self.state,
            "state_text": " ".join(state_sentences(self.doubts, model.trust.blind)),
            "doubts": list(self.doubts),
            "notes": [*self.notes, *self.quotes],
            "left_out": [omission.to_json() for omission in self.omissions],
            "distance": self._distance(),
            "calibration": None if model.trust.calibration is None else dict(model.trust.calibration),
            "frames": origin,
            "orientation": None if self.placement is None else self.placement.orientation,
            "trained_on": model.trust.origin.to_json(),
            "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        }

    def _distance(self) -> dict[str, float] | None:
        threshold = self.classifier.trust.ood_threshold
        if self.distance is None or threshold is None:
            return None
        return {"value": round(self.distance, 4), "limit": round(threshold.limit, 4)}


def predict_study(classifier: Classifier, study: Study, *, overlay: bool = True) -> Prediction:
    """Read a study and classify it.

    Args:
        classifier: from :func:`monai_fedlora.clinic.bundle.open_bundle`.
        study: from :func:`monai_fedlora.studies.finding.find_studies`, or made by hand.
        overlay: also compute an occlusion map, which takes eighty times as long as the answer.

    Raises:
        ConfigError: a package for this kind of file is not installed.
        DataError: the study cannot be used, is not what the model takes, or the model refuses it; the message says why.
    """
    prediction = predict_loaded(classifier, load_study(study, classifier), name=study.name)
    return explain(prediction) if overlay else prediction


def predict_loaded(
    classifier: Classifier, loaded: LoadedStudy, *, name: str, on_batch: Callable[[], None] = lambda: None
) -> Prediction:
    """Classify a study that was read, without an occlusion map.

    Args:
        classifier: the model that the study was read for.
        loaded: from :func:`monai_fedlora.clinic.reading.load_study`.
        name: of the study.
        on_batch: called before every batch; an exception that it raises ends the classification.

    Raises:
        DataError: the model refuses the image.
    """
    affine = None if loaded.image_affine is None else torch.from_numpy(loaded.image_affine)
    probabilities, distance = classifier.assess(loaded.image, affine)
    trust = classifier.trust
    unlike = [] if distance is None or trust.ood_threshold is None else trust.ood_threshold.doubts(distance)
    prepared = classifier.prepare(loaded.image, affine)
    stability, refused = find_stability(classifier, loaded, prepared, probabilities, on_batch=on_batch)
    unstable = [] if stability is None else stability.doubts(classifier.classes, most_probable(probabilities))
    return Prediction(
        study=name,
        classifier=classifier,
        probabilities=probabilities,
        doubts=(*trust.origin.doubts(), *loaded.doubts, *unlike, *unstable),
        notes=(*loaded.notes, *trust.notes, *order_notes(classifier, loaded), *refused),
        frames=loaded.frames,
        prepared=prepared,
        relevance=None,
        sources=loaded.sources,
        distance=distance,
        stability=stability,
        omissions=loaded.omissions,
        quotes=loaded.quotes,
        placement=place(loaded, prepared),
    )


def explain(prediction: Prediction, *, on_batch: Callable[[], None] = lambda: None) -> Prediction:
    """Add an occlusion map to a prediction.

    Args:
        prediction: without one.
        on_batch: called before every batch; an exception that it raises ends the computation.

    Raises:
        DataError: the model refuses an image with a region hidden.
    """
    classifier, prepared = prediction.classifier, prediction.prepared
    relevance = occlusion_map(classifier, prepared, target=prediction.best, on_batch=on_batch)
    return replace(prediction, relevance=relevance)
