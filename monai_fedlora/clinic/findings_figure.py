"""One picture per study of a model that measures: what was measured, outlined where it has outlines, and the numbers.

It names neither the study nor the patient, as the figure of the class does not.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.clinic.state import NO_DOUBT_FOUND, state_sentences
from monai_fedlora.clinic.study_findings import Findings
from monai_fedlora.measures.contours import region_outlines

COLOURS = ((255, 92, 92), (92, 214, 92), (92, 170, 255), (240, 200, 60))
"""Colours of the outlines by structure, repeated where there are more."""
_PICTURE, _GAP, _TOP, _SIDE, _LINE = 640, 16, 74, 440, 20
_PAPER, _INK, _PALE, _ALARM = (255, 255, 255), (25, 25, 25), (120, 120, 120), (178, 34, 34)


def draw_findings(findings: Findings) -> Image.Image:
    """Draw what a model has measured.

    Returns:
        An RGB picture of about 1130 x 740 pixels, higher where there is more text.
    """
    left = _GAP + _PICTURE + _GAP
    told = _text(ImageDraw.Draw(Image.new("RGB", (1, 1))), findings, left)
    canvas = Image.new("RGB", (left + _SIDE + _GAP, max(told, _TOP + _PICTURE) + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    model, sure = findings.model, findings.state == NO_DOUBT_FOUND
    _write(draw, (_GAP, 12), f"Measured: {findings.state.replace('_', ' ')}", _INK if sure else _ALARM, 26)
    _write(draw, (_GAP, 46), f"model {model.name[:24]} {model.version}, SHA-256 {model.sha256[:12]}", _PALE)
    picture = Image.fromarray(findings.picture)
    scale = _PICTURE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = picture.resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    if findings.mask is not None:
        shown.alpha_composite(outline_layer(findings.mask, findings.names, size=size))
    canvas.paste(shown.convert("RGB"), (_GAP, _TOP))
    _text(draw, findings, left)
    return canvas


def outline_layer(mask: np.ndarray, structures: tuple[str, ...], *, size: tuple[int, int]) -> Image.Image:
    """The outlines of a mask alone, on a transparent picture that lies over the photograph.

    Args:
        mask: (H, W), 0 background, 1 to K the structures.
        structures: names of the values from 1.
        size: width and height of the picture in pixels.
    """
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    across, down = size[0] / mask.shape[1], size[1] / mask.shape[0]
    found = region_outlines(mask.T, structures=structures)
    for number, name in enumerate(structures):
        for line in found.get(name, ()):
            points = [((x + 0.5) * across, (y + 0.5) * down) for x, y in [*line, line[0]]]
            draw.line(points, fill=(*COLOURS[number % len(COLOURS)], 255), width=2)
    return layer


def _text(draw: Any, findings: Findings, left: int) -> int:
    """Draw legend and sentences; returns the y coordinate below them."""
    y = _paragraph(draw, (left, 18), NOT_FOR_CLINICAL_USE, _ALARM) + _LINE
    for number, finding in enumerate(findings.found):
        if findings.mask is not None:
            draw.line((left, y + 12, left + 22, y + 12), fill=COLOURS[number % len(COLOURS)], width=4)
        _write(draw, (left + (28 if findings.mask is not None else 0), y), f"{finding.name}: {finding.shown}", _INK, 18)
        y = _paragraph(draw, (left, y + 26), f"{finding.usually}.", _INK) + 8
    stated = state_sentences(findings.doubts, findings.model.trust.blind)
    for text in findings.sentences()[len(findings.found) :]:
        alarm = text in stated and findings.state != NO_DOUBT_FOUND
        y = _paragraph(draw, (left, y), text, _ALARM if alarm else _INK)
    return _paragraph(draw, (left, y), f"The model was {findings.model.trust.origin.summary}.", _INK)


def _paragraph(draw: Any, corner: tuple[int, int], text: str, colour: tuple[int, int, int]) -> int:
    x, y = corner
    for line in textwrap.wrap(text, 58):
        _write(draw, (x, y), line, colour)
        y += _LINE
    return y


def _write(draw: Any, corner: tuple[int, int], text: str, colour: tuple[int, int, int], size: int = 14) -> None:
    draw.text(corner, text, fill=colour, font=ImageFont.load_default(size))
