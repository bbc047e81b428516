"""One picture per study: the network's input, the answer, and the image regions that the answer depends on.

The picture names neither the study nor the patient, so that it can be stored with de-identified results; a title with
the name is added by :mod:`monai_fedlora.clinic.figure_title`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from monai_fedlora.clinic.overlay import (
    AN_AID,
    FULL,
    THRESHOLD,
    explain_overlay,
    in_depth,
    is_shown,
    lay_over,
    points,
)
from monai_fedlora.clinic.placement import NO_MARKERS
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction
from monai_fedlora.clinic.state import NO_DOUBT_FOUND, state_sentences
from monai_fedlora.studies.study import CINE

_PANEL, _GAP, _SIDE, _TOP, _LINE, _LOWEST = 320, 16, 400, 74, 22, 640
_PAPER, _INK, _PALE, _BAR, _ALARM = (255, 255, 255), (25, 25, 25), (150, 150, 150), (52, 101, 164), (178, 34, 34)
_WHOLE = 110
"""Width in pixels of a bar of 100 %."""
_RANGES = "lines and grey numbers: over {} small changes of frames and crop"


def draw_figure(prediction: Prediction) -> Image.Image:
    """Draw a prediction.

    Returns:
        An RGB picture of about 1100 x 800 pixels, higher where there is more text. On the left: the middle slices of
        end-diastole and end-systole, or the photograph, as the network sees them, and below the same with the occlusion
        map laid over. On the right: the probabilities with their ranges over small changes, the area of blood over the
        beat if frames were chosen automatically (counted from 1), and the state with its reasons.
    """
    pictures = _pictures(prediction)
    rows = 1 if prediction.relevance is None else 2
    width = _GAP + len(pictures) * (_PANEL + _GAP) + _SIDE + _GAP
    side = _GAP + len(pictures) * (_PANEL + _GAP)
    height = _TOP + rows * (_PANEL + _LINE + _GAP) + 2 * _GAP
    told = _side(ImageDraw.Draw(Image.new("RGB", (1, 1))), prediction, side) + _GAP
    canvas = Image.new("RGB", (width, max(height, told, _LOWEST)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    model = prediction.classifier
    sure = prediction.state == NO_DOUBT_FOUND
    heading = f"{_short(prediction.answer, 44)}: {prediction.state.replace('_', ' ')}"
    _write(draw, (_GAP, 12), heading, _INK if sure else _ALARM, 26)
    _write(draw, (_GAP, 46), f"model {_short(model.name, 20)} {model.version}, SHA-256 {model.sha256[:12]}", _PALE, 14)
    for column, (label, picture) in enumerate(pictures):
        left = _GAP + column * (_PANEL + _GAP)
        where = "" if prediction.placement is None else f", {prediction.placement.called(_middle(prediction.prepared))}"
        _paste(canvas, draw, (left, _TOP), picture, label + where)
        _mark(draw, (left, _TOP), picture, prediction)
        if prediction.relevance is not None:
            shaded = lay_over(picture, _as_shown(prediction.relevance, prediction))
            caption = AN_AID if is_shown(prediction.relevance) else "no single place changes the answer"
            _paste(canvas, draw, (left, _TOP + _PANEL + _LINE + _GAP), shaded, f"{label}: {caption}")
    _side(draw, prediction, side)
    return canvas


def _pictures(prediction: Prediction) -> list[tuple[str, np.ndarray]]:
    """Captions and pictures, (height, width, 3) levels in 0..255."""
    seen, model = prediction.prepared, prediction.classifier
    levels = model.visible(seen)
    if model.modality == CINE:
        frames = levels[..., _middle(seen)].numpy()
        chosen = prediction.frames
        ed, es = ("", "") if chosen is None else (f", {chosen.called(chosen.ed)}", f", {chosen.called(chosen.es)}")
        labels = (f"end-diastole{ed}", f"end-systole{es}")
        return [
            (label, np.repeat(255 * frame.T[..., None], 3, axis=2)) for label, frame in zip(labels, frames, strict=True)
        ]
    return [("as the network sees it", 255 * levels.permute(1, 2, 0).numpy())]


def _middle(seen: Tensor) -> int:
    """The slice of (2, X, Y, Z) that is shown: the middle one of those that are not padding."""
    filled = seen.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    return int(filled[len(filled) // 2]) if len(filled) else seen.shape[3] // 2


def _as_shown(relevance: Tensor, prediction: Prediction) -> np.ndarray:
    """The occlusion map as it is laid over the pictures: (height, width)."""
    if prediction.classifier.modality != CINE:
        return relevance.numpy()
    seen = prediction.prepared
    return in_depth(relevance, seen)[..., _middle(seen)].numpy().T


def _paste(canvas: Image.Image, draw: Any, corner: tuple[int, int], picture: np.ndarray, caption: str) -> None:
    image = Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8))
    scale = _PANEL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    canvas.paste(image.resize(size, Image.Resampling.BICUBIC), corner)  # type: ignore[arg-type]
    _write(draw, (corner[0], corner[1] + _PANEL + 2), caption, size=14)


def _mark(draw: Any, corner: tuple[int, int], picture: np.ndarray, prediction: Prediction) -> None:
    """Write orientation letters (R, L, A, P, H, F) at the edges of a picture, if the orientation is known."""
    edges = None if prediction.placement is None else prediction.placement.edges
    if edges is None:
        return
    scale = _PANEL / max(picture.shape[:2])
    height, width = (scale * side for side in picture.shape[:2])
    (x, y), font = corner, ImageFont.load_default(16)
    for text, at, anchor in (
        (edges.left, (x + 5, y + height / 2), "lm"),
        (edges.right, (x + width - 5, y + height / 2), "rm"),
        (edges.top, (x + width / 2, y + 5), "mt"),
        (edges.bottom, (x + width / 2, y + height - 5), "mb"),
    ):
        draw.text(at, text, fill=_PAPER, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _side(draw: Any, prediction: Prediction, left: int) -> int:
    """Draw the text and numbers to the right of the pictures; returns the y coordinate below them."""
    _paragraph(draw, (left, 18), NOT_FOR_CLINICAL_USE, _ALARM)
    y = _TOP
    order = sorted(range(len(prediction.probabilities)), key=prediction.probabilities.__getitem__, reverse=True)
    for index in order[:10]:
        share = prediction.probabilities[index]
        _write(draw, (left, y), _short(prediction.classifier.classes[index], 16))
        draw.rectangle((left + 150, y + 3, left + 150 + round(_WHOLE * share), y + 17), fill=_BAR)
        if prediction.ranges:
            low, high = (left + 150 + round(_WHOLE * end) for end in prediction.ranges[index])
            draw.line((low, y + 10, high, y + 10), fill=_INK, width=2)
            for end in (low, high):
                draw.line((end, y + 6, end, y + 14), fill=_INK, width=2)
        _write(draw, (left + 160 + _WHOLE, y), prediction.percent(share))
        _write(draw, (left + 228 + _WHOLE, y), prediction.range_text(index), _PALE, 14)
        y += _LINE
    if prediction.stability is not None:
        y = _paragraph(draw, (left, y + 4), _RANGES.format(len(prediction.stability.changes)), _PALE)
    y += _GAP
    if prediction.frames is not None:
        y = _curve(draw, prediction, left, y) + _GAP
    if prediction.relevance is not None:
        y = _legend(draw, prediction, left, y) + _GAP
    stated = state_sentences(prediction.doubts, prediction.classifier.trust.blind)
    for number, text in enumerate(prediction.sentences()):
        alarm = number < len(stated) and prediction.state != NO_DOUBT_FOUND
        y = _paragraph(draw, (left, y), text, _ALARM if alarm else _INK)
    if prediction.placement is not None and prediction.placement.edges is None:
        y = _paragraph(draw, (left, y), f"{NO_MARKERS[0].upper()}{NO_MARKERS[1:]}.", _INK)
    return _paragraph(draw, (left, y), f"The model was {prediction.classifier.trust.origin.summary}.", _INK)


def _curve(draw: Any, prediction: Prediction, left: int, top: int) -> int:
    """Draw the area of blood over the beat with ED and ES marked; returns the y coordinate below it."""
    frames = prediction.frames
    assert frames is not None
    _write(draw, (left, top), "area of blood by frame (from 1), found without a mask", size=14)
    low, high = min(frames.areas), max(frames.areas)
    width, height, base = 360, 80, top + _LINE + 100

    def place(frame: int) -> tuple[float, float]:
        share = (frames.areas[frame] - low) / (high - low) if high > low else 0.5
        return left + width * frame / (len(frames.areas) - 1), base - height * share

    draw.line([place(frame) for frame in range(len(frames.areas))], fill=_BAR, width=2)
    for name, frame in (("ED", frames.ed), ("ES", frames.es)):
        x, y = place(frame)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_ALARM)
        beside = min(round(x) - 4, left + width - 100)
        _write(draw, (beside, round(y) - 22), f"{name} {frames.called(frame).removeprefix('frame ')}", size=14)
    return _paragraph(draw, (left, base + 8), frames.how + ".", _PALE)


def _legend(draw: Any, prediction: Prediction, left: int, top: int) -> int:
    """Draw the colour scale of the overlay and its explanation; returns the y coordinate below it."""
    assert prediction.relevance is not None
    if is_shown(prediction.relevance):
        width, height = 360, 14
        steps = np.linspace(-FULL, FULL, width)
        bar = lay_over(np.full((1, width, 3), 128.0), steps[None])[0].round().astype(int)
        for column, colour in enumerate(bar.tolist()):
            draw.line((left + column, top, left + column, top + height), fill=tuple(colour))
        for share, text, anchor in (
            (0.0, f"-{points(FULL)}", "la"),
            (0.5, f"less than {points(THRESHOLD)}", "ma"),
            (1.0, f"+{points(FULL)}", "ra"),
        ):
            draw.text(
                (left + share * width, top + height + 3),
                text,
                fill=_INK,
                font=ImageFont.load_default(12),
                anchor=anchor,
            )
        top += height + 24
    return _paragraph(
        draw, (left, top), explain_overlay(prediction.relevance, answer=_short(prediction.predicted, 30)), _INK
    )


def _paragraph(draw: Any, corner: tuple[int, int], text: str, colour: Sequence[int]) -> int:
    x, y = corner
    for line in textwrap.wrap(text, 54):
        _write(draw, (x, y), line, colour, 14)
        y += 19
    return y


def _write(draw: Any, corner: tuple[int, int], text: str, colour: Sequence[int] = _INK, size: int = 16) -> None:
    draw.text(corner, text, fill=tuple(colour), font=ImageFont.load_default(size))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
