"""Occlusion: against networks whose reasons are known."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.many import predict_all
from monai_fedlora.clinic.occlusion import occlusion_map
from monai_fedlora.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Corner(nn.Module):
    """The second class is the mean of one place of the image, the first one is always 0."""

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, image: Tensor) -> Tensor:
        evidence = image[:, :, self.rows, self.columns].flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(evidence), 6 * evidence], dim=1)


class Plain(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.preprocessor, self.network = nn.Identity(), network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(self.preprocessor(image))


def knowing(rows: slice, columns: slice, image: Tensor) -> Classifier:
    script = torch.jit.script(Plain(torch.jit.trace(Corner(rows, columns), image[None])))
    return Classifier(
        path=Path("B"), name="corner", version="1", sha256="0" * 64, classes=("a", "b"), modality="image",
        style="plain", resampling=None, script=script, device=torch.device("cpu"),
    )  # fmt: skip


def one_after_the_other(classifier: Classifier, image: Tensor, target: int) -> Tensor:
    """The definition: every window covered by itself, what it takes shared out, and the edges blurred."""
    rows, columns = image.shape[1:3]
    total, count = torch.zeros(rows, columns), torch.zeros(rows, columns)
    down, across = math.ceil(rows / 8), math.ceil(columns / 8)
    for x in range(0, rows + 1, down):
        for y in range(0, columns + 1, across):
            window = slice(max(x - down, 0), x + down), slice(max(y - across, 0), y + across)
            covered = image.clone()
            covered[(slice(None), *window)] = image.mean(dim=(1, 2), keepdim=True)
            fall = (
                classifier.batch_log_probabilities(image[None])[0].exp()
                - classifier.batch_log_probabilities(covered[None])[0].exp()
            )
            total[window] += fall[target]
            count[window] += 1
    width = math.ceil(min(rows, columns) / 8) | 1
    edges = [width // 2] * 4
    padded = nn.functional.pad((total / count)[None, None], edges, mode="replicate")
    return nn.functional.avg_pool2d(padded, width, stride=1)[0, 0]


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 50, 41), (2, 48, 36, 5)])
@pytest.mark.parametrize("target", [0, 1])
def test_map_is_that_of_its_definition(shape: tuple[int, ...], target: int) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.4
    image[:, 5:20, 11:30] += 0.5
    classifier = knowing(slice(5, 20), slice(11, 30), image)
    found = occlusion_map(classifier, image, target=target)
    assert float(found.abs().max()) > 0.03
    torch.testing.assert_close(found, one_after_the_other(classifier, image, target), atol=1e-5, rtol=0)


def test_missing_package_is_named_before_anything_is_written(
    image_classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    image = torch.rand(3, 32, 32)
    with pytest.raises(ConfigError, match=r"monai-fedlora\[clinic\].*--no-overlay"):
        occlusion_map(image_classifier, image, target=0)
    with pytest.raises(ConfigError, match=r"monai-fedlora\[clinic\].*--no-overlay"):
        predict_all(image_classifier, [], tmp_path / "O")
    assert not (tmp_path / "O").exists()
    assert predict_all(image_classifier, [], tmp_path / "O", overlay=False) == []


@pytest.fixture(params=[(3, 64, 64), (2, 48, 64, 5)], ids=["photograph", "cine"])
def image(request: pytest.FixtureRequest) -> Tensor:
    return torch.rand(request.param, generator=torch.Generator().manual_seed(0)) - 0.5


def test_only_the_place_that_counts_is_marked(image: Tensor) -> None:
    rows, columns = slice(0, 8), slice(40, 56)
    image[:, rows, columns] += 0.4
    found = occlusion_map(knowing(rows, columns, image), image, target=1)
    assert found.shape == image.shape[1:3]
    peak = divmod(int(found.argmax()), found.shape[1])
    assert peak[0] < 12
    assert 38 <= peak[1] < 58
    assert float(found[:8, 44:52].mean()) > 0.1
    assert float(found[24:].abs().max()) < 1e-6
    assert float(found[:, :24].abs().max()) < 1e-6


def test_what_speaks_against_a_class_is_negative(image: Tensor) -> None:
    place = slice(8, 24), slice(8, 24)
    image[:, place[0], place[1]] += 0.4
    classifier = knowing(*place, image)
    assert float(occlusion_map(classifier, image, target=1).max()) > 0.1
    other = occlusion_map(classifier, image, target=0)
    assert float(other.min()) < -0.1
    assert float(other.max()) < 1e-6


def test_a_window_over_the_whole_reason_takes_the_whole_evidence(image: Tensor) -> None:
    """Hiding a reason that fits into one window leaves the mean of the image in its place."""
    place = slice(17, 21), slice(17, 21)
    image[:, place[0], place[1]] += 0.6
    classifier = knowing(*place, image)
    covered = image.clone()
    covered[:, place[0], place[1]] = image.mean(dim=(1, 2), keepdim=True)
    expected = (
        classifier.batch_log_probabilities(image[None])[0].exp()[1]
        - classifier.batch_log_probabilities(covered[None])[0].exp()[1]
    )
    largest = float(occlusion_map(classifier, image, target=1).max())
    assert 0.4 * float(expected) < largest <= float(expected) * 1.001


def test_relevance_of_an_exported_model_is_finite(image_classifier: Classifier) -> None:
    image = torch.rand(3, 50, 40, generator=torch.Generator().manual_seed(0))
    prepared = image_classifier.prepare(image)
    found = occlusion_map(image_classifier, prepared, target=0)
    assert found.shape == prepared.shape[1:]
    assert bool(torch.isfinite(found).all())
    assert float(found.abs().max()) > 0
