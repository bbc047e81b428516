"""The whole check of a bundle, one rule after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.export.check.configs import check_configs
from monai_fedlora.export.check.contents import Contents, open_contents
from monai_fedlora.export.check.findings import FOREIGN, Finding, Report
from monai_fedlora.export.check.layout import check_checksums, check_files, kind_of
from monai_fedlora.export.check.metadata import check_metadata
from monai_fedlora.export.check.models import check_models
from monai_fedlora.export.check.origin import NOT_MADE_HERE, made_here
from monai_fedlora.export.checksums import CHECKSUMS_NAME

_RULES: dict[str, Callable[[Contents], Iterator[Finding]]] = {
    "files": check_files,
    "checksums": check_checksums,
    "metadata": check_metadata,
    "configuration": check_configs,
    "models": check_models,
}


def check_bundle(bundle: Path, *, digest: str | None = None) -> Report:
    """Look at every file of a bundle without executing or loading anything of it.

    Args:
        bundle: its folder, or a zip that holds the folder.
        digest: what :func:`monai_fedlora.export.checksums.write_checksums` returned when the bundle was written; None
            does not compare it.

    Raises:
        ExportError: there is no such file, or it cannot be read.
    """
    with open_contents(bundle) as contents:
        return check_contents(contents, bundle=bundle, digest=digest)


def check_contents(contents: Contents | list[Finding], *, bundle: Path, digest: str | None = None) -> Report:
    """Judge what :func:`monai_fedlora.export.check.contents.open_contents` gave, so that it can be loaded afterwards.

    Args:
        contents: the copy, or what forbade to make it.
        bundle: where it was copied from.
        digest: as of :func:`check_bundle`.
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
    findings = [finding for rule in _RULES for finding in _apply(rule, contents)]
    found = contents.digests.get(CHECKSUMS_NAME)
    if digest is not None and found != digest.strip().lower():
        problem = f"has the SHA-256 {found}, not the expected {digest}: it is of another export"
        findings.append(Finding(rule="checksums", file=CHECKSUMS_NAME, problem=problem))
    return Report(
        bundle=str(bundle),
        kind=kind_of(contents),
        digest=found,
        files=len(contents.files),
        examined=("container", *_RULES),
        findings=tuple(findings),
    )


def _apply(rule: str, contents: Contents) -> list[Finding]:
    """Findings of one rule; what it could not get through counts as one."""
    findings = []
    try:
        for finding in _RULES[rule](contents):
            findings.append(finding)
    except (ExportError, OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        findings.append(Finding(rule=rule, file=".", problem=f"could not be examined: {error}"))
    return findings
