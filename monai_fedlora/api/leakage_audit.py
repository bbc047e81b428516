"""What an own model tells of who was behind it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fedlora.auditing.membership_audit import Audit, audit_model
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import write_json

__all__ = ["Audit", "audit"]


def audit(
    source: str | os.PathLike[str],
    *,
    data: str | None = None,
    site: str | None = None,
    outside: str | None = None,
    shadows: int | None = None,
    leave_out: bool = False,
    invert: int = 0,
    backbone: str | None = None,
    json: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Audit:
    """Run membership inference against an own bundle or finished run, with the data that it was made from.

    Of a run, the bundle that an export would make is attacked, and shadow models are trained; the figures are kept
    beside its model, for its report and its export; where the run kept its answers, what the server saw is attacked
    too. Of a bundle, what needs no training is measured.

    Args:
        source: an exported bundle, or the folder of a run with a catalogued network.
        data: folder of prepared sites (default: generated phantoms).
        site: whose model; of a shared bundle, whose cases.
        outside: prepared folder with other cases of the same kind; "phantom" for more phantoms of the site.
        shadows: shadow runs of LiRA; None for 8 of a run; 0 for none.
        leave_out: of a run with all sites' data here: train it anew without each of its sites, and measure whether the
            shared model tells who took part.
        invert: of a run: images to make again from steps on one, two and four of them; 0 for none.
        backbone: backbone file of a run (default: ``MONAI_FEDLORA_BACKBONE``, then the demo weights).
        json: file that also receives the figures.
        say: told what is done, in lines of text.

    Returns:
        The figures; ``too_much(limit)`` says why a gate should stay closed, or None.

    Raises:
        ConfigError: the source is neither a bundle nor a run, or an option does not fit it.
        DataError: the data are not the model's, or too few.
        ExportError: a run cannot be exported, or a bundle not opened.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.audit("bundle", data="prepared", site="north", shadows=1)
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: --shadows is 1; it takes 2 runs or more, or 0 for none
    """
    if json is not None and Path(json).is_dir():
        raise ConfigError(f"--json {json} is a folder; give the file to write")
    options: dict[str, Any] = {"data": data, "site": site, "outside": outside, "backbone": backbone}
    found = audit_model(Path(source), **options, shadows=shadows, leave_out=leave_out, invert=invert, say=say)
    for path in (found.kept, None if json is None else Path(json)):
        if path is not None:
            write_json(path, found.to_json())
    return found
