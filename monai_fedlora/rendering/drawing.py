"""The one way to draw: matplotlib, without a display, as SVG that says in words what it shows."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette, which readers with any colour vision can tell apart; brown in place of yellow (ours)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "0.9",
    "svg.fonttype": "none",  # text stays text, in the reader's own fonts: any script, and a third of the bytes
    "text.parse_math": False,  # a name may hold dollar signs
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing and its words. A notebook shows it as it is.

    Attributes:
        svg: the drawing, with title and description inside.
        title: the caption.
        description: what a reader who cannot see the drawing is told.
    """

    svg: str
    title: str
    description: str

    @property
    def source(self) -> str:
        """The drawing as the address of an image, which needs no file and can ask for none."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"

    def _repr_svg_(self) -> str:
        return self.svg


def draw(
    plot: Callable[[Any], None], *, title: str, description: str, width: float = 7.5, height: float = 3.4
) -> Figure:
    """Draw with matplotlib; the same plot gives the same text.

    Args:
        plot: is given an axes.
        title, description: see :class:`Figure`.
        width, height: in inches.
    """
    return Figure(svg=_svg(plot, title, description, (width, height)), title=title, description=description)


def _svg(plot: Callable[[Any], None], title: str, description: str, size: tuple[float, float]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    stream = io.StringIO()
    with rc_context(_SETTINGS | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the fonts that measure are not those that are read
        warnings.filterwarnings("ignore", "overflow", RuntimeWarning)  # of an axis as long as floats are
        canvas = Canvas(figsize=size, layout="constrained")
        plot(canvas.subplots())
        canvas.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    opening, close, rest = stream.getvalue().partition("<svg")[2].partition(">")
    words = f"<title>{escape(plain(title))}</title><desc>{escape(plain(description))}</desc>"
    return f'<svg role="img"{opening}{close}\n{words}{rest}'


def style(place: int) -> dict[str, str]:
    """Colour and marker of the line at a place in the list; no two of 64 are the same."""
    return {"color": COLOURS[place % 8], "marker": MARKERS[(place + place // 8) % 8]}


def plain(text: str) -> str:
    """Text without the characters that XML has no way to write."""
    return _NOT_IN_XML.sub("\ufffd", text)


def short(name: str, longest: int = 28) -> str:
    """A name in a drawing: one line that leaves room for the drawing."""
    name = " ".join(plain(name).split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def legend(axes: Any, handles: dict[str, Any], *, longest: int = 28, **options: Any) -> None:
    """Name what is drawn, on the right of it unless matplotlib's ``options`` say otherwise."""
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    shown = axes.legend(handles.values(), ["?"] * len(handles), frameon=False, fontsize=8, **(options or beside))
    for text, name in zip(shown.get_texts(), handles, strict=True):
        text.set_text(short(name, longest))  # as a label, a name that begins with "_" would be left out


def log_ticks(axis: Any, unit: str = "") -> None:
    """Label a logarithmic axis at 1, 2 and 5 of every power of ten; with a unit, with its prefixes."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(EngFormatter(unit=unit) if unit else StrMethodFormatter("{x:g}"))
