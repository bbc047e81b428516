"""Apply all rules to a bundle, and report what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.configs import check_configs
from monai_fedlora.exporting.check.contents import Contents, open_contents
from monai_fedlora.exporting.check.findings import FOREIGN, NOT_VERIFIED, UNSIGNED, VERIFIED, Finding, Report
from monai_fedlora.exporting.check.layout import EXPORTED, check_checksums, check_files, kind_of, model_of
from monai_fedlora.exporting.check.metadata import check_metadata
from monai_fedlora.exporting.check.models import check_models
from monai_fedlora.exporting.check.probe import run_problem
from monai_fedlora.exporting.check.provenance import NOT_MADE_HERE, made_here
from monai_fedlora.exporting.check.signature import check_signature, signature_of
from monai_fedlora.exporting.checksums import CHECKSUMS_NAME
from monai_fedlora.exporting.keys import PublicKey

_Rule = Callable[[Contents], Iterator[Finding]]
_RULES: dict[str, _Rule] = {
    "files": check_files,
    "checksums": check_checksums,
    "metadata": check_metadata,
    "configuration": check_configs,
    "models": check_models,
}


def check_bundle(
    bundle: Path, *, digest: str | None = None, keys: Sequence[PublicKey] = (), run: bool = False
) -> Report:
    """Check every file of a bundle. Nothing of it is executed or loaded, unless ``run`` asks for it.

    Args:
        bundle: its folder, or a zip that holds the folder.
        digest: expected digest, from :func:`monai_fedlora.exporting.checksums.write_checksums`; None accepts any.
        keys: public keys, one of which must have signed the bundle; without keys no signature is needed.
        run: also let the model of an exported bundle that passes classify noise, see
            :mod:`monai_fedlora.exporting.check.probe`.

    Raises:
        ExportError: there is no such file, or it cannot be read.
    """
    with open_contents(bundle) as contents:
        report = check_contents(contents, bundle=bundle, digest=digest, keys=keys)
        runs = run and report.passed and report.kind == EXPORTED
        if runs and isinstance(contents, Contents) and (problem := run_problem(contents.root)):
            report = replace(report, findings=(Finding(rule="models", file=model_of(contents), problem=problem),))
        return report


def check_contents(
    contents: Contents | list[Finding], *, bundle: Path, digest: str | None = None, keys: Sequence[PublicKey] = ()
) -> Report:
    """Check the copy of a bundle, which a caller may load afterwards.

    Args:
        contents: from :func:`monai_fedlora.exporting.check.contents.open_contents`.
        bundle: the original.
        digest: as of :func:`check_bundle`.
        keys: as of :func:`check_bundle`.
    """
    if not isinstance(contents, Contents):
        return Report(
            bundle=str(bundle),
            kind="unknown",
            digest=None,
            files=0,
            examined=("container",),
            findings=tuple(contents),
        )
    if not made_here(contents):
        return Report(
            bundle=str(bundle),
            kind=FOREIGN,
            digest=None,
            files=len(contents.files),
            examined=("container",),
            findings=(Finding(rule="files", file=".", problem=NOT_MADE_HERE),),
        )
    rules: dict[str, _Rule] = {**_RULES, "signature": partial(check_signature, keys=keys)}
    findings = [finding for rule, look in rules.items() for finding in _apply(rule, look, contents)]
    envelope = signature_of(contents)
    verified = bool(keys) and not any(finding.rule == "signature" for finding in findings)
    found = contents.digests.get(CHECKSUMS_NAME)
    if digest is not None and found != digest.strip().lower():
        problem = f"has the SHA-256 {found}, not the expected {digest}: it is of another export"
        findings.append(Finding(rule="checksums", file=CHECKSUMS_NAME, problem=problem))
    return Report(
        bundle=str(bundle),
        kind=kind_of(contents),
        digest=found,
        files=len(contents.files),
        examined=("container", *rules),
        findings=tuple(findings),
        signature=UNSIGNED if envelope is None else VERIFIED if verified else NOT_VERIFIED,
        signer=envelope.fingerprint if envelope else None,
    )


def _apply(rule: str, look: _Rule, contents: Contents) -> list[Finding]:
    """Findings of one rule; an error that stops it counts as one."""
    findings = []
    try:
        for finding in look(contents):
            findings.append(finding)
    except (ExportError, OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        findings.append(Finding(rule=rule, file=".", problem=f"could not be examined: {error}"))
    return findings
