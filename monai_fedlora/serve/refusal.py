"""Requests that are not granted."""

from __future__ import annotations

from monai_fedlora.errors import FedLoraError

BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND, TIMED_OUT, TOO_LARGE = 400, 401, 403, 404, 408, 413
CONFLICT, WRONG_TYPE, MISDIRECTED, TOO_MANY, DEFECT, DISK_FULL = 409, 415, 421, 429, 500, 507


class Refused(FedLoraError):
    """A request is not granted; the message is one sentence for the person at the page.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
