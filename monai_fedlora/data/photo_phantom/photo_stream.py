"""An endless stream of labelled pictures of lesions and retinas, drawn while it is read and kept nowhere.

Item ``i`` of the stream with seed ``s`` follows from ``(s, i)`` alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_fedlora.data.endless import OneThread
from monai_fedlora.data.photo_phantom.captions import SIGNS
from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy, make_dermoscopy
from monai_fedlora.data.photo_phantom.free_dermatoscope import draw_dermatoscope, draw_habit, draw_optics
from monai_fedlora.data.photo_phantom.fundus import Fundus, make_fundus
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS
from monai_fedlora.data.photo_phantom.lesions import CLASSES, DIAGNOSES
from monai_fedlora.data.photo_phantom.retinopathy import GRADES
from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.photograph import photograph_preprocessor
from monai_fedlora.transforms.photograph_geometry import cut_square, resize

NUMBERS = ("area", "asymmetry", "irregularity", "pigment", "variegation", "blood")
"""What is measured on a lesion: its share of the picture, the two measures of `outline.Outline`, the mean and the
standard deviation of its melanin, and its mean blood."""
MAPS = ("lesion", "melanin", "blood", "blue", "horn", "white")
"""The maps of an item: the lesion's mask, and the amounts of `tissue.Layers`."""
LABELS = (*CLASSES, *GRADES)
"""The classes of lesions and of retinas."""

_RETINAS = 0.2  # share among the pictures
_SIZE = 96  # shorter side of a picture, pixels
_MOST = {"melanin": 2.0, "blood": 1.5}  # amounts that a map shows as 1; covering layers are shares


class PhotoStream(Dataset[dict[str, Any]]):
    """Pictures by number, for any number from 0: four lesions in five, and retinas.

    An item is a dictionary:

    * ``image``: (3, H, W) float32 in [0, 1], as the preprocessing of dermoscopic or fundus photographs gives it before
      a backbone's own normalisation.
    * ``maps``: (6, H, W) float32 in [0, 1], cut and scaled with the image, see ``MAPS``. A retina has no lesion.
    * ``numbers``: (6,) float32, see ``NUMBERS``; zeros for a retina.
    * ``signs``: (17,) float32, 1 for each sign of ``captions.SIGNS`` that was drawn; zeros for a retina.
    * ``label``: int64, a number in ``LABELS``.

    Args:
        image_size: pixels (H, W) of the network's input; both equal.
        seed: of the stream.
    """

    def __init__(self, *, image_size: Sequence[int], seed: int) -> None:
        plain: dict[str, Any] = {"image_size": image_size, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        self.preprocessors = {
            style: photograph_preprocessor(style=style, **plain) for style in ("dermoscopy", "fundus")
        }
        self.seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            raise ConfigError(f"item {index} of a stream of pictures: numbers begin at 0")
        rng = np.random.default_rng((self.seed, index, 1))
        with OneThread():
            if rng.random() < _RETINAS:
                return self._retina(rng, (self.seed, index))
            return self._lesion(rng, (self.seed, index))

    def _lesion(self, rng: np.random.Generator, seed: tuple[int, int]) -> dict[str, Any]:
        name = CLASSES[rng.integers(len(CLASSES))]
        habit = draw_habit(DIAGNOSES[name].habit, rng)
        picture = make_dermoscopy(name, draw_dermatoscope(rng), seed, size=_SIZE, habit=habit)
        image, maps = self._shown("dermoscopy", picture, picture.mask)
        melanin, blood = (part[picture.mask] for part in (picture.layers.melanin, picture.layers.blood))
        numbers = [
            float(maps[0].mean()),
            picture.outline.asymmetry(),
            picture.outline.irregularity(),
            *((float(melanin.mean()), float(melanin.std()), float(blood.mean())) if melanin.size else (0.0, 0.0, 0.0)),
        ]
        signs = [float(picture.signs.get(sign, 0.0) > 0) for sign in SIGNS]
        return _item(image, maps, numbers, signs, LABELS.index(name))

    def _retina(self, rng: np.random.Generator, seed: tuple[int, int]) -> dict[str, Any]:
        grade = GRADES[rng.integers(len(GRADES))]
        cameras = list(FUNDUS_CAMERAS.values())
        camera = replace(cameras[rng.integers(len(cameras))], optics=draw_optics(rng))
        picture = make_fundus(grade, camera, seed, shot=int(rng.integers(2)), size=_SIZE)
        image, maps = self._shown("fundus", picture, np.zeros(picture.field.shape, bool))
        return _item(image, maps, [0.0] * len(NUMBERS), [0.0] * len(SIGNS), LABELS.index(grade))

    def _shown(self, style: str, picture: Dermoscopy | Fundus, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        """The image and the maps as the network sees them."""
        preprocessor = self.preprocessors[style]
        levels = torch.from_numpy(picture.pixels).permute(2, 0, 1).float() / 255
        amounts = dict(zip(MAPS, (mask.astype(np.float32), *astuple(picture.layers)), strict=True))
        maps = torch.stack([torch.from_numpy(part / _MOST.get(name, 1.0)) for name, part in amounts.items()])
        shown = cut_square(maps.float().clamp(0, 1), preprocessor.box(levels))
        return preprocessor(levels[None])[0], resize(shown[None], preprocessor.size)[0]


def _item(image: Tensor, maps: Tensor, numbers: list[float], signs: list[float], label: int) -> dict[str, Any]:
    return {
        "image": image,
        "maps": maps,
        "numbers": torch.tensor(numbers, dtype=torch.float32),
        "signs": torch.tensor(signs, dtype=torch.float32),
        "label": torch.tensor(label),
    }
