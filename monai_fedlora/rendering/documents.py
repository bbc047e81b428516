"""Pages from templates: everything put into one is escaped, and nothing that it names may be missing."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_fedlora.rendering.tables import count, plural, shown


def render(package: str, template: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        package: dotted name of the one whose folder ``templates`` holds it. ``page.html``, the frame of all pages, and
            ``parts.html``, their tables, figures and notes, are found from everywhere.
        template: its name.
            In one that ends in ``.md``, values are escaped as text of Markdown, otherwise as text of HTML.
        values: by their names in the template.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    return _environment(package, is_markdown=template.endswith(".md")).get_template(template).render(values)


def markdown(value: Any) -> Any:
    """A value as text within a line of Markdown: it makes no tag, link, image, code, or column of a table."""
    if isinstance(value, Markup):
        return value
    return Markup(_MARKDOWN.sub(r"\\\1", re.sub(r"\s+", " ", str(value))))


_MARKDOWN = re.compile(r"([\\`<\[|])")


@cache
def _environment(package: str, is_markdown: bool) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__ or "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=markdown if is_markdown else None,
    )
    environment.filters |= {"shown": shown, "count": count, "plural": plural}
    return environment
