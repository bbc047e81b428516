"""Whether a bundle is what it claims to be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.exporting.check import checker
from monai_fedlora.exporting.check.findings import FOREIGN, NOT_VERIFIED, PASSED, REFUSED, RULES, VERIFIED, Report
from monai_fedlora.exporting.keys import read_public_keys
from monai_fedlora.rendering.tables import Table

__all__ = ["Checked", "check"]

_VERDICTS = {
    PASSED: "the bundle passed",
    REFUSED: "the bundle did not pass; do not load it",
    FOREIGN: "not made by this toolkit: cannot be judged. Load it only if you trust whoever made it",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked(Report):
    """What a check has found.

    Attributes:
        bundle: the path as it was given.
        kind: "exported", with a model, "training", configuration alone, or "foreign", not made by this package.
        digest: SHA-256 of ``checksums.json``; None where there is none.
        files: number of files looked at.
        examined: the rules that were applied.
        findings: what is wrong, each with its ``rule``, ``file`` and ``problem``.
        signature: "unsigned", "not verified" or "verified".
        signer: SHA-256 of the key that the signature names; None without one.
    """

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each, without the letters that steer a terminal."""
        lines = [f"{finding.file}: {finding.problem}" for finding in self.findings]
        return ["".join(letter if letter.isprintable() else "?" for letter in line) for line in lines]

    @property
    def notes(self) -> list[str]:
        """Digest, signature and verdict, a line each."""
        lines = [f"digest {self.digest}"] if self.digest else []
        if self.signature == VERIFIED:
            lines.append(f"signed with the key {self.signer}, which --verify names")
        elif self.signature == NOT_VERIFIED and self.passed:
            lines.append("signed, signature not verified: give --verify PUBKEY")
        return [*lines, _VERDICTS[self.verdict]]

    def table(self) -> Table:
        """Every rule with its result."""
        rows = []
        for rule, text in RULES.items():
            found = sum(finding.rule == rule for finding in self.findings)
            passed = self.signature if rule == "signature" else "passed"
            result = "not looked at" if rule not in self.examined else f"{found} wrong" if found else passed
            rows.append([rule, text, result])
        caption = f"{self.bundle}: {self.kind} bundle, {self.files} files"
        return Table(caption=caption, head=["rule", "what it asks for", "result"], rows=rows, text=True)


def check(
    bundle: str | os.PathLike[str],
    *,
    digest: str | None = None,
    keys: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    run: bool = False,
) -> Checked:
    """Look at every file of a bundle without executing or loading anything of it, unless ``run`` asks for it.

    Args:
        bundle: its folder, or a zip of it.
        digest: what its export returned; None does not compare it.
        keys: files of public keys (PEM), one of which the bundle must be signed with; none asks for no signature.
        run: let a model that passes classify noise, with limits on time and memory.

    Returns:
        The findings; ``passed`` says whether there are none.

    Raises:
        ConfigError: a key cannot be read.
        ExportError: there is no such bundle, or it cannot be read.

    Examples:
        >>> import monai_fedlora as fl
        >>> from monai_fedlora.resources import bundle_path
        >>> found = fl.check(bundle_path("cine_cmr_dual_lora_classification"))
        >>> found.passed, found.kind, found.notes
        (True, 'training', ['the bundle passed'])
    """
    signers = read_public_keys([Path(key) for key in one_or_more(keys)])
    report = checker.check_bundle(Path(bundle), digest=digest, keys=signers, run=run)
    return Checked(**{field.name: getattr(report, field.name) for field in dataclasses.fields(report)})
