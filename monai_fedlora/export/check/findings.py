"""What a check has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RULES = {
    "container": "no links, special files, paths that lead outside, overlapping or exploding archives",
    "files": "the files of a bundle and no others, no Python",
    "checksums": "every file as it was written, none missing, none added",
    "metadata": "MONAI's schema, and in agreement with the files",
    "configuration": "known targets, known expressions, no macros, plain logging",
    "models": "tensors and arithmetic only in every model file",
}
"""Every rule with what it looks at, in the order of a report."""


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
        kind: "exported", with a model, or "training", configuration alone.
        digest: SHA-256 of ``checksums.json``; None where there is none.
        files: number of files looked at.
        examined: the rules that were applied; after a finding in the container no other is.
        findings: what is wrong.
    """

    bundle: str
    kind: str
    digest: str | None
    files: int
    examined: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {"passed": self.passed, **asdict(self)}
