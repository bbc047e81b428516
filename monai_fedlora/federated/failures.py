"""Records of failed tasks: the whole error stays at the site, and others learn only that the task failed."""

from __future__ import annotations

import traceback
from pathlib import Path

from monai_fedlora.federated.reasons import SITE_FAILED, Reason, reason_of
from monai_fedlora.files import for_the_owner

ERRORS_NAME = "errors.log"


def note(error: BaseException, folder: Path) -> None:
    """Append an error with its traceback to ``errors.log`` in a private folder, for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    with open(folder / ERRORS_NAME, "a", encoding="utf-8", opener=for_the_owner) as stream:
        stream.write("".join(traceback.format_exception(error)) + "\n")


def noted(error: BaseException, folder: Path, *, budget: bool = False) -> str:
    """Note an error, and return what logs that leave the site may say of it.

    Args:
        error: to note.
        folder: the site's private one.
        budget: see :func:`monai_fedlora.federated.reasons.reason_of`; then its kind is not told either.
    """
    details = f"details are in {ERRORS_NAME} in the site's private folder"
    try:
        note(error, folder)
    except OSError as problem:
        details = f"{ERRORS_NAME} in the site's private folder cannot be written ({type(problem).__name__})"
    return f"{'an error' if budget else type(error).__name__}; {details}"


def reason(error: BaseException, folder: str, *, budget: bool = False) -> Reason:
    """The entry in a run's results for a task that failed: nothing that names a patient or a path of the site.

    Args:
        error: that :func:`note` has kept.
        folder: where, as seen from the results.
        budget: see :func:`monai_fedlora.federated.reasons.reason_of`; then its kind is not told either.
    """
    code = reason_of(error, budget=budget)
    failed = "the site failed" if budget else f"the site failed ({type(error).__name__})"
    if code == SITE_FAILED:
        return Reason(code, f"{failed}; what went wrong there is in {ERRORS_NAME} in {folder}")
    return Reason(code, f"{failed}: {Reason.of(code).text}")
