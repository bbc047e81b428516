"""Draw with matplotlib, without a display, as SVG with a title and a description for screen readers."""

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
    "svg.fonttype": "none",  # keep text as text, in the reader's own fonts: any script, and smaller files
    "text.parse_math": False,  # a name may hold dollar signs
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its texts; notebooks display it.

    Attributes:
        svg: the drawing, which contains title and description.
        title: the caption.
        description: text for screen readers.
    """

    svg: str
    title: str
    description: str

    @property
    def source(self) -> str:
        """The drawing as a data URL, which needs no other file."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"

    def _repr_svg_(self) -> str:
        return self.svg


def draw(
    plot: Callable[[Any], None], *, title: str, description: str, width: float = 7.5, height: float = 3.4
) -> Figure:
    """Draw with matplotlib; the same plot gives the same bytes.

    Args:
        plot: draws on the given axes.
        title, description: see :class:`Figure`.
        width, height: in inches.
    """
    return Figure(svg=_svg(plot, title, description, (width, height)), title=title, description=description)


def _svg(plot: Callable[[Any], None], title: str, description: str, size: tuple[float, float]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    stream = io.StringIO()
    with rc_context(_SETTINGS | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the viewer has its own fonts
        warnings.filterwarnings("ignore", "overflow", RuntimeWarning)  # for an axis up to the largest float
        canvas = Canvas(figsize=size, layout="constrained")
        plot(canvas.subplots())
        canvas.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    opening, close, rest = stream.getvalue().partition("<svg")[2].partition(">")
    words = f"<title>{escape(plain(title))}</title><desc>{escape(plain(description))}</desc>"
    return f'<svg role="img"{opening}{close}\n{words}{rest}'


def style(place: int) -> dict[str, str]:
    """Colour and marker of the line with this index; 64 combinations differ."""
    return {"color": COLOURS[place % 8], "marker": MARKERS[(place + place // 8) % 8]}


def plain(text: str) -> str:
    """Replace the characters that XML does not allow."""
    return _NOT_IN_XML.sub("\ufffd", text)


def short(name: str, longest: int = 28) -> str:
    """Shorten a name to one line of at most ``longest`` characters."""
    name = " ".join(plain(name).split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def legend(axes: Any, handles: dict[str, Any], *, longest: int = 28, **options: Any) -> None:
    """Add a legend on the right of the axes, or where matplotlib's ``options`` place it."""
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    shown = axes.legend(handles.values(), ["?"] * len(handles), frameon=False, fontsize=8, **(options or beside))
    for text, name in zip(shown.get_texts(), handles, strict=True):
        text.set_text(short(name, longest))  # matplotlib hides labels that begin with "_"


def log_ticks(axis: Any, unit: str = "") -> None:
    """Label a logarithmic axis at 1, 2 and 5 of every power of ten, with prefixes of the unit if there is one."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(EngFormatter(unit=unit) if unit else StrMethodFormatter("{x:g}"))
