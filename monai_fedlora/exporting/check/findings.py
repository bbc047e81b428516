"""The result of a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from monai_fedlora.errors import ExportError

_MOST_PROBLEMS = 20

RULES = {
    "container": "no links, special files, paths that lead outside, overlapping or exploding archives",
    "files": "the files of a bundle and no others, no Python",
    "checksums": "every file as it was written, none missing, none added",
    "metadata": "MONAI's schema, and in agreement with the files",
    "configuration": "word for word what an export writes; in training, known targets and no expressions",
    "models": "tensors and arithmetic only in every model file",
    "signature": "if there is one, a sound one; with --verify, a trusted key's, over every file",
}
"""Every rule with a description, in the order of a report."""

PASSED, REFUSED, FOREIGN = "passed", "refused", "foreign"
"""Verdicts on a bundle. A foreign bundle was not made by this package, so that its rules do not apply."""

UNSIGNED, NOT_VERIFIED, VERIFIED = "unsigned", "not verified", "verified"
"""Verdicts on a bundle's signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: a key of :data:`RULES`.
        file: path inside the bundle; "." for the bundle itself.
        problem: continuation of a sentence that begins with the file.
    """

    rule: str
    file: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a check.

    Attributes:
        bundle: the path as it was given.
        kind: "exported" (with a model), "training" (configuration only), "foreign" (not made by this package), or
            "unknown" (could not be opened).
        digest: SHA-256 of ``checksums.json``; None if there is none.
        files: number of files.
        examined: the rules that were applied; of a foreign or unknown bundle only "container".
        findings: what is wrong, or why the bundle cannot be judged.
        signature: :data:`UNSIGNED`, :data:`NOT_VERIFIED` (no key was given, or it is wrong) or :data:`VERIFIED`.
        signer: SHA-256 of the key that the signature names, which is proven only if :data:`VERIFIED`; None if unsigned.
    """

    bundle: str
    kind: str
    digest: str | None
    files: int
    examined: tuple[str, ...]
    findings: tuple[Finding, ...]
    signature: str = UNSIGNED
    signer: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """:data:`PASSED`, :data:`REFUSED`, or :data:`FOREIGN` for a bundle that cannot be judged."""
        return PASSED if self.passed else FOREIGN if self.kind == FOREIGN else REFUSED

    def to_json(self) -> dict[str, Any]:
        """As JSON, for ``--json``."""
        return {"passed": self.passed, "verdict": self.verdict, **asdict(self)}


def first_problems(problems: Iterable[str]) -> list[str]:
    """The first problems of a file; an error that stops the search replaces those before."""
    try:
        return list(problems)[:_MOST_PROBLEMS]
    except (ExportError, UnicodeDecodeError) as error:
        return [str(error)]
