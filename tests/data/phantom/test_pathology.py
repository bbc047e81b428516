from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from monai_fedlora.data.phantom.pathology import Region, draw_heart
from monai_fedlora.data.phantom.render import LV, MYO
from monai_fedlora.data.phantom.vendors import GROUPS, VENDORS
from monai_fedlora.errors import ConfigError


def thickest_wall(patient) -> float:
    """Diameter in mm of the largest circle that fits into the muscle of a middle slice."""
    area = (patient.mask[0] == LV).sum((1, 2))
    middle = np.flatnonzero(area > 0.5 * area.max())
    muscle = np.pad(patient.mask[0, middle] == MYO, ((0, 0), (1, 1), (1, 1)))
    return max(2 * distance_transform_edt(ring).max() * patient.spacing[0] for ring in muscle)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("group", GROUPS)
def test_masks_meet_the_criteria_of_the_group(group, vendor, scan, volumes) -> None:
    patient = scan(group, vendor)
    (lv, _, rv), (lv_es, _, rv_es) = volumes(patient)
    surface = patient.heart.surface
    ejection, rv_ejection = 1 - lv_es / lv, 1 - rv_es / rv
    wall = thickest_wall(patient)
    if group == "NOR":
        assert ejection > 0.5 and rv_ejection > 0.4 and wall < 12
        assert 50 < lv / surface < 90 and rv / surface < 100
    elif group == "MINF":
        assert ejection < 0.4 and wall < 13
    elif group == "DCM":
        assert ejection < 0.4 and lv / surface > 100 and wall < 12
    elif group == "HCM":
        assert ejection > 0.55 and wall > 15
    else:
        assert rv / surface > 110 or rv_ejection < 0.4
        assert ejection > 0.5 and wall < 12


@pytest.mark.parametrize("group", GROUPS)
def test_mask_volumes_are_those_of_the_drawn_heart(group, scan, volumes) -> None:
    patient = scan(group)
    (lv, _, rv), (lv_es, _, rv_es) = volumes(patient)
    heart = patient.heart
    assert lv == pytest.approx(heart.lv_volume, rel=0.01)
    assert rv == pytest.approx(heart.rv_volume, rel=0.01)
    assert 1 - lv_es / lv == pytest.approx(heart.lv_ejection, abs=0.015)
    assert 1 - rv_es / rv == pytest.approx(heart.rv_ejection, abs=0.015)


@pytest.mark.parametrize("group", GROUPS)
def test_muscle_mass_is_conserved_while_the_wall_thickens(group, scan, volumes) -> None:
    patient = scan(group)
    (_, muscle, _), (_, muscle_es, _) = volumes(patient)
    assert muscle_es == pytest.approx(muscle, rel=0.02)
    middle = patient.mask.shape[1] // 2
    area, area_es = ((patient.mask[frame, middle] == MYO).sum() for frame in (0, 1))
    assert area_es > area


def test_patients_of_a_group_differ_and_repeat() -> None:
    hearts = [draw_heart("NOR", VENDORS["A"], np.random.default_rng(seed)) for seed in (0, 1, 0)]
    assert hearts[0] == hearts[2] != hearts[1]
    assert hearts[0].surface == pytest.approx(np.sqrt(hearts[0].height * hearts[0].weight / 3600))


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(ConfigError, match="'ARV'"):
        draw_heart("ARV", VENDORS["A"], np.random.default_rng(0))


def test_a_region_is_full_in_its_middle_and_empty_outside_on_the_shorter_way_round() -> None:
    region = Region(angle=3.0, half_width=0.5, height=0.5, half_height=0.2)
    weight = region.weight(np.array([3.0, -3.1, 0.0, 2.0]), np.array([[0.5], [0.9]]))
    np.testing.assert_allclose(weight, [[1, 1, 0, 0], [0, 0, 0, 0]], atol=1e-9)
