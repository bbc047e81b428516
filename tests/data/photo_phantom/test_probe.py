"""What a simple classifier sees in the pictures: the classes are in their structure, the cameras in their colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_fedlora.data.photo_phantom.photo_kinds import KINDS

pytestmark = pytest.mark.slow


@dataclass
class Sample:
    pictures: list[np.ndarray]
    classes: list[str]
    cameras: list[str]


@pytest.fixture(scope="module", params=["dermoscopy", "fundus"])
def samples(request) -> tuple[Sample, Sample]:
    """Training and test pictures, every class equally often from every camera."""
    kind = KINDS[request.param]

    def draw(count: int, seed: int) -> Sample:
        rest = [(group, code, n) for n in range(count) for code in kind.cameras for group in kind.demo]
        pictures = [kind.make(g, kind.cameras[c], (seed, i), shot=0, size=96) for i, (g, c, _) in enumerate(rest)]
        return Sample([p.pixels / 255 for p in pictures], [g for g, _, _ in rest], [c for _, c, _ in rest])

    return draw(12, 0), draw(8, 1)


def mean_colour(picture: np.ndarray) -> np.ndarray:
    return picture.mean((0, 1))


def structure(picture: np.ndarray) -> np.ndarray:
    """Energy of four bands in four rings, of brightness and two colour differences, each of unit spread."""
    height, width, _ = picture.shape
    y, x = np.mgrid[:height, :width]
    ring = np.minimum(np.hypot(x - width / 2, y - height / 2) / (height / 8), 4).astype(int)
    features = []
    for plane in (picture.mean(2), picture[..., 0] - picture[..., 1], picture[..., 2] - picture[..., 1]):
        rest = (plane - plane[ring < 4].mean()) / (plane[ring < 4].std() + 1e-3)
        for sigma in (0.8, 1.6, 3.2, 6.4):
            blurred = ndimage.gaussian_filter(rest, sigma)
            band, rest = rest - blurred, blurred
            features += [np.log(band[ring == number].std() + 1e-4) for number in range(4)]
            features.append(np.mean(band[ring < 2] ** 3) / (band[ring < 2].std() + 1e-4) ** 3)
        features += [rest[ring == number].mean() for number in range(4)]
    return np.array(features)


def score(samples: tuple[Sample, Sample], describe, target: str) -> float:
    train, test = ([describe(picture) for picture in sample.pictures] for sample in samples)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=3000))
    model.fit(train, getattr(samples[0], target))
    return balanced_accuracy_score(getattr(samples[1], target), model.predict(test))


def test_classes_are_learned_from_structure_not_from_mean_colour(samples) -> None:
    chance = 1 / len(set(samples[0].classes))
    colour, shape = (score(samples, describe, "classes") for describe in (mean_colour, structure))
    assert colour < chance + 0.25
    assert shape > colour + 0.2 and shape > 0.5


def test_cameras_shift_the_colour(samples) -> None:
    assert score(samples, mean_colour, "cameras") > 0.5
