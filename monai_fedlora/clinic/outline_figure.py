"""One picture of a study's outlines: end-diastole and end-systole in three slices, the volume curve and the numbers.

It names neither the study nor the patient, as the figure of the class does not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from monai_fedlora.clinic.outlining import OutlinedHeart
from monai_fedlora.clinic.placement import KNOWN, NO_MARKERS, edge_letters
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.measures.contours import region_outlines
from monai_fedlora.measures.structures import LV, MYO, RV

COLOURS = {LV: (255, 92, 92), MYO: (92, 214, 92), RV: (92, 170, 255)}
"""Colours of the outlines by structure, as on the page."""
_OTHERS = (240, 200, 60)
_PANEL, _GAP, _TOP, _SIDE, _LINE = 240, 12, 74, 420, 19
_AROUND_MM = 25.0
_PAPER, _INK, _PALE, _ALARM = (255, 255, 255), (25, 25, 25), (120, 120, 120), (178, 34, 34)
_LEVELS = (1.0, 99.5)


def draw_outlines(heart: OutlinedHeart, *, orientation: str | None = None) -> Image.Image:
    """Draw the outlines of a study.

    Args:
        heart: outlines and numbers.
        orientation: of the study; the edges of the pictures are named if it is "known".

    Returns:
        An RGB picture of about 1200 x 640 pixels, higher where there is more text.
    """
    measured = heart.measured
    left = _GAP + 3 * (_PANEL + _GAP)
    told = _text(ImageDraw.Draw(Image.new("RGB", (1, 1))), heart, left, orientation) + _GAP
    height = max(_TOP + 2 * (_PANEL + _LINE + _GAP) + _GAP, told)
    canvas = Image.new("RGB", (left + _SIDE + _GAP, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    model = measured.algorithm
    heading = f"Outlines and volumes: {heart.state.replace('_', ' ')}"
    _write(draw, (_GAP, 12), heading, _ALARM if heart.doubts else _INK, 26)
    _write(draw, (_GAP, 46), f"model {model.name[:24]} {model.version}, SHA-256 {model.sha256[:12]}", _PALE)
    frames = _frames(heart)
    window = _window(measured.masks, measured.spacing)
    for row, (phase, levels, mask) in enumerate(zip(("ED", "ES"), frames, measured.masks, strict=True)):
        for column, place in enumerate(_slices(measured.masks)):
            corner = (_GAP + column * (_PANEL + _GAP), _TOP + row * (_PANEL + _LINE + _GAP))
            canvas.paste(_panel(levels[..., place], mask[..., place], window, heart, orientation), corner)
            caption = f"{phase}, slice {place + 1} of {levels.shape[2]}"
            _write(draw, (corner[0], corner[1] + _PANEL + 1), caption, _INK)
    _text(draw, heart, left, orientation)
    return canvas


def _frames(heart: OutlinedHeart) -> list[np.ndarray]:
    """End-diastole and end-systole, (X, Y, Z) levels in 0..255."""
    measured, cine = heart.measured, heart.cine
    ed, es = (0, 1) if measured.ed is None or measured.es is None else (measured.ed, measured.es)
    low, high = np.percentile(cine[..., [ed, es]], _LEVELS)
    return [np.clip((cine[..., frame] - low) / max(high - low, 1e-6), 0, 1) * 255 for frame in (ed, es)]


def _slices(masks: np.ndarray) -> list[int]:
    """Three slices of the heart, near its base, in the middle and near its apex; of the stack if there is none."""
    there = np.flatnonzero(masks.any(axis=(0, 1, 2)))
    first, last = (int(there[0]), int(there[-1])) if len(there) else (0, masks.shape[3] - 1)
    return [round(first + share * (last - first)) for share in (0.15, 0.5, 0.85)]


def _window(masks: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int, int]:
    """First and last voxel (x0, x1, y0, y1) of the square around the heart that is shown."""
    width, height = masks.shape[1:3]
    x, y = np.nonzero(masks.any(axis=(0, 3)))
    if not len(x):
        return 0, width - 1, 0, height - 1
    centre = ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
    extent = [(x.max() - x.min()) * spacing[0], (y.max() - y.min()) * spacing[1]]
    reach = max(extent) / 2 + _AROUND_MM
    ends = []
    for middle, step, length in zip(centre, spacing, (width, height), strict=False):
        ends += [max(0, round(middle - reach / step)), min(length - 1, round(middle + reach / step))]
    x0, x1, y0, y1 = ends
    return x0, x1, y0, y1


def _panel(
    levels: np.ndarray,
    mask: np.ndarray,
    window: tuple[int, int, int, int],
    heart: OutlinedHeart,
    orientation: str | None,
) -> Image.Image:
    """One slice with its outlines, its columns to the right."""
    x0, x1, y0, y1 = window
    across, down = heart.measured.spacing[:2]
    scale = _PANEL / max((x1 - x0 + 1) * across, (y1 - y0 + 1) * down)
    size = (max(1, round((x1 - x0 + 1) * across * scale)), max(1, round((y1 - y0 + 1) * down * scale)))
    part = Image.fromarray(levels[x0 : x1 + 1, y0 : y1 + 1].T.round().astype(np.uint8))
    picture = part.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for name, lines in region_outlines(mask, structures=heart.measured.structures).items():
        for line in lines:
            points = [((x - x0 + 0.5) * across * scale, (y - y0 + 0.5) * down * scale) for x, y in [*line, line[0]]]
            draw.line(points, fill=COLOURS.get(name, _OTHERS), width=2)
    if orientation == KNOWN:
        _letters(draw, edge_letters(heart.measured.affine), size)
    return picture


def _letters(draw: Any, edges: Any, size: tuple[int, int]) -> None:
    width, height = size
    for text, at, anchor in (
        (edges.left, (4, height / 2), "lm"),
        (edges.right, (width - 4, height / 2), "rm"),
        (edges.top, (width / 2, 4), "mt"),
        (edges.bottom, (width / 2, height - 4), "mb"),
    ):
        font = ImageFont.load_default(14)
        draw.text(at, text, fill=_PAPER, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _text(draw: Any, heart: OutlinedHeart, left: int, orientation: str | None) -> int:
    """Draw legend, curve and sentences; returns the y coordinate below them."""
    measured = heart.measured
    y = _paragraph(draw, (left, 18), NOT_FOR_CLINICAL_USE, _ALARM)
    x = left
    for name in measured.structures:
        draw.line((x, y + 12, x + 22, y + 12), fill=COLOURS.get(name, _OTHERS), width=4)
        _write(draw, (x + 28, y + 3), name)
        x += 90
    y = _curve(draw, heart, left, y + 30) + 6
    for text in heart.sentences():
        alarm = text in heart.disagreements or text.startswith(("The outlines are doubtful", "No "))
        y = _paragraph(draw, (left, y), text, _ALARM if alarm else _INK)
    if orientation != KNOWN:
        y = _paragraph(draw, (left, y), f"{NO_MARKERS[0].upper()}{NO_MARKERS[1:]}.", _INK)
    return _paragraph(draw, (left, y), f"The model of the outlines was {measured.algorithm.origin}.", _INK)


def _curve(draw: Any, heart: OutlinedHeart, left: int, top: int) -> int:
    """Draw the volume of the left ventricle over the beat; returns the y coordinate below it.

    Where no volume can be given there is no curve.
    """
    measured = heart.measured
    beat = measured.beat
    if beat is None or measured.function is None or measured.ed is None or measured.es is None:
        return top
    volumes = beat.volumes
    _write(draw, (left, top), "volume of the left ventricle by frame (from 1), mL")
    width, height, base, highest = 360, 90, top + 130, max(*volumes, 1.0)

    def place(frame: int) -> tuple[float, float]:
        return left + 30 + width * frame / (len(volumes) - 1), base - height * volumes[frame] / highest

    draw.line((left + 30, base, left + 30 + width, base), fill=_PALE)
    for volume in (0.0, highest):
        at = base - height * volume / highest
        draw.text((left + 25, at), f"{volume:.0f}", fill=_PALE, font=ImageFont.load_default(12), anchor="rm")
    draw.line([place(frame) for frame in range(len(volumes))], fill=COLOURS[LV], width=2)
    for name, frame in (("ED", measured.ed), ("ES", measured.es)):
        x, y = place(frame)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_INK)
        _write(draw, (min(round(x) - 4, left + width - 40), round(y) - 20), f"{name} {frame + 1}")
    return base + 10


def _paragraph(draw: Any, corner: tuple[int, int], text: str, colour: Sequence[int]) -> int:
    x, y = corner
    for line in textwrap.wrap(text, 58):
        _write(draw, (x, y), line, colour)
        y += _LINE
    return y


def _write(draw: Any, corner: tuple[int, int], text: str, colour: Sequence[int] = _INK, size: int = 14) -> None:
    draw.text(corner, text, fill=tuple(colour), font=ImageFont.load_default(size))
