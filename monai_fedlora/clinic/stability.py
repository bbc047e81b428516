"""How much an answer changes when the image is changed in ways that should not matter.

The choice of the end-diastolic and end-systolic frame is uncertain by about one frame, the position of the heart by
some millimetres, and the framing of a photograph is chance. So the network classifies the study again with each of the
two frames one earlier and one later (if there is a whole cine), and with the crop moved in all four directions; a
photograph also with a smaller crop. With other frames the heart is located again. A moved crop repeats the border of
the network's input (all ours). Where the orientation is unknown, so that the answer is the mean over all orders of the
axes, the answers to the single orders count as well.
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
from monai_fedlora.clinic.state import most_probable
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import CINE

SHIFT_MM = 4.0
"""A cine's crop is moved by as many whole voxels as come nearest to this, one at least (ours)."""

SHIFT_SHARE = 0.04
"""A photograph's crop is moved by this share of its side, and made smaller by twice as much (ours)."""

_AT_ONCE = 8
"""Images per batch (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """The answers to slightly changed images of one study.

    Attributes:
        probabilities: of the classes, one row per change; the answer to the unchanged study is not among them.
        changes: description of each row's change; several rows may have the same.
    """

    probabilities: tuple[tuple[float, ...], ...]
    changes: tuple[str, ...]

    @property
    def answers(self) -> tuple[int, ...]:
        """Index of the most probable class, by row."""
        return tuple(map(most_probable, self.probabilities))

    def ranges(self, probabilities: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """Lowest and highest probability of each class, the study's own ``probabilities`` among them."""
        return tuple((min(column), max(column)) for column in zip(probabilities, *self.probabilities, strict=True))

    def moved(self, best: int) -> tuple[str, ...]:
        """The changes after which another class than ``best`` is the most probable one."""
        pairs = zip(self.changes, self.answers, strict=True)
        return tuple(dict.fromkeys(change for change, answer in pairs if answer != best))

    def doubts(self, classes: Sequence[str], best: int) -> list[str]:
        """A doubt that names the changes after which another class than ``best`` is the most probable."""
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
        """As part of a result's JSON file; ``probabilities`` are those of the unchanged study."""
        best = most_probable(probabilities)
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
    """Classify slightly changed images of a study.

    Args:
        classifier: the model.
        loaded: the study.
        prepared: its image from :meth:`monai_fedlora.clinic.bundle.Classifier.prepare`.
        probabilities: the answer to the study. If that is a mean over several orders of the axes, the effect of a
            change on the log-probabilities of ``prepared`` is added to it.
        on_batch: called before every batch; an exception that it raises ends the computation.

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
    """Prepared images with ED or ES one frame earlier or later in the beat; notes on those that the model refused."""
    chosen, found, refused = loaded.frames, [], []
    if chosen is None or loaded.with_frames is None:
        return [], []
    affine = None if loaded.image_affine is None else torch.from_numpy(loaded.image_affine)
    frames = len(chosen.areas)
    changes = {
        "end-diastole one frame earlier": (chosen.ed - 1, chosen.es),
        "end-diastole one frame later": (chosen.ed + 1, chosen.es),
        "end-systole one frame earlier": (chosen.ed, chosen.es - 1),
        "end-systole one frame later": (chosen.ed, chosen.es + 1),
    }
    for change, (ed, es) in changes.items():
        if (ed - es) % frames:
            try:
                image = loaded.with_frames(ed % frames, es % frames)
                found.append((change, classifier.prepare(image, affine)))
            except DataError as error:
                refused.append(f"the answer with {change} is not known: {error}")
    return found, refused


def _moved(classifier: Classifier, prepared: Tensor) -> list[tuple[str, Tensor]]:
    """Prepared images with the crop moved or smaller; the first image axis of a cine is shown to the right."""
    if classifier.modality == CINE:
        voxel = float(classifier.metadata["network_data_format"]["inputs"]["image"]["spacing_mm"][0])
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


def _slid(image: Tensor, axis: int, step: int) -> Tensor:
    """The image moved by ``step`` along an axis; the border is repeated."""
    length = image.shape[axis]
    places = (torch.arange(length) + step).clamp(0, length - 1)
    return image.index_select(axis, places)


def _enlarged(image: Tensor, border: int) -> Tensor:
    """(C, H, W) without its border, at the old size."""
    inner = image[None, :, border : image.shape[1] - border, border : image.shape[2] - border]
    return F.interpolate(inner, size=list(image.shape[1:]), mode="bilinear", align_corners=False)[0]
