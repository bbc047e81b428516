from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.retinopathy import COUNTS, GRADES, NONE, QUADRANT, Findings, draw_findings
from monai_fedlora.data.photo_phantom.vessels import DISC, avascular, draw_tree, frond
from monai_fedlora.data.readers import feddrg
from monai_fedlora.errors import ConfigError

CENTRE = np.array([0.1, 0.05])


def draw(grade: str, seed: int) -> Findings:
    return draw_findings(grade, CENTRE, 0.9, np.random.default_rng(seed))


def test_the_grades_are_those_of_gdrbench() -> None:
    assert GRADES == feddrg.GROUPS


@pytest.mark.parametrize("grade", GRADES)
def test_an_eye_has_as_many_findings_as_its_grade_allows(grade) -> None:
    for seed in range(30):
        findings = draw(grade, seed)
        for name in ("microaneurysms", "haemorrhages", "wool", "abnormal"):
            low, high = COUNTS[grade].get(name, NONE)
            assert low <= len(getattr(findings, name)) <= high
        assert len(findings.exudates) <= 29 * COUNTS[grade].get("exudates", NONE)[1]
        new_vessels = len(findings.fronds) + len(findings.preretinal)
        assert (new_vessels > 0) == (grade == "pdr")
        assert (findings.beading > 0) == (grade in ("severe_npdr", "pdr"))


def test_mild_eyes_have_nothing_but_microaneurysms_and_healthy_ones_nothing() -> None:
    for seed in range(30):
        for grade, allowed in (("nodr", {"drusen"}), ("mild_npdr", {"microaneurysms", "drusen"})):
            findings = draw(grade, seed)
            names = ("microaneurysms", "haemorrhages", "exudates", "wool", "abnormal", "fronds", "scars", "drusen")
            assert {name for name in names if len(getattr(findings, name))} <= allowed


def test_severe_eyes_bleed_in_every_quadrant() -> None:
    for seed in range(30):
        right, below = (draw("severe_npdr", seed).haemorrhages - CENTRE > 0).T
        assert min((right == side).__and__(below == level).sum() for side in (0, 1) for level in (0, 1)) >= QUADRANT


@pytest.mark.parametrize("name", ["microaneurysms", "haemorrhages", "wool"])
def test_findings_lie_in_the_picture_off_fovea_and_disc(name) -> None:
    for seed in range(20):
        for grade in ("moderate_npdr", "pdr"):
            places = getattr(draw(grade, seed), name)
            assert (np.hypot(*(places - CENTRE).T) <= 0.9).all()
            assert (np.hypot(*places.T) > 0.1).all() and (np.hypot(*(places - DISC).T) > 0.15).all()


def test_an_unknown_grade_is_refused() -> None:
    with pytest.raises(ConfigError, match="worse"):
        draw("worse", 0)


def test_vessels_start_at_the_disc_thin_out_and_spare_the_fovea() -> None:
    arcades, branches, twigs = draw_tree(np.random.default_rng(0), beading=0)
    assert np.hypot(*(arcades.nodes[:, 0] - DISC).T).max() < 0.15
    assert arcades.width.mean() > branches.width.mean() > twigs.width.mean()
    assert (arcades.nodes[:4, -1, 0] < -1).all() and (arcades.nodes[4:, -1, 0] > 1).all()
    assert np.hypot(*arcades.nodes.transpose(2, 0, 1)).min() > 0.2
    np.testing.assert_array_equal(avascular(np.array([[0, 0], [0.05, 0], [0.5, 0]])), [0, 0, 1])
    for level in (branches, twigs):
        near = np.hypot(*level.nodes.transpose(2, 0, 1)) < 0.1
        assert (level.blood[near] == 0).all()


def test_beading_swings_the_veins_only() -> None:
    calm, beaded = (draw_tree(np.random.default_rng(1), beading=swing)[0].width for swing in (0.0, 0.4))
    np.testing.assert_array_equal(calm[::2], beaded[::2])
    assert np.abs(beaded[1::2] / calm[1::2] - 1).max() > 0.3


def test_a_frond_grows_from_its_root() -> None:
    growth = frond(np.random.default_rng(0), np.array([0.3, -0.4]), 0.3, count=12)
    assert growth.nodes.shape[0] == 12
    assert np.hypot(*(growth.nodes[:, 0] - (0.3, -0.4)).T).max() < 0.08
    assert np.hypot(*(growth.nodes - (0.3, -0.4)).transpose(2, 0, 1)).max() < 0.6
