"""How far an answer moves when what might have been shown just as well is shown.

Which frame is end-diastole and which end-systole is uncertain by about a frame, and where the heart lies by some
millimetres; how a photograph was framed is chance. So the network is asked again with each of both frames one earlier
and one later, where there is a cine, and with the crop moved in all four directions; for a photograph also with a
smaller crop. The heart is looked for again with other frames. A moved crop repeats the edge of what the network saw,
because no more is known of it (all ours). Where a file has lost the orientation, so that the answer is a mean over all
orders of the axes, the answers to these orders count as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cine_orders import in_other_orders
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import CINE

SHIFT_MM = 4.0
"""A cine's crop is moved by as many whole voxels as come nearest to this, one at least (ours)."""

SHIFT_SHARE = 0.04
"""A photograph's crop is moved by this share of its side, and made smaller by twice as much (ours)."""

_AT_ONCE = 8
"""Images that the network sees in one batch (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """The answers to one study over changes of what is shown that mean nothing.

    Attributes:
        probabilities: of the classes, one row per change; the answer to the study itself is not among them.
        changes: in words, one per row; several rows may be of one kind.
    """

    probabilities: tuple[tuple[float, ...], ...]
    changes: tuple[str, ...]

    @property
    def answers(self) -> tuple[int, ...]:
        """Index of the most probable class, by row."""
        return tuple(max(range(len(row)), key=row.__getitem__) for row in self.probabilities)

    def ranges(self, probabilities: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """Lowest and highest probability of each class, the study's own ``probabilities`` among them."""
        return tuple((min(column), max(column)) for column in zip(probabilities, *self.probabilities, strict=True))

    def moved(self, best: int) -> tuple[str, ...]:
        """The changes after which another class than ``best`` is the most probable one."""
        pairs = zip(self.changes, self.answers, strict=True)
        return tuple(dict.fromkeys(change for change, answer in pairs if answer != best))

    def doubts(self, classes: Sequence[str], best: int) -> list[str]:
        """What another class than ``best`` says to a reader, with what brings it about; nothing without one."""
        by_class: dict[int, Counter[str]] = {}
        for change, answer in zip(self.changes, self.answers, strict=True):
            if answer != best:
                by_class.setdefault(answer, Counter())[f"with {change}"] += 1
        kinds = Counter(f"with {change}" for change in self.changes)

        def named(change: str, times: int) -> str:
            return change if kinds[change] == 1 else f"{change} ({times} of {kinds[change]})"

        said = "; ".join(
            f"{classes[answer]} {', '.join(named(change, times) for change, times in found.items())}"
            for answer, found in by_class.items()
        )
        return [f"changes of what is shown that mean nothing change the answer: it is {said}"] if said else []

    def to_json(self, classes: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
        """For programs; ``probabilities`` are the study's own."""
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return {
            "answers": len(self.changes) + 1,
            "range": {name: list(span) for name, span in zip(classes, self.ranges(probabilities), strict=True)},
            "classes": [classes[index] for index in sorted({best, *self.answers})],
            "moved": list(self.moved(best)),
        }


def find_stability(
    classifier: Classifier,
    loaded: LoadedStudy,
    prepared: Tensor,
    probabilities: Sequence[float],
    *,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Stability | None, tuple[str, ...]]:
    """Ask the network again.

    Args:
        classifier: the model.
        loaded: the study.
        prepared: what the network saw of it, as of :meth:`monai_fedlora.clinic.bundle.Classifier.prepare`.
        probabilities: the answer to it. Where that is no answer to ``prepared`` alone, it is moved as that one is: by
            the same differences of log-probabilities.
        on_batch: called before the network sees some images; what it raises ends the search.

    Returns:
        The answers, None if there is none; and notes on the changes that the model refused.
    """
    changed, refused = _with_other_frames(classifier, loaded)
    changed += _moved(classifier, prepared)
    rows, changes = [], []
    own = _asked(classifier, [("", prepared)], on_batch)[0]
    given = torch.tensor(probabilities, dtype=torch.float64).log()
    moved = [given + found - own for found in _asked(classifier, changed, on_batch)]
    orders = in_other_orders(classifier, loaded, prepared)
    moved += _asked(classifier, orders, on_batch)
    for (change, _), logits in zip([*changed, *orders], moved, strict=True):
        row = logits.softmax(dim=0)
        if bool(torch.isfinite(row).all()):
            rows.append(tuple(row.tolist()))
            changes.append(change)
        else:
            refused.append(f"the answer with {change} is not finite")
    return Stability(probabilities=tuple(rows), changes=tuple(changes)) if rows else None, tuple(refused)


def _asked(classifier: Classifier, images: Sequence[tuple[str, Tensor]], on_batch: Callable[[], None]) -> list[Tensor]:
    """Log-probabilities (classes,) float64 of each."""
    found: list[Tensor] = []
    for first in range(0, len(images), _AT_ONCE):
        on_batch()
        batch = torch.stack([image for _, image in images[first : first + _AT_ONCE]])
        found += classifier.batch_log_probabilities(batch).double()
    return found


def _with_other_frames(classifier: Classifier, loaded: LoadedStudy) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """What the network sees with each frame of a cine's pair one earlier or later in the beat; what was refused."""
    chosen, found, refused = loaded.frames, [], []
    if chosen is None or loaded.with_frames is None:
        return [], []
    affine = None if loaded.image_affine is None else torch.from_numpy(loaded.image_affine)
    frames = len(chosen.areas)
    for name, end, other in (("end-diastole", "ed", chosen.es), ("end-systole", "es", chosen.ed)):
        for word, step in (("earlier", -1), ("later", 1)):
            frame = (getattr(chosen, end) + step) % frames
            if frame == other:
                continue
            change = f"{name} one frame {word}"
            pair = (frame, chosen.es) if end == "ed" else (chosen.ed, frame)
            try:
                found.append((change, classifier.prepare(loaded.with_frames(*pair), affine)))
            except DataError as error:
                refused.append(f"the answer with {change} is not known: {error}")
    return found, refused


def _moved(classifier: Classifier, prepared: Tensor) -> list[tuple[str, Tensor]]:
    """What the network sees with the crop moved; the first image axis of a cine is shown to the right."""
    if classifier.modality == CINE:
        voxel = _voxel_mm(classifier)
        step = max(1, round(SHIFT_MM / voxel))
        size, right, down = f"{step * voxel:.3g} mm", 1, 2
    else:
        step = max(1, round(SHIFT_SHARE * prepared.shape[2]))
        size, right, down = f"{100 * step / prepared.shape[2]:.0f} %", 2, 1
    found = [
        (f"the crop moved {word} by {size}", _slid(prepared, axis, sign * step))
        for word, axis, sign in (("right", right, 1), ("left", right, -1), ("down", down, 1), ("up", down, -1))
    ]
    if classifier.modality != CINE:
        found.append((f"the crop smaller by {200 * step / prepared.shape[2]:.0f} %", _enlarged(prepared, step)))
    return found


def _voxel_mm(classifier: Classifier) -> float:
    """In-plane width of a voxel of what the network sees."""
    return float(classifier.metadata["network_data_format"]["inputs"]["image"]["spacing_mm"][0])


def _slid(image: Tensor, axis: int, step: int) -> Tensor:
    """The window moved by ``step`` along an axis; the edge is repeated."""
    length = image.shape[axis]
    places = (torch.arange(length) + step).clamp(0, length - 1)
    return image.index_select(axis, places)


def _enlarged(image: Tensor, border: int) -> Tensor:
    """(C, H, W) without its border, at the old size."""
    inner = image[None, :, border : image.shape[1] - border, border : image.shape[2] - border]
    return F.interpolate(inner, size=list(image.shape[1:]), mode="bilinear", align_corners=False)[0]
