"""The colours of the places that an answer hangs on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic import overlay

shares = st.floats(-1, 1, allow_nan=False, width=32)


@given(shares)
def test_the_sign_chooses_the_colour_and_little_is_not_coloured(change: float) -> None:
    red, _, blue, opacity = overlay.colours(np.array(change)).tolist()
    if abs(change) < overlay.THRESHOLD:
        assert (red, blue, opacity) == (0, 0, 0)
    else:
        assert opacity > 0
        assert (red > blue) == (change > 0)


@given(shares, shares)
def test_more_is_never_fainter(one: float, other: float) -> None:
    weak, strong = sorted((one, other), key=abs)
    assert overlay.colours(np.array(weak))[3] <= overlay.colours(np.array(strong))[3]


def test_the_scale_is_the_same_for_every_study() -> None:
    """A weak map is not stretched: its colour is that of the same change beside a strong one."""
    weak, strong = np.array([[0.03, 0.0]]), np.array([[0.03, 0.9]])
    np.testing.assert_array_equal(overlay.colours(weak)[0, 0], overlay.colours(strong)[0, 0])


def test_colours_blend_with_the_picture_by_their_opacity() -> None:
    picture = np.full((1, 3, 3), 100.0)
    laid = overlay.lay_over(picture, np.array([[0.0, 0.2, -0.2]]))
    np.testing.assert_array_equal(laid[0, 0], picture[0, 0])
    for place in (1, 2):
        coloured = overlay.colours(np.array([0.2, -0.2]))[place - 1].astype(float)
        share = coloured[3] / 255
        np.testing.assert_allclose(laid[0, place], 100 * (1 - share) + coloured[:3] * share)


def test_the_map_is_cut_where_the_network_saw_nothing() -> None:
    prepared = torch.zeros(2, 6, 6, 4)
    prepared[:, 1:5, :, :3] = 0.5
    prepared[:, 2, 2, 1] = 0.0
    deep = overlay.in_depth(torch.full((6, 6), -0.5), prepared)
    assert deep.shape == (6, 6, 4)
    assert (deep[1:5, :, :3] == -0.5).all()
    assert float(deep[0].abs().max() + deep[5].abs().max() + deep[..., 3].abs().max()) == 0
    assert float(overlay.in_depth(torch.ones(6, 6), torch.zeros(2, 6, 6, 4)).abs().max()) == 0


@pytest.mark.parametrize(
    ("relevance", "parts", "never"),
    [
        ([0.123, -0.05], ("Red", "lowers", "12.3 points", "blue", "raises", "5 points"), ()),
        ([0.123, -0.005], ("Red", "12.3 points"), ("blue", "raises")),
        ([0.005, -0.4], ("Blue", "raises", "40 points"), ("Red", "lowers")),
        ([0.005, -0.005], ("no single place", "1 point or more"), ("Red", "Blue")),
    ],
)
def test_words_say_signs_and_sizes_of_what_is_coloured(
    relevance: list[float], parts: tuple[str, ...], never: tuple[str, ...]
) -> None:
    text = overlay.explain_overlay(torch.tensor([relevance]), answer="ABN")
    assert all(part in text for part in (*parts, "ABN"))
    assert not any(part in text for part in never)
    assert ("not evidence" in text) == overlay.is_shown(torch.tensor([relevance]))


def test_the_legend_has_both_signs_and_the_threshold() -> None:
    legend = overlay.scale()
    steps = [entry["points"] for entry in legend["colours"]]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (-legend["full"], legend["full"])
    assert min(map(abs, steps)) == legend["threshold"]
    for entry in legend["colours"]:
        assert entry["rgba"] == overlay.colours(np.array(entry["points"] / 100)).tolist()
