"""Pages from templates: everything put into one is escaped, and nothing that it names may be missing."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from monai_fedlora.rendering.tables import count, plural, shown


def render(package: str, template: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        package: dotted name of the one whose folder ``templates`` holds it. ``page.html``, the frame of all pages, and
            ``parts.html``, their tables, figures and notes, are found from everywhere.
        template: its name.
        values: by their names in the template.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__ or "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"shown": shown, "count": count, "plural": plural}
    return environment
