"""Requests that are not granted."""

from __future__ import annotations

from monai_fedlora.errors import FedLoraError

BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND, TOO_LARGE, WRONG_TYPE, MISDIRECTED, TOO_MANY, DEFECT, DISK_FULL = (
    400, 401, 403, 404, 413, 415, 421, 429, 500, 507,
)  # fmt: skip


class Refused(FedLoraError):
    """A request is not granted; the message is one sentence for the person at the page.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
