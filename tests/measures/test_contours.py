from __future__ import annotations

import json

import numpy as np
import pytest

from monai_fedlora.measures.contours import outlines, page_contours, read_line, region_outlines, shortened
from tests.measures.shapes import short_axis


def area(line: np.ndarray) -> float:
    x, y = line.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(60), np.arange(50), indexing="ij")
    return np.hypot(x - centre[0], y - centre[1]) < radius


def test_the_outline_of_a_disc_encloses_it() -> None:
    (line,) = outlines(disc((30.2, 21.7), 14))
    assert area(line) == pytest.approx(np.pi * 14**2, rel=0.01)
    assert np.linalg.norm(line - [30.2, 21.7], axis=1) == pytest.approx(14, abs=0.8)
    assert not np.array_equal(line[0], line[-1])


def test_a_single_pixel_at_the_corner_is_closed() -> None:
    plane = np.zeros((5, 6), bool)
    plane[0, 0] = True
    (line,) = outlines(plane)
    assert {tuple(point) for point in line.tolist()} == {(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)}


def test_probabilities_are_outlined_at_one_half() -> None:
    x = np.arange(40, dtype=float)[:, None]
    y = np.arange(40, dtype=float)[None]
    levels = np.clip(0.5 + (11.3 - np.hypot(x - 20, y - 20)) / 4, 0, 1)
    (line,) = outlines(levels)
    assert np.linalg.norm(line - 20, axis=1) == pytest.approx(11.3, abs=0.05)


def test_holes_are_filled_and_regions_are_sorted_by_size() -> None:
    ring = disc((20, 20), 12) & ~disc((20, 20), 6)
    lines = outlines(ring | disc((45, 30), 4))
    assert [area(line) for line in lines] == pytest.approx([np.pi * 144, np.pi * 16], rel=0.12)
    assert outlines(np.zeros((4, 4))) == []


def test_a_shortened_outline_stays_within_its_tolerance() -> None:
    (line,) = outlines(disc((30, 25), 18))
    short = shortened(line, tolerance=0.4)
    assert len(short) < len(line) / 3 and area(short) == pytest.approx(area(line), rel=0.01)
    ends = np.roll(short, -1, axis=0)
    for point in line:
        along = ends - short
        share = np.clip(((point - short) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.linalg.norm(point - short - share[:, None] * along, axis=1).min() <= 0.4 + 1e-9


def test_structures_that_are_not_in_a_slice_are_left_out() -> None:
    mask = short_axis()
    assert region_outlines(mask[..., 0], structures=("LV", "MYO", "RV")) == {}
    found = region_outlines(mask[..., 2], structures=("LV", "MYO", "RV"))
    assert set(found) == {"LV", "MYO", "RV"} and area(found["MYO"][0]) > area(found["LV"][0])


def test_the_pages_form_is_small_and_gives_the_outlines_back() -> None:
    mask = short_axis(slices=10, size=100)
    page = page_contours(np.stack([mask] * 3), structures=("LV", "MYO", "RV"))
    text = json.dumps(page, separators=(",", ":"))
    assert len(text) * 30 / 3 < 200_000 and page["structures"] == ["LV", "MYO", "RV"]
    frames = json.loads(text)["frames"]
    assert len(frames) == 3 and len(frames[0]) == 10 and frames[0][0] == [[], [], []]
    (written,) = frames[1][3][0]
    (line,) = outlines(mask[..., 3] == 1)
    assert read_line(written) == pytest.approx(shortened(line), abs=0.051)
    assert area(read_line(written)) == pytest.approx(area(line), rel=0.01)
