"""Closed outlines of masks, for figures and for the page.

The outline of a mask runs halfway between the centres of its outermost pixels and those of their neighbours, by linear
interpolation; that of a map of probabilities runs where it is one half. Holes are filled: the outline of the muscle is
its outer border, and its inner border is the outline of the blood pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_fedlora.measures.masks import checked_mask

TOLERANCE = 0.4
"""Largest distance in pixels by which a shortened outline may miss a point of the full one (ours): it smooths the steps
between pixels, and changes the area of a circle of 5 pixels or more by less than 1 %."""
STEPS = 10
"""Steps a pixel is divided into in :func:`page_contours` (ours)."""
_FEWEST = 3


def outlines(plane: Any) -> list[np.ndarray]:
    """Outer borders of a plane's regions.

    Args:
        plane: (X, Y), true or 1 inside, or probabilities in [0, 1].

    Returns:
        Arrays (N, 2) of points in pixels, the first not repeated at the end, the longest border first; the centre of
        the first pixel is (0, 0). Each runs around its region with the same turn. Empty for an empty plane.
    """
    from contourpy import contour_generator

    levels = np.pad(np.asarray(plane, dtype=np.float64), 1)  # a region at the image's border has an outline too
    x, y = np.nonzero(levels >= 0.5)
    if not x.size:
        return []
    window = levels[x.min() - 1 : x.max() + 2, y.min() - 1 : y.max() + 2]  # outlines end one pixel outside
    first = np.array([x.min(), y.min()]) - 2.0
    lines = contour_generator(z=window.T).lines(0.5)
    closed = [np.asarray(line)[:-1] + first for line in lines if len(line) > _FEWEST]
    outer = [line for line in closed if _area(line) > 0]  # the borders of holes turn the other way
    return sorted(outer, key=lambda line: -_area(line))


def region_outlines(mask: Any, *, structures: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Outlines of every structure of one slice.

    Args:
        mask: (X, Y) whole numbers: 0 background, 1 to K the structures.
        structures: names of the values from 1.

    Returns:
        By the name of a structure, see :func:`outlines`; structures that are not in the slice are left out.

    Raises:
        DataError: the mask cannot be used.
    """
    values = checked_mask(mask, structures, axes=2)
    there = {name: outlines(values == value) for value, name in enumerate(structures, 1) if (values == value).any()}
    return {name: lines for name, lines in there.items() if lines}


def shortened(line: np.ndarray, *, tolerance: float = TOLERANCE) -> np.ndarray:
    """The outline with fewer points, at most ``tolerance`` away from the full one (Douglas and Peucker 1973).

    Args:
        line: (N, 2) points of a closed outline.
        tolerance: in the unit of the points.
    """
    if len(line) <= _FEWEST:
        return line
    far = int(np.linalg.norm(line - line[0], axis=1).argmax())
    ring = np.vstack([line, line[:1]])
    kept = np.zeros(len(ring), dtype=bool)
    kept[[0, far, -1]] = True
    parts = [(0, far), (far, len(line))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        away = _distances(ring[first + 1 : last], ring[first], ring[last])
        worst = int(away.argmax())
        if away[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    return ring[:-1][kept[:-1]]


def page_contours(masks: Any, *, structures: Sequence[str], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Outlines of all frames and slices of a moving heart in a short JSON form.

    Points are shortened and rounded to a tenth of a pixel. A line is a flat list: x and y of its first point, then the
    differences from point to point, all in tenths of a pixel from the centre of the first pixel; it closes by itself.

    Args:
        masks: (T, X, Y, Z) whole numbers: 0 background, 1 to K the structures.
        structures: names of the values from 1.
        tolerance: see :func:`shortened`.

    Returns:
        ``{"structures": names, "steps": 10, "frames": frames}``; ``frames[t][z][k]`` is the list of the lines of
        structure k. :func:`read_line` reads a line.

    Raises:
        DataError: the masks cannot be used.
    """
    values = checked_mask(masks, structures, axes=4)
    frames = [
        [
            [
                [_written(shortened(line, tolerance=tolerance)) for line in outlines(frame[..., place] == value)]
                for value in range(1, len(structures) + 1)
            ]
            for place in range(values.shape[3])
        ]
        for frame in values
    ]
    return {"structures": list(structures), "steps": STEPS, "frames": frames}


def read_line(numbers: Sequence[int]) -> np.ndarray:
    """(N, 2) points in pixels of a line of :func:`page_contours`."""
    return np.cumsum(np.reshape(numbers, (-1, 2)), axis=0) / STEPS


def _written(line: np.ndarray) -> list[int]:
    steps = np.round(line * STEPS).astype(int)
    return [int(number) for number in np.diff(steps, axis=0, prepend=0).ravel()]


def _area(line: np.ndarray) -> float:
    """Area inside a closed line, positive for an outer border."""
    x, y = line.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each point (N, 2) from the line segment between two."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)
