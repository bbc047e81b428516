"""The figure: what the network saw, upright, and nothing that names a patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fedlora.clinic import figure
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.overlay import lay_over
from monai_fedlora.clinic.prediction import Prediction
from monai_fedlora.clinic.stability import Stability

FRAMES = FrameChoice(ed=0, es=3, how="ED: first; ES: smallest", areas=(0.3, 0.2, 0.1, 0.0, 0.1, 0.3), doubts=())


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is written into figures."""
    written: list[str] = []
    write = figure._write

    def record(draw: object, corner: tuple[int, int], text: str, *style: object, **more: object) -> None:
        written.append(text)
        write(draw, corner, text, *style, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(figure, "_write", record)
    return written


@pytest.fixture
def heart(classifier: Classifier) -> Prediction:
    """ED is bright in the corner of small x and large y, ES in that of large x and small y."""
    seen = torch.zeros(2, 32, 32, 4)
    seen[0, :8, 24:, :3] = 1.0
    seen[1, 24:, :8, :3] = 1.0
    return Prediction(
        study="Janette Doeringer", classifier=classifier, probabilities=(0.25, 0.75), doubts=(), notes=(), frames=None,
        prepared=seen, relevance=None, sources=(),
    )  # fmt: skip


@pytest.fixture
def photograph(image_classifier: Classifier) -> Prediction:
    settings = {name.rpartition(".")[2]: value for name, value in image_classifier.script.preprocessor.named_buffers()}
    levels = torch.full((3, 32, 32), 0.5)
    levels[:, :8, 20:] = torch.tensor([0.9, 0.1, 0.2])[:, None, None]
    return Prediction(
        study="Janette Doeringer", classifier=image_classifier, probabilities=(0.6, 0.4), doubts=(), notes=(),
        frames=None,
        prepared=(levels - settings["mean"]) / settings["std"], relevance=None, sources=(),
    )  # fmt: skip


def panel(picture: Image.Image, column: int, row: int = 0) -> np.ndarray:
    """(320, 320, 3) levels of one of the figure's pictures."""
    left = figure._GAP + column * (figure._PANEL + figure._GAP)
    top = figure._TOP + row * (figure._PANEL + figure._LINE + figure._GAP)
    return np.asarray(picture)[top : top + figure._PANEL, left : left + figure._PANEL].astype(float)


def brightest(levels: np.ndarray) -> tuple[str, str]:
    """In which corner most light is: (top or bottom, left or right)."""
    grey = levels.mean(axis=2)
    rows, columns = grey.sum(axis=1), grey.sum(axis=0)
    half = figure._PANEL // 2
    return (
        "top" if rows[:half].sum() > rows[half:].sum() else "bottom",
        "left" if columns[:half].sum() > columns[half:].sum() else "right",
    )


def test_frames_stand_side_by_side_with_columns_to_the_right_and_rows_downwards(heart: Prediction) -> None:
    picture = draw_figure(heart)
    assert brightest(panel(picture, 0)) == ("bottom", "left")
    assert brightest(panel(picture, 1)) == ("top", "right")


def test_photograph_has_the_colours_of_the_camera(photograph: Prediction) -> None:
    levels = panel(draw_figure(photograph), 0)
    np.testing.assert_allclose(levels[20, 260], [230, 26, 51], atol=3)
    np.testing.assert_allclose(levels[250, 60], [128, 128, 128], atol=2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["heart", "photograph"])
def test_relevance_lies_where_it_belongs(kind: str, sign: float, request: pytest.FixtureRequest) -> None:
    """Of a heart the first axis runs to the right, of a photograph downwards; red is for, blue against the answer."""
    prediction: Prediction = request.getfixturevalue(kind)
    relevance = torch.zeros(32, 32)
    relevance[2:10, 18:26] = sign
    picture = draw_figure(replace(prediction, relevance=relevance))
    change = panel(picture, 0, row=1) - panel(picture, 0)
    row, column = (220, 60) if kind == "heart" else (60, 220)
    changed = change[row, column]
    assert (changed[0] > changed[2]) == (sign > 0)
    assert np.abs(change[column, row]).max() < 1
    assert np.abs(changed).max() > 20


def test_relevance_that_changes_nothing_is_not_blown_up(heart: Prediction, words: list[str]) -> None:
    picture = draw_figure(replace(heart, relevance=torch.full((32, 32), 0.001)))
    np.testing.assert_array_equal(panel(picture, 0, row=1), panel(picture, 0))
    assert any("no single place changes the answer" in text for text in words)


def test_a_weak_map_is_weaker_than_a_strong_one_and_has_the_colours_of_the_page(heart: Prediction) -> None:
    weak, strong = torch.zeros(32, 32), torch.zeros(32, 32)
    weak[2:10, 18:26], strong[2:10, 18:26] = 0.02, 0.2
    seen = replace(heart, prepared=torch.full((2, 32, 32, 4), 0.5))
    levels = [panel(draw_figure(replace(seen, relevance=one)), 0, row=1)[220, 60] for one in (weak, strong)]
    for level, change in zip(levels, (0.02, 0.2), strict=True):
        np.testing.assert_allclose(level, lay_over(np.full((1, 1, 3), 127.5), np.array([[change]]))[0, 0], atol=1.5)
    assert levels[0][0] - levels[0][2] < levels[1][0] - levels[1][2] - 60


def test_answer_model_notice_frames_and_doubts_are_said(heart: Prediction, words: list[str]) -> None:
    timed = replace(FRAMES, times_ms=(10.0, 60.4, 110.0, 160.4, 210.0, 260.0))
    told = replace(heart, frames=timed, doubts=("it is no heart",), notes=("two series",), relevance=torch.ones(32, 32))
    draw_figure(told)
    text = " ".join(words)
    for part in (
        "ABN 75.0 %: doubtful",
        "NOR",
        "25.0 %",
        "site-1 model 1.0.0",
        told.classifier.sha256[:12],
        "Not a medical device",
        "end-diastole, frame 1 (10 ms): an aid, not evidence",
        "end-systole, frame 4 (160 ms)",
        "ED 1",
        "ES 4",
        "Doubtful because it is no heart.",
        "Note: two series.",
        "Less than 1 point is not",
        "by up to 100 points",
    ):
        assert part in text


def test_figure_names_neither_study_nor_patient(heart: Prediction, words: list[str], tmp_path: Path) -> None:
    picture = draw_figure(replace(heart, frames=FRAMES, relevance=torch.ones(32, 32)))
    picture.save(tmp_path / "figure.png")
    assert "Doeringer" not in " ".join(words)
    assert b"Doeringer" not in (tmp_path / "figure.png").read_bytes()


def test_the_middle_of_the_slices_that_are_there_is_shown(heart: Prediction) -> None:
    seen = torch.zeros(2, 32, 32, 4)
    seen[:, :, :, 0], seen[:, :, :, 1], seen[:, :, :, 2] = 0.2, 0.6, 0.3
    levels = panel(draw_figure(replace(heart, prepared=seen)), 0)
    np.testing.assert_allclose(levels, 153, atol=1)


def test_many_classes_and_long_words_fit(heart: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    corners: list[tuple[int, int]] = []
    monkeypatch.setattr(figure, "_write", lambda draw, corner, *words, **style: corners.append(corner))
    many = replace(heart.classifier, classes=tuple(f"class {number} with a long name" for number in range(40)))
    shares = (0.61, *[0.01] * 39)
    told = replace(heart, classifier=many, probabilities=shares, doubts=("a long doubt " * 20,) * 5)
    picture = draw_figure(told)
    assert picture.size[0] == draw_figure(heart).size[0]
    lowest = max(corner[1] for corner in corners)
    assert draw_figure(heart).size[1] < lowest + 19 <= picture.size[1]


@pytest.mark.parametrize("calibrated", [True, False])
def test_range_over_small_changes_is_drawn_and_told_in_as_many_digits_as_the_answer(
    heart: Prediction, words: list[str], calibrated: bool
) -> None:
    model = heart.classifier
    trust = replace(model.trust, calibration={**(model.trust.calibration or {}), "fitted": calibrated})
    seen = Stability(probabilities=((0.3123, 0.6877), (0.2, 0.8)), changes=("a", "b"))
    told = replace(heart, classifier=replace(model, trust=trust), stability=seen)
    draw_figure(told)
    expected = ("75.0 %", "68.8 to 80.0 %", "20.0 to 31.2 %") if calibrated else ("75 %", "69 to 80 %", "20 to 31 %")
    assert set(expected) <= set(words)


@pytest.mark.parametrize(
    ("shares", "doubts", "blind", "heading"),
    [
        ((0.25, 0.75), (), (), "ABN 75.0 %: no doubt found"),
        ((0.25, 0.75), ("it is grey",), ("c",), "ABN 75.0 %: doubtful"),
        ((0.25, 0.75), (), ("c",), "ABN 75.0 %: cannot tell"),
        ((0.52, 0.48), (), (), "undecided: NOR 52.0 % or ABN 48.0 %: no doubt found"),
    ],
)
def test_heading_has_the_answer_and_its_state(
    heart: Prediction, words: list[str], shares: tuple[float, ...], doubts: tuple[str, ...], blind: tuple[str, ...],
    heading: str,
) -> None:  # fmt: skip
    model = replace(heart.classifier, trust=replace(heart.classifier.trust, blind=blind))
    draw_figure(replace(heart, classifier=model, probabilities=shares, doubts=doubts))
    assert heading in words
