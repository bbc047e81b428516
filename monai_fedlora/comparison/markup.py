"""Small pieces of HTML, and the frame around them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Any

from monai_fedlora.comparison.statistics import Average

MISSING = "n/a"

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #888; font-weight: 600; vertical-align: bottom; }
td, th[scope=row] { border-bottom: 1px solid #e4e4e4; }
th[scope=row] { font-weight: 400; vertical-align: top; }
caption { text-align: left; color: #444; padding-bottom: 0.3rem; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
table:not(.text) td { white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption { color: #444; font-size: 0.92rem; margin-top: 0.3rem; }
.note { color: #444; font-size: 0.92rem; } .warn { border-left: 4px solid #D55E00; padding-left: 0.8rem; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
</style>
</head>
<body>
$body
</body>
</html>
""")


class Html(str):
    """Text that is HTML already; everything else is escaped."""


def document(title: str, body: str) -> str:
    """A whole page; ``title`` is text, ``body`` HTML. The page can ask no other machine for anything."""
    return _PAGE.substitute(title=escape(title), body=body)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, text: bool = False, caption: str = "") -> str:
    """A table; its first column names the rows.

    Args:
        head: names of the columns; all empty for none.
        rows: of text, or :class:`Html`.
        text: whether the columns are text, on the left, and not numbers.
        caption: what the table shows; empty for none.
    """

    def cells(opening: str, values: Sequence[Any]) -> str:
        closing = opening.partition(" ")[0]
        return "".join(f"<{opening}>{v if isinstance(v, Html) else escape(str(v))}</{closing}>" for v in values)

    said = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    top = f"<tr>{cells('th scope=col', head)}</tr>\n" if any(head) else ""
    lines = "\n".join(f"<tr>{cells('th scope=row', row[:1])}{cells('td', row[1:])}</tr>" for row in rows)
    return f'<div class="wide"><table{" class=text" if text else ""}>\n{said}{top}{lines}\n</table></div>\n'


def image(svg: str, text: str) -> str:
    """An SVG image inside the page; ``text`` is its caption, and stands for it where it cannot be seen."""
    data, said = base64.b64encode(svg.encode()).decode(), escape(text)
    source = f"data:image/svg+xml;base64,{data}"
    return f'<figure><img alt="{said}" src="{source}"><figcaption>{said}</figcaption></figure>\n'


def number(value: Average | None) -> str:
    """A mean with its spread."""
    if value is None:
        return MISSING
    return f"{value.mean:.3f}" + ("" if value.spread is None else f" ± {value.spread:.3f}")


def plural(count: int, word: str) -> str:
    """A count and what is counted."""
    return f"{count} {word}" + "s" * (count != 1)
