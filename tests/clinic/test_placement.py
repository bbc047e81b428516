"""Which slice a picture is, and which way of the patient its edges point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.placement import Edges, edge_letters, place
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.cine_studies import write_nifti
from tests.clinic.test_figure import panel, words  # noqa: F401  what is written into figures


def turned(degrees: float, axis: int = 2) -> np.ndarray:
    """Voxels of 1.5, 1.5 and 8 mm, turned around an axis of the world."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, other = (index for index in range(3) if index != axis)
    matrix = np.eye(4)
    matrix[one, one] = matrix[other, other] = cos
    matrix[one, other], matrix[other, one] = -sin, sin
    return matrix @ np.diag([1.5, 1.5, 8.0, 1.0])


def test_letters_name_the_larger_share_first() -> None:
    # columns run to the patient's right, a little to the front; rows to the front, a little to the left
    assert edge_letters(turned(20)) == Edges(left="LP", right="RA", top="PR", bottom="AL")
    assert edge_letters(turned(10)) == Edges(left="L", right="R", top="P", bottom="A")
    assert edge_letters(turned(70)) == Edges(left="PL", right="AR", top="RP", bottom="LA")
    tilted = edge_letters(turned(30, axis=0))
    assert tilted == Edges(left="L", right="R", top="PF", bottom="AH")


@pytest.mark.parametrize(("slices", "seen", "first"), [(6, 4, 1), (4, 4, 0), (3, 4, 0), (11, 4, 3)])
def test_slice_is_the_one_of_the_study(slices: int, seen: int, first: int) -> None:
    cine, affine = np.zeros((8, 8, slices, 10)), turned(20)
    loaded = LoadedStudy(
        image=torch.zeros(2, 12, 12, slices),
        orientation="known",
        cine=cine,
        cine_affine=affine,
        image_affine=affine @ np.diag([0.7, 0.7, 1, 1]),
    )
    placement = place(loaded, torch.zeros(2, 4, 4, seen))
    assert placement is not None
    assert placement.called(0) == f"slice {first + 1} of {slices}"
    assert placement.called(min(seen, slices) - 1) == f"slice {first + min(seen, slices)} of {slices}"
    reverse = affine.copy()
    reverse[:3, 3] += reverse[:3, 2] * (slices - 1)
    reverse[:3, 2] *= -1
    assert placement.edges == Edges(left="LP", right="RA", top="PR", bottom="AL")
    turned_round = place(replace(loaded, image_affine=reverse), torch.zeros(2, 4, 4, seen))
    assert turned_round is not None
    assert turned_round.called(0) == f"slice {slices - first} of {slices}"


def test_photograph_lies_nowhere() -> None:
    assert place(LoadedStudy(image=torch.zeros(3, 8, 8)), torch.zeros(3, 8, 8)) is None


@pytest.mark.slow
def test_figure_marks_slices_and_edges(classifier: Classifier, stored_study: Path, words: list[str]) -> None:  # noqa: F811
    prediction = predict_study(classifier, Study("heart", DicomFiles(stored_study)), overlay=False)
    placement = prediction.placement
    assert placement is not None
    assert placement.edges == Edges(left="RA", right="LP", top="HL", bottom="FR")
    marked = draw_figure(prediction)
    bare = draw_figure(replace(prediction, placement=replace(placement, edges=None)))
    assert any(text.startswith("end-diastole") and text.endswith(f", {placement.called(2)}") for text in words)
    change = np.abs(panel(marked, 0) - panel(bare, 0)).max(axis=2) > 0
    middle = slice(120, 200)
    assert change[middle, :40].any()
    assert change[middle, -40:].any()
    assert change[:30, middle].any()
    assert change[-30:, middle].any()
    assert not change[60:260, 60:260].any()


def test_figure_says_that_there_are_no_markers(
    classifier: Classifier,
    cine: np.ndarray,
    tmp_path: Path,
    words: list[str],  # noqa: F811
) -> None:
    path = write_nifti(tmp_path / "heart.nii.gz", cine, np.diag([1.5, 1.5, 8.0, 1.0]))
    prediction = predict_study(classifier, Study("heart", CineFile(path)), overlay=False)
    picture = draw_figure(prediction)
    assert isinstance(picture, Image.Image)
    assert "Right and left are not marked" in " ".join(words)
