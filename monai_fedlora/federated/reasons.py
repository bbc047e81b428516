"""Why a site has not answered, or an answer of its does not count: a code from a fixed list, and a sentence of ours.

A site sends the code alone, as the return code of its answer, beside NVFlare's own. No text of the site's travels: what
went wrong in full stays in its ``errors.log``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_fedlora.errors import (
    ConfigError,
    DataError,
    Diverged,
    NotApproved,
    OtherBackbone,
    OtherBundle,
    OtherVersions,
    OutOfMemory,
    PolicyError,
    PrivacyError,
    WeightsError,
    WorkerDied,
)
from monai_fedlora.federated.lock import Busy

DISK_FULL, NOT_WRITABLE, OUT_OF_MEMORY, BUSY = "DISK_FULL", "NOT_WRITABLE", "SITE_OUT_OF_MEMORY", "BUSY"
IMAGES_MISSING, DATA_UNUSABLE, WEIGHTS_UNUSABLE = "IMAGES_MISSING", "DATA_UNUSABLE", "WEIGHTS_UNUSABLE"
BACKBONE_DIFFERS, BUNDLE_DIFFERS = "BACKBONE_DIFFERS", "BUNDLE_DIFFERS"
VERSIONS_DIFFER, SETTINGS_DIFFER = "VERSIONS_DIFFER", "SETTINGS_DIFFER"
NOT_APPROVED, POLICY_FORBIDS, TASK_REFUSED = "NOT_APPROVED", "POLICY_FORBIDS", "TASK_REFUSED"
DIVERGED, WORKER_DIED, SITE_FAILED = "DIVERGED", "WORKER_DIED", "SITE_FAILED"
_DETAILS = "; its errors.log names it"

REASONS: Mapping[str, str] = {
    DISK_FULL: "the site's disk is full: free space where MONAI_FEDLORA_PRIVATE_DIR lies",
    NOT_WRITABLE: "the site cannot write into its private folder: give it to the user that runs NVFlare",
    OUT_OF_MEMORY: "memory ran out at the site: a smaller batch_size, or more accumulation_steps, needs less",
    BUSY: "another run of this experiment uses the site's private folder: end one of the two",
    IMAGES_MISSING: f"an image that the site's datalist names is not there{_DETAILS}",
    DATA_UNUSABLE: f"an image or a list of the site's data cannot be used{_DETAILS}",
    BACKBONE_DIFFERS: "its backbone is not the plan's: give it the file that MONAI_FEDLORA_BACKBONE should name",
    BUNDLE_DIFFERS: "its bundle is not the one that the job was made with: install the same, and look into "
    "MONAI_FEDLORA_BUNDLES for another one of its name",
    VERSIONS_DIFFER: "its packages are not those that the job was made with: install them, or make the job with "
    "--allow-versions",
    WEIGHTS_UNUSABLE: f"its backbone is not there, or a file of weights or of its state is damaged{_DETAILS}",
    SETTINGS_DIFFER: f"its data or its bundle do not have the plan's classes or settings{_DETAILS}",
    NOT_APPROVED: "nobody at the site has approved this job: monai-fedlora approve JOB --output DIR, at the site",
    POLICY_FORBIDS: "the site's own policy does not allow this job; its errors.log names the limit",
    TASK_REFUSED: f"the site refuses what it was sent, or its own state is of another run{_DETAILS}",
    DIVERGED: "training diverged at the site: a lower learning_rate, or a max_grad_norm, may keep it finite",
    WORKER_DIED: "the site's training process was ended, or crashed: it begins again with the next task",
    SITE_FAILED: "the site failed; what went wrong there is in errors.log in its own private folder "
    "(MONAI_FEDLORA_PRIVATE_DIR at the site, else 'private' in its workspace), and is not sent",
}
"""What is said of each code that a site can send."""

TOLD_UNDER_BUDGET = frozenset(
    {BUSY, NOT_APPROVED, TASK_REFUSED, BACKBONE_DIFFERS, WEIGHTS_UNUSABLE, BUNDLE_DIFFERS, VERSIONS_DIFFER}
)
"""What a site with a budget for privacy still says in a round: what follows from the job, from packages, from the
backbone, from its consent and from its own records, and is the same whoever its patients are. Any other failure may be
one that a single patient has caused, as by an image that cannot be read or by being drawn into a step that is too
large, and is ``SITE_FAILED``."""

LATE, CONNECTION_LOST, NOT_CONNECTED, NO_ANSWER = "LATE", "CONNECTION_LOST", "NOT_CONNECTED", "NO_ANSWER"
BLOCKED_HERE, BLOCKED_AT_SITE = "BLOCKED_AT_SERVER", "BLOCKED_AT_SITE"
ANSWER_REFUSED, STATE_LOST = "ANSWER_REFUSED", "STATE_LOST"
UNREADABLE, TOO_LONG = "ANSWER_UNREADABLE", "ANSWER_TOO_LONG"
NOTICED: Mapping[str, str] = {
    LATE: "no answer in time",
    CONNECTION_LOST: "no answer, and the connection is lost",
    NOT_CONNECTED: "the site is not connected",
    NO_ANSWER: "no answer",
    BLOCKED_HERE: "blocked by the server's filter",
    BLOCKED_AT_SITE: "blocked by the site's own filter",
    ANSWER_REFUSED: "the server refuses the answer",
    UNREADABLE: "the answer cannot be decoded",
    TOO_LONG: "the answer is longer than any answer to this job, and was not received",
    STATE_LOST: "the site began without its state of the last round",
}
"""What is said of each code that the server finds itself."""

STOPPED, TOO_FEW, NOT_READY = "stopped", "too_few_answers", "not_ready"
SERVER_FAILED, GAVE_UP = "server_failed", "gave_up"
INTERRUPTIONS: Mapping[str, str] = {
    STOPPED: "its process was told to end, or ended without saying why",
    TOO_FEW: "too few answers to a round counted",
    NOT_READY: "too few sites were ready before the first round",
    SERVER_FAILED: "an error ended it at the server, whose log.txt tells of it",
    GAVE_UP: "too many of its jobs in a row brought no new round",
}
"""What is said of what has ended a run before its time."""


@dataclass(frozen=True)
class Reason:
    """Why an answer is missing or does not count.

    Attributes:
        code: of :data:`REASONS` or :data:`NOTICED`.
        text: for people; nothing that a site has written.
    """

    code: str
    text: str

    @classmethod
    def of(cls, code: str) -> Reason:
        """The reason with the usual sentence of its code."""
        return cls(code, REASONS[code] if code in REASONS else NOTICED[code])

    @classmethod
    def of_all(cls, codes: Sequence[str]) -> Reason:
        """The first of several codes, at least one, with the sentences of all."""
        return cls(codes[0], "; ".join(cls.of(code).text for code in codes))

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"

    def about(self, more: str) -> Reason:
        """The same reason with what is known of this case."""
        return Reason(self.code, f"{self.text}: {more}")


def said_of(entry: Mapping[str, Any]) -> str:
    """A refusal of ``results.json`` in words, with its code; records of earlier versions have none."""
    return f"{entry['reason']} ({entry['code']})" if "code" in entry else str(entry["reason"])


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (WorkerDied, WORKER_DIED),
    (Diverged, DIVERGED),
    (NotApproved, NOT_APPROVED),
    (PolicyError, POLICY_FORBIDS),
    (PrivacyError, TASK_REFUSED),
    (OtherBackbone, BACKBONE_DIFFERS),
    (WeightsError, WEIGHTS_UNUSABLE),
    (DataError, DATA_UNUSABLE),
    (OtherBundle, BUNDLE_DIFFERS),
    (OtherVersions, VERSIONS_DIFFER),
    (ConfigError, SETTINGS_DIFFER),
)
"""The first that fits counts."""


def reason_of(error: BaseException, *, budget: bool = False) -> str:
    """The code of what a site's task raised.

    Args:
        error: with what it was raised from.
        budget: whether it was raised by a round or the final evaluation of a plan with a budget for privacy, so that
            nothing but :data:`TOLD_UNDER_BUDGET` is told from ``SITE_FAILED``.
    """
    code = _code_of(error)
    return code if not budget or code in TOLD_UNDER_BUDGET else SITE_FAILED


def _code_of(error: BaseException) -> str:
    for cause in _causes(error):
        if isinstance(cause, OutOfMemory | MemoryError):
            return OUT_OF_MEMORY
        if isinstance(cause, Busy):
            return BUSY
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return DISK_FULL
        if isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return NOT_WRITABLE
    if isinstance(error, DataError) and "does not exist" in str(error):
        return IMAGES_MISSING
    return next((code for kind, code in _KINDS if isinstance(error, kind)), SITE_FAILED)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
