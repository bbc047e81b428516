from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from monai_fedlora.data.phantom.render import LV, MYO, RV
from monai_fedlora.data.phantom.vendors import GROUPS, VENDORS

MNMS_PREVALENCE = {"A": (22, 74), "B": (65, 60), "C": (21, 56), "D": (14, 36)}


@pytest.mark.parametrize("code", VENDORS)
def test_prevalence_is_that_of_the_challenge(code) -> None:
    shares = VENDORS[code].shares()
    normal, abnormal = MNMS_PREVALENCE[code]
    assert tuple(shares) == GROUPS
    assert shares["NOR"] == pytest.approx(normal / (normal + abnormal))
    assert sum(shares.values()) == pytest.approx(1)


def medians(patient, label: int) -> float:
    return float(np.median(patient.image[0][patient.mask[0] == label]))


def test_contrast_and_grey_scale_differ(scan) -> None:
    scans = {code: scan("DCM", code) for code in VENDORS}
    contrast = {code: medians(patient, LV) / medians(patient, MYO) for code, patient in scans.items()}
    ordered = [contrast[code] for code in "DBAC"]
    assert all(high > 1.25 * low for low, high in pairwise(ordered))
    levels = sorted(medians(patient, LV) for patient in scans.values())
    assert all(high > 1.3 * low for low, high in pairwise(levels))


def test_the_noise_over_the_contrast_differs(scan) -> None:
    noise = {}
    for code in VENDORS:
        patient = scan("DCM", code)
        air = np.percentile(patient.image[0], 2)
        noise[code] = air / (medians(patient, LV) - medians(patient, MYO))
    assert noise["D"] > 1.5 * noise["B"] and noise["B"] > 1.5 * noise["A"]


def test_geometry_differs(scan) -> None:
    assert len({scan("DCM", code).spacing for code in VENDORS}) == 4
    assert {scan("DCM", code).spacing[2] for code in VENDORS} == {8.0, 9.0, 10.0}


def test_black_corners_belong_to_one_vendor(scan) -> None:
    corners = {code: scan("DCM", code).image[0][:, 0, 0].any() for code in VENDORS}
    assert corners == {"A": True, "B": True, "C": False, "D": True}


def side_of_rv(patient) -> np.ndarray:
    """Direction (x, y) from the middle of the LV to that of the RV at ED, of length 1."""
    (_, y_rv, x_rv), (_, y_lv, x_lv) = (np.argwhere(patient.mask[0] == label).mean(0) for label in (RV, LV))
    way = np.array([x_rv - x_lv, y_rv - y_lv])
    return way / np.linalg.norm(way)


def test_the_stored_orientation_differs(scan) -> None:
    towards = {code: side_of_rv(scan("DCM", code)) for code in VENDORS}
    assert towards["A"][0] < -0.7 and towards["D"][0] > 0.7
    assert towards["C"][1] < -0.5


@pytest.mark.slow
def test_normal_hearts_differ_between_the_sites(scan, volumes) -> None:
    seeds = range(5, 9)
    size = {code: np.mean([volumes(scan("NOR", code, seed))[0, 0] for seed in seeds]) for code in "BD"}
    assert size["B"] > 1.1 * size["D"]
    heart = {code: [scan("NOR", code, seed).heart.lv_ejection for seed in seeds] for code in "BD"}
    assert np.mean(heart["B"]) > np.mean(heart["D"]) + 0.02
