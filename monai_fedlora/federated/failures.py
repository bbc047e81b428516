"""Records of failed tasks: the whole error stays at the site, and others learn only that the task failed."""

from __future__ import annotations

import traceback
from pathlib import Path

from monai_fedlora.errors import PolicyError
from monai_fedlora.files import for_the_owner

ERRORS_NAME = "errors.log"
NOT_ALLOWED = f"the site's own policy does not allow this job; its {ERRORS_NAME} names the limit"


def note(error: BaseException, folder: Path) -> None:
    """Append an error with its traceback to ``errors.log`` in a private folder, for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    with open(folder / ERRORS_NAME, "a", encoding="utf-8", opener=for_the_owner) as stream:
        stream.write("".join(traceback.format_exception(error)) + "\n")


def reason(error: BaseException, folder: str) -> str:
    """The entry in a run's results for a task that failed: nothing that names a patient or a path of the site.

    Args:
        error: that :func:`note` has kept.
        folder: where, as seen from the results.
    """
    if isinstance(error, PolicyError):
        return NOT_ALLOWED
    return f"the site failed ({type(error).__name__}); what went wrong there is in {ERRORS_NAME} in {folder}"
