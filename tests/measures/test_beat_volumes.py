from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.anatomy import contraction, systolic_frame
from monai_fedlora.errors import DataError
from monai_fedlora.measures.beat_volumes import beat_frames


@pytest.mark.parametrize("start", [0, 7, 19])
def test_end_diastole_and_end_systole_are_found_wherever_the_beat_starts(start: int) -> None:
    curve = np.roll(150 - 90 * contraction(25), start)
    found = beat_frames(curve)
    assert (found.ed, found.es) == (start, (start + systolic_frame(25)) % 25)
    assert found.ejection == pytest.approx(60) and found.volumes == pytest.approx(curve)


def test_a_single_frame_that_is_off_does_not_decide() -> None:
    curve = 150 - 90 * contraction(25)
    curve[16] = 45.0
    found = beat_frames(curve)
    assert found.es == systolic_frame(25) and found.smoothed[16] > found.smoothed[found.es]


def test_few_frames_are_not_smoothed() -> None:
    assert beat_frames([100.0, 40.0]).smoothed == (100.0, 40.0)
    assert beat_frames([100.0, 40.0, 70.0]).es == 1


@pytest.mark.parametrize("curve", [[3.0], [3.0, np.nan], [3.0, -1.0], [[3.0, 1.0]]])
def test_what_is_no_curve_is_refused(curve) -> None:
    with pytest.raises(DataError, match="volume curve"):
        beat_frames(curve)


def test_a_heart_that_does_not_beat_is_refused() -> None:
    with pytest.raises(DataError, match="0 mL in all 8 frames"):
        beat_frames([0.0] * 8)
