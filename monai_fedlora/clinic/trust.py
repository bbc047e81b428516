"""What a bundle's metadata say on the reliability of its answers: calibration, unusual images, training data.

The entries are written by :mod:`monai_fedlora.exporting.calibration`,
:mod:`monai_fedlora.exporting.reference` and :mod:`monai_fedlora.exporting.trained_on`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_fedlora.clinic.answer_formats import gives_masks, gives_values
from monai_fedlora.clinic.compared import compared
from monai_fedlora.data.origin import MIXED, REAL, SYNTHETIC, UNKNOWN, Origin

UNCALIBRATED = "the probabilities are not calibrated"
NO_REFERENCE = "unusual images cannot be recognised"
NO_STATISTICS = "the bundle has no statistics of its training cases"
NO_ORIGIN = "it is not known what the model was trained on"


@dataclass(frozen=True, slots=True, kw_only=True)
class OodThreshold:
    """The distance from the training cases beyond which an image counts as unusual.

    Attributes:
        limit: distance, see :mod:`monai_fedlora.exporting.reference`.
        share: share of the site's own cases within the limit, in (0, 1).
        cases: number of cases that the limit was computed from: the site's training and validation patients
            (photographs or lesions if the site's list has no patients), training cases in bundles of earlier versions,
            or public cases.
        public: whether these are public cases, because the model belongs to no site.
    """

    limit: float
    share: float
    cases: int
    public: bool = False

    def doubts(self, distance: float) -> list[str]:
        """A doubt for a distance beyond the limit; none within it."""
        if distance <= self.limit:
            return []
        cases, whose = ("public cases", "them") if self.public else ("cases", "the site's own cases")
        return [
            f"the image is unlike the {self.cases} {cases} that the model's limit comes from (distance {distance:.1f}, "
            f"limit {self.limit:.1f}: about {100 * self.share:.0f} % of {whose} lie within)"
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """What images a model was trained on.

    Attributes:
        kind: of all training images: "synthetic", "mixed", "real" or "unknown".
        name: of the site's own data set; None if unknown.
        source: who made or published the data set; None if unknown.
        backbone: ``name`` of the frozen backbone, and ``kind`` of the images that it was pre-trained on: "synthetic",
            "published" or "unknown". It gives no doubts.
    """

    kind: str = UNKNOWN
    name: str | None = None
    source: str | None = None
    backbone: Mapping[str, str] = field(default_factory=lambda: {"name": UNKNOWN, "kind": UNKNOWN})

    @property
    def summary(self) -> str:
        """A line without a full stop, for banners and footers."""
        called = f" ({', '.join(filter(None, (self.name, self.source)))})" if self.name or self.source else ""
        said = {
            SYNTHETIC: f"trained on synthetic images{called}",
            MIXED: f"trained on synthetic images among others{called}",
            REAL: f"trained on real images{called}",
        }.get(self.kind, f"trained on images of unknown origin{called}")
        pretrained = "; backbone pre-trained on synthetic images" if self.backbone["kind"] == SYNTHETIC else ""
        return said + pretrained

    def doubts(self) -> list[str]:
        """A doubt about every answer of a model that was trained on synthetic images."""
        called = f" ({self.name})" if self.name else ""
        said = {
            SYNTHETIC: f"alone{called}, so that its answer means nothing for a real patient",
            MIXED: f"among others{called}, so that its answer may mean nothing for a real patient",
        }.get(self.kind)
        return [f"the model was trained on synthetic images {said}"] if said else []

    def notes(self) -> list[str]:
        """Notes on the training images for the reader of an answer."""
        found = []
        if self.kind == UNKNOWN:
            found.append(f"{NO_ORIGIN}: the bundle does not say whether the images it was trained on are real")
        if self.kind == REAL and self.backbone["kind"] == SYNTHETIC:
            found.append(f"the backbone ({self.backbone['name']}) was pre-trained on synthetic images")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the entries, as a bundle's metadata and a prediction have them."""
        return {"kind": self.kind, "name": self.name, "source": self.source, "backbone": dict(self.backbone)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the metadata say on the reliability of the answers.

    Attributes:
        ood_threshold: limit of the distance; None if the bundle has no statistics of its training cases.
        calibration: ``temperature``, ``fitted``, ``reason`` and ``ece`` (expected calibration error on the test cases,
            None if unknown); None if the metadata have no such entry.
        origin: of the training images.
        notes: sentences for the reader of an answer.
        blind: those of the notes that say which checks cannot be made, see :mod:`monai_fedlora.clinic.state`.
    """

    ood_threshold: OodThreshold | None = None
    calibration: Mapping[str, Any] | None = None
    origin: TrainedOn = field(default_factory=TrainedOn)
    notes: tuple[str, ...] = ()
    blind: tuple[str, ...] = (f"{NO_REFERENCE}: {NO_STATISTICS}",)

    @property
    def calibrated(self) -> bool:
        """Whether a temperature was fitted."""
        return self.calibration is not None and bool(self.calibration["fitted"])


def read_trust(metadata: Mapping[str, Any]) -> Trust:
    """Read a bundle's metadata.

    Raises:
        ConfigError, KeyError, TypeError, ValueError: an entry is there, and not as an export writes it.
    """
    notes: list[str] = []
    calibration = None
    if not gives_values(metadata) and not gives_masks(metadata):
        calibration = _calibration(metadata.get("calibration"), notes)
    blind: list[str] = []
    ood_threshold = _ood_threshold(metadata.get("out_of_distribution"), blind)
    origin = _origin(metadata.get("training_data"))
    if ood_threshold is not None and ood_threshold.public:
        notes.append(
            f"unusual images are told by {ood_threshold.cases} public cases, not by those that the model learned from"
        )
    blind += [note for note in origin.notes() if note.startswith(NO_ORIGIN)]
    if (beside := compared(metadata)) is not None:
        notes.append(beside.sentence)
    notes += [*blind, *(note for note in origin.notes() if note not in blind)]
    return Trust(
        ood_threshold=ood_threshold, calibration=calibration, origin=origin, notes=tuple(notes), blind=tuple(blind)
    )


def _origin(entry: Mapping[str, Any] | None) -> TrainedOn:
    if entry is None:
        return TrainedOn()
    said = Origin(**{name: entry[name] for name in ("kind", "name", "source")})
    backbone = {name: str(entry["backbone"][name]) for name in ("name", "kind")}
    return TrainedOn(kind=said.kind, name=said.name, source=said.source, backbone=backbone)


def _calibration(entry: Mapping[str, Any] | None, notes: list[str]) -> dict[str, Any] | None:
    if entry is None:
        notes.append(f"{UNCALIBRATED}: the bundle says nothing of it")
        return None
    test = entry.get("test") or {}
    error = test["ece"]["after"] if test else None
    if not entry["fitted"]:
        off = (
            f"; on {test['n']} test cases they were off by {100 * test['ece']['after']:.0f} % on average"
            if test
            else ""
        )
        notes.append(f"{UNCALIBRATED} ({entry['reason']}){off}")
    return {
        "temperature": float(entry["temperature"]),
        "fitted": bool(entry["fitted"]),
        "reason": entry["reason"],
        "ece": None if error is None else float(error),
    }


def _ood_threshold(entry: Mapping[str, Any] | None, blind: list[str]) -> OodThreshold | None:
    if entry is None or not entry["available"]:
        reason = "" if entry is None else f" ({entry['reason']})"
        blind.append(f"{NO_REFERENCE}: {NO_STATISTICS}{reason}")
        return None
    public = "public_cases" in entry
    own = "patients" if "patients" in entry else "training_cases"
    return OodThreshold(
        limit=float(entry["threshold"]),
        share=float(entry["quantile"]),
        cases=int(entry["public_cases" if public else own]),
        public=public,
    )
