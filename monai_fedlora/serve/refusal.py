"""The error that refuses a request, and the HTTP status codes in use."""

from __future__ import annotations

from monai_fedlora.errors import FedLoraError

BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND, TIMED_OUT, TOO_LARGE = 400, 401, 403, 404, 408, 413
CONFLICT, WRONG_TYPE, MISDIRECTED, TOO_MANY, DEFECT, DISK_FULL = 409, 415, 421, 429, 500, 507


class Refused(FedLoraError):
    """A request is refused; the message is one sentence for the user of the page.

    Args:
        status: HTTP status code.
        message: what is wrong, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
