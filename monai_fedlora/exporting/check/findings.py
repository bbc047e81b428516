"""What a check has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RULES = {
    "container": "no links, special files, paths that lead outside, overlapping or exploding archives",
    "files": "the files of a bundle and no others, no Python",
    "checksums": "every file as it was written, none missing, none added",
    "metadata": "MONAI's schema, and in agreement with the files",
    "configuration": "word for word what an export writes; in training, known targets and no expressions",
    "models": "tensors and arithmetic only in every model file",
    "signature": "if there is one, a sound one; with --verify, a trusted key's, over every file",
}
"""Every rule with what it looks at, in the order of a report."""

PASSED, REFUSED, FOREIGN = "passed", "refused", "foreign"
"""What a check says of a bundle. One that is foreign was not made by this package: its rules do not fit it, so that
there is nothing to say for or against it."""

UNSIGNED, NOT_VERIFIED, VERIFIED = "unsigned", "not verified", "verified"
"""What a check says of a bundle's signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: a key of :data:`RULES`.
        file: path inside the bundle; "." for the bundle itself.
        problem: in words.
    """

    rule: str
    file: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a check.

    Attributes:
        bundle: the path as it was given.
        kind: "exported", with a model, "training", configuration alone, or "foreign", not made by this package.
        digest: SHA-256 of ``checksums.json``; None where there is none.
        files: number of files looked at.
        examined: the rules that were applied; after a finding in the container, or to a foreign bundle, no other is.
        findings: what is wrong, or why nothing can be said.
        signature: :data:`UNSIGNED`, :data:`NOT_VERIFIED` (nobody asked, or it is wrong) or :data:`VERIFIED`.
        signer: SHA-256 of the key that the signature names, which only :data:`VERIFIED` proves; None without one.
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
        """Plain values for ``--json``."""
        return {"passed": self.passed, "verdict": self.verdict, **asdict(self)}
