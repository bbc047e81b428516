"""Images that show something else than a heart in motion are told by their header."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from monai_fedlora.clinic.dicom_kinds import differ, why_no_cine


@pytest.mark.parametrize(
    "image_type",
    [
        ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], ["ORIGINAL", "PRIMARY", "OTHER"], ["DERIVED", "SECONDARY"], [],
        ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], ["ORIGINAL", "PRIMARY", "CINE", "NONE"],
        ["ORIGINAL", "PRIMARY", "M", "RETRO", "DIS2D"], ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE", "MAGNITUDE"],
    ],
)  # fmt: skip
def test_grey_levels_may_be_a_cine(image_type: Sequence[str]) -> None:
    assert why_no_cine(image_type) is None


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["P", "ND"], "phases"), (["VELOCITY MAP", "P", "PCA"], "phases"), (["PHASE CONTRAST M"], "phases"),
        (["CARDIAC", "NONE", "IMAGINARY"], "phases"), (["R_FFE", "R", "FFE"], "phases"),
        (["M", "T1 MAP", "DIS2D"], "parametric maps"), (["T2_STAR_MAP"], "parametric maps"),
        (["ADC"], "parametric maps"), (["LOCALIZER"], "localisers"), (["localizer "], "localisers"),
        (["PERFUSION"], "perfusion"),
        (["TAGGING"], "tagged"), (["MAX_IP"], "projections"), (["SUBTRACTION"], "differences"),
    ],
)  # fmt: skip
def test_other_images_are_none(values: list[str], what: str) -> None:
    why = why_no_cine(["DERIVED", "PRIMARY", *values])
    assert why is not None
    assert what in why


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([100, 180, 260], True), ([None, 100.0, 900.0], True), ([1.2, 3.4], True), ([0.0, 0.0], False), ([], False),
        ([1.21, 1.22], False), ([None, None], False), ([300.0], False),
    ],
)  # fmt: skip
def test_times_differ_by_more_than_rounding(times: list[float | None], expected: bool) -> None:
    assert differ(times) == expected
