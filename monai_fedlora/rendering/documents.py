"""Fill in templates with Jinja2: all values are escaped, and a missing one is an error."""

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
        package: dotted name of the package whose folder ``templates`` contains it. ``page.html``, the layout of all
            pages, and ``parts.html``, their tables, figures and notes, can be used by all templates.
        template: file name. Values are escaped for Markdown if it ends in ``.md``, otherwise for HTML.
        values: values by their names in the template.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _environment(package, is_markdown=template.endswith(".md")).get_template(template).render(values)


def markdown(value: Any) -> Any:
    """Escape a value for a line of Markdown: it cannot become a tag, link, image, code or column of a table."""
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
