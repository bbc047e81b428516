"""Write the name of a study above its figure, so that figures of two studies cannot be confused.

DICOM objects get the figure without a title, as :func:`monai_fedlora.clinic.figure.draw_figure` draws it.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

from monai_fedlora.clinic.lettering import lettering

_SIZE, _LINE, _EDGE, _BELOW = 20, 26, 16, 6
_PAPER, _INK, _RULE = (255, 255, 255), (25, 25, 25), (150, 150, 150)


def add_title(figure: Image.Image, name: str) -> Image.Image:
    """The figure with a strip above it that holds the name, in as many lines as it needs."""
    text, font = lettering(name, _SIZE)
    lines = _lines(text, font, figure.width - 2 * _EDGE)
    top = _EDGE // 2 + _LINE * len(lines) + _BELOW
    canvas = Image.new("RGB", (figure.width, figure.height + top), _PAPER)
    canvas.paste(figure, (0, top))
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        draw.text((_EDGE, _EDGE // 2 + _LINE * index), line, fill=_INK, font=font)
    draw.line((_EDGE, top - 1, figure.width - _EDGE, top - 1), fill=_RULE)
    return canvas


def _lines(text: str, font: object, width: float) -> list[str]:
    """Break a text into lines of at most ``width`` pixels, at spaces where possible."""
    lines = [""]
    for letter in text:
        if font.getlength(lines[-1] + letter) > width:  # type: ignore[attr-defined]
            head, space, tail = lines[-1].rpartition(" ")
            lines[-1:] = [head, tail] if space else [lines[-1], ""]
        lines[-1] += letter
    return lines
