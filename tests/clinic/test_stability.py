"""Answers to what might have been shown just as well: what is changed, what it does, and what is said of it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.prediction import predict_loaded, predict_study
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.stability import Stability, find_stability
from monai_fedlora.clinic.state import DOUBTFUL
from monai_fedlora.errors import DataError
from monai_fedlora.studies.finding import find_studies
from monai_fedlora.studies.study import CINE, IMAGE, CineFile, DicomFiles, Study
from tests.clinic.cine_studies import ES_FRAME, affine_of, write_nifti
from tests.exporting.finished_runs import write_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")

FRAMES = [
    "end-diastole one frame earlier", "end-diastole one frame later",
    "end-systole one frame earlier", "end-systole one frame later",
]  # fmt: skip
MOVES = ["right", "left", "down", "up"]


def classifier_of(answer: Callable[[Tensor], list[float]], *, modality: str = CINE) -> Any:
    """A classifier with two classes that gives the probabilities ``answer`` of what it sees."""

    def log_probabilities(batch: Tensor) -> Tensor:
        return torch.tensor([answer(image) for image in batch], dtype=torch.float64).log()

    return Namespace(
        modality=modality,
        metadata={"network_data_format": {"inputs": {"image": {"spacing_mm": [2.0, 2.0, 8.0]}}}},
        prepare=lambda image, affine=None: image,
        batch_log_probabilities=log_probabilities,
    )


def beat(ed: int = 0, es: int = 3, frames: int = 8) -> FrameChoice:
    return FrameChoice(ed=ed, es=es, how="given", areas=(0.5,) * frames, doubts=())


def numbered(ed: int, es: int) -> Tensor:
    """A pair of frames whose levels are their numbers."""
    return torch.stack([torch.full((6, 5, 3), float(frame)) for frame in (ed, es)])


def test_both_frames_of_a_cine_are_moved_by_one_and_its_crop_by_millimetres() -> None:
    seen: list[tuple[float, float]] = []

    def answer(image: Tensor) -> list[float]:
        seen.append((float(image[0].mean()), float(image[1].mean())))
        return [0.4, 0.6]

    loaded = LoadedStudy(image=numbered(0, 3), frames=beat(), with_frames=numbered)
    found, notes = find_stability(classifier_of(answer), loaded, numbered(0, 3), (0.4, 0.6))
    assert found is not None
    assert list(found.changes) == [*FRAMES, *(f"the crop moved {word} by 4 mm" for word in MOVES)]
    assert seen[1:5] == [(7, 3), (1, 3), (0, 2), (0, 4)]
    assert notes == ()
    assert found.probabilities == pytest.approx(np.full((8, 2), [0.4, 0.6]))


def test_frames_are_never_moved_onto_each_other() -> None:
    loaded = LoadedStudy(image=numbered(0, 1), frames=beat(0, 1, 2), with_frames=numbered)
    found, _ = find_stability(classifier_of(lambda image: [0.5, 0.5]), loaded, numbered(0, 1), (0.5, 0.5))
    assert found is not None
    assert [change for change in found.changes if "frame" in change] == []


@pytest.mark.parametrize(("modality", "shape"), [(CINE, (2, 9, 7, 3)), (IMAGE, (3, 50, 50))])
def test_crop_is_moved_as_the_figure_shows_it(modality: str, shape: tuple[int, ...]) -> None:
    """A spot is nearer to the left edge of a crop that lies further right; a cine's first axis runs to the right."""
    right, down = (1, 2) if modality == CINE else (2, 1)
    image = torch.zeros(shape)
    image[:, shape[1] // 2, shape[2] // 2] = 1.0
    images: list[Tensor] = []

    def watch(batch: Tensor) -> Tensor:
        images.extend(batch)
        return torch.zeros(len(batch), 2, dtype=torch.float64)

    watched = classifier_of(lambda one: [0.5, 0.5], modality=modality)
    watched.batch_log_probabilities = watch
    found, _ = find_stability(watched, LoadedStudy(image=image), image, (0.5, 0.5))
    assert found is not None
    spots = {
        change: tuple(int(one.transpose(0, axis).flatten(1).sum(dim=1).argmax()) for axis in (right, down))
        for change, one in zip(("own", *found.changes), images, strict=True)
    }
    x, y = spots["own"]
    for change, spot in spots.items():
        for word, expected in (
            ("right", (x - 2, y)), ("left", (x + 2, y)), ("down", (x, y - 2)), ("up", (x, y + 2)),
        ):  # fmt: skip
            if f"moved {word}" in change:
                assert spot == expected
    assert ("the crop smaller by 8 %" in found.changes) == (modality == IMAGE)


def test_answer_that_changes_is_a_doubt_that_says_what_moved() -> None:
    found = Stability(probabilities=((0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.1, 0.2, 0.7)), changes=("A", "B", "C"))
    (doubt,) = found.doubts(("x", "y", "z"), best=0)
    assert doubt.endswith("it is y with B; z with C")
    assert found.doubts(("x", "y", "z"), best=1)[0].endswith("it is x with A; z with C")
    assert Stability(probabilities=((0.6, 0.4),), changes=("A",)).doubts(("x", "y"), best=0) == []
    assert found.to_json(("x", "y", "z"), (0.5, 0.4, 0.1)) == {
        "answers": 4,
        "range": {"x": [0.1, 0.6], "y": [0.2, 0.7], "z": [0.1, 0.7]},
        "classes": ["x", "y", "z"],
        "moved": ["B", "C"],
    }


def test_change_that_the_model_refuses_or_gives_no_number_for_is_a_note() -> None:
    def prepare(image: Tensor, affine: object = None) -> Tensor:
        if float(image[0, 0, 0, 0]) == 7:
            raise DataError("the model refuses this image: it is blank")
        return image

    def answer(image: Tensor) -> list[float]:
        return [float("nan"), 0.5] if float(image[1].mean()) == 4 else [0.4, 0.6]

    shaky = classifier_of(answer)
    shaky.prepare = prepare
    loaded = LoadedStudy(image=numbered(0, 3), frames=beat(), with_frames=numbered)
    found, notes = find_stability(shaky, loaded, numbered(0, 3), (0.4, 0.6))
    assert found is not None
    assert len(found.changes) == 6
    assert notes == (
        "the answer with end-diastole one frame earlier is not known: the model refuses this image: it is blank",
        "the answer with end-systole one frame later is not finite",
    )


def test_answer_that_rests_on_more_than_what_was_seen_first_is_moved_by_the_same_evidence() -> None:
    def answer(image: Tensor) -> list[float]:
        return [0.5, 0.5] if float(image[1].mean()) == 3 else [0.8, 0.2]

    loaded = LoadedStudy(image=numbered(0, 3), frames=beat(), with_frames=numbered)
    found, _ = find_stability(classifier_of(answer), loaded, numbered(0, 3), (0.2, 0.8))
    assert found is not None
    assert found.probabilities[2] == pytest.approx((0.5, 0.5))  # the odds of the first class four times as high


@pytest.mark.slow
def test_every_answer_is_the_one_to_the_study_with_these_frames(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "cine.nii", cine, affine_of(cine))
    own = predict_study(classifier, Study("p", CineFile(path)), overlay=False)
    assert own.stability is not None
    assert own.frames is not None
    assert (own.frames.ed, own.frames.es) == (0, ES_FRAME)
    for change, frames in zip(FRAMES, [(9, 4), (1, 4), (0, 3), (0, 5)], strict=True):
        given = predict_study(classifier, Study("p", CineFile(path, frames=frames)), overlay=False)
        row = own.stability.probabilities[own.stability.changes.index(change)]
        assert row == pytest.approx(given.probabilities, abs=1e-6)
    for index, (low, high) in enumerate(own.ranges):
        assert low <= own.probabilities[index] <= high
    assert json.loads(json.dumps(own.to_json()))["stability"]["answers"] == 9


def test_two_files_and_photographs_have_the_crop_alone(
    classifier: Classifier, image_classifier: Classifier, tmp_path: Path
) -> None:
    write_pair(tmp_path, "p", shape=(60, 50, 5), spacing=(4.0, 4.0, 10.0))
    Image.fromarray(np.random.default_rng(0).integers(90, 200, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    for model, answers in ((classifier, 5), (image_classifier, 6)):
        (study,) = find_studies([tmp_path], modality=model.modality).studies
        found = predict_study(model, study, overlay=False).stability
        assert found is not None
        assert len(found.changes) + 1 == answers
        assert not [change for change in found.changes if "frame" in change]


@pytest.mark.slow
def test_study_whose_answer_changes_is_doubtful_and_undecided(
    classifier: Classifier, stored_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study("p", DicomFiles(stored_study))
    own = predict_study(classifier, study, overlay=False)
    other = tuple(reversed(own.probabilities))
    changed = Stability(probabilities=(other,), changes=("end-systole one frame later",))
    monkeypatch.setattr("monai_fedlora.clinic.prediction.find_stability", lambda *words, **more: (changed, ("a note",)))
    found = predict_study(classifier, study, overlay=False)
    assert found.undecided
    assert found.state == DOUBTFUL
    assert any("with end-systole one frame later" in doubt for doubt in found.doubts)
    assert "a note" in found.notes
    for name in classifier.classes:
        assert name in found.answer


def test_search_ends_where_nobody_wants_it(classifier: Classifier) -> None:
    class Removed(Exception):
        pass

    def removed() -> None:
        raise Removed

    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Removed):
        predict_loaded(classifier, LoadedStudy(image=image), name="p", on_batch=removed)
