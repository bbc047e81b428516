from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.errors import DataError
from monai_fedlora.measures.wall_thickness import SEGMENTS, wall_thickness
from tests.measures.shapes import short_axis

SPACING = (1.5, 1.5, 8.0)


def test_a_ring_is_as_thick_as_it_was_drawn() -> None:
    mask = short_axis(above=0, slices=2, wall=9.0)
    found = wall_thickness(mask, spacing=SPACING)
    assert found.slices == pytest.approx((9.0, 9.0), abs=0.4) and found.mean == pytest.approx(9.0, abs=0.4)
    assert found.segments == {} and found.thickest is None


def test_slices_without_blood_pool_or_with_an_open_wall_are_left_out() -> None:
    mask = short_axis(slices=6)
    mask[32:, :, 1][mask[32:, :, 1] == 2] = 0
    found = wall_thickness(mask, spacing=SPACING)
    assert [value is None for value in found.slices] == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("direction", "name"),
    [((-1, 0.5), "inferoseptal"), ((-1, -0.5), "anteroseptal"), ((0, 1), "inferior"), ((0, -1), "anterior"),
     ((1, 0.5), "inferolateral"), ((1, -0.5), "anterolateral")],
)  # fmt: skip
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_bulge_is_found_in_its_segment(direction, name, tilt) -> None:
    """The septum lies at the low end of x, the anterior wall at that of y, or the whole heart is turned a little."""
    mask = short_axis(slices=9)
    x, y = np.meshgrid(*2 * [(np.arange(64) - 31.5) * 1.5], indexing="ij")
    turned = np.hypot(*direction)
    along = (np.array(direction) / turned) @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    bulge = np.hypot(x - 33 * along[0], y - 33 * along[1]) < 9
    if tilt:
        outer = 33.0
        for place in range(9):
            plane = mask[..., place]
            plane[plane == 3] = 0
            rv = np.hypot(x + outer * np.cos(tilt), y + outer * np.sin(tilt)) < 18
            plane[rv & (plane == 0) & (mask[..., place].max() > 0)] = 3
    for place in range(9):
        plane = mask[..., place]
        if plane.max():
            plane[bulge & (plane != 1)] = 2
    found = wall_thickness(mask, spacing=SPACING)
    basal = {segment: value for segment, value in found.segments.items() if segment.startswith("basal")}
    assert max(basal, key=basal.__getitem__) == f"basal {name}"
    assert found.thickest == max(found.segments.values()) and set(found.segments) == set(SEGMENTS)


def test_an_unknown_orientation_has_no_segments() -> None:
    found = wall_thickness(short_axis(), spacing=SPACING, oriented=False)
    assert found.segments == {} and found.mean is not None
    assert found.to_row()["wall_basal_anterior"] is None


def test_masks_without_a_heart_have_no_thickness() -> None:
    found = wall_thickness(np.zeros((9, 9, 3), int), spacing=SPACING)
    assert found.slices == (None, None, None) and found.mean is None
    with pytest.raises(DataError, match="between LV and MYO"):
        wall_thickness(np.zeros((9, 9, 3), int), spacing=SPACING, structures=("LV",))
