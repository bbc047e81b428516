from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.outline_figure import COLOURS, draw_outlines
from monai_fedlora.clinic.outlining import OutlinedHeart, outline_study
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.cine_studies import beating_heart, write_study
from tests.clinic.outliners import GreyOutliner


@pytest.fixture(scope="module")
def heart(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> OutlinedHeart:
    folder = write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8))
    return outline_study(GreyOutliner(), load_study(Study("p", DicomFiles(folder)), classifier))


def count(heart: OutlinedHeart, name: str, *, columns: slice = slice(0, 750)) -> int:
    picture = np.asarray(draw_outlines(heart, orientation="known"))[74:, columns]
    return int((picture == COLOURS[name]).all(axis=2).sum())


def test_outlines_are_drawn_in_their_colours(heart: OutlinedHeart) -> None:
    assert count(heart, "LV") > 500 and count(heart, "MYO") > 500
    bare = replace(heart, measured=replace(heart.measured, masks=np.zeros_like(heart.measured.masks)))
    assert count(bare, "LV") == count(bare, "MYO") == 0


def test_more_text_makes_a_higher_picture(heart: OutlinedHeart) -> None:
    longer = replace(heart, disagreements=tuple(f"Class and volumes disagree, {number}." for number in range(20)))
    assert draw_outlines(longer).height > draw_outlines(heart).height >= 600


def test_without_volumes_no_curve_is_drawn(heart: OutlinedHeart) -> None:
    def curve(of: OutlinedHeart) -> int:
        picture = np.asarray(draw_outlines(of))[130:, 770:]
        return int((picture == COLOURS["LV"]).all(axis=2).sum())

    assert curve(heart) > 100
    assert curve(replace(heart, measured=replace(heart.measured, function=None))) == 0
