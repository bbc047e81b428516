"""Check a bundle's signature: its format, its key, and that it covers every file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.check.findings import Finding
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.exporting.signing import LARGEST, SIGNATURE_NAME, Envelope, read_envelope, read_statement

_METADATA = "configs/metadata.json"


def signature_of(contents: Contents) -> Envelope | None:
    """The signature, not verified; None if there is none or it cannot be read."""
    try:
        return _read(contents) if SIGNATURE_NAME in contents.files else None
    except ExportError:
        return None


def check_signature(contents: Contents, *, keys: Sequence[PublicKey]) -> Iterator[Finding]:
    """A signature, if there is one, can be read; with keys, there is one, made with one of them, over every file.

    Args:
        contents: the bundle.
        keys: trusted public keys; without keys no signature is needed.
    """
    if SIGNATURE_NAME not in contents.files:
        if keys:
            yield _finding(".", f"is not signed: it has no {SIGNATURE_NAME}; ask for a signed export")
        return
    try:
        envelope = _read(contents)
        if not keys:
            return
        yield from _by_a_trusted_key(envelope, keys) or _over_everything(envelope, contents)
    except ExportError as error:
        yield _finding(SIGNATURE_NAME, str(error))


def _read(contents: Contents) -> Envelope:
    return read_envelope(contents.read(SIGNATURE_NAME, LARGEST))


def _by_a_trusted_key(envelope: Envelope, keys: Sequence[PublicKey]) -> list[Finding]:
    named = [key for key in keys if key.fingerprint == envelope.fingerprint]
    if not named:
        known = ", ".join(f"{key.path} ({key.fingerprint[:16]})" for key in keys)
        problem = f"is of another key, {envelope.fingerprint[:16]}, than {known}: not trusted here, or no longer"
        return [_finding(SIGNATURE_NAME, problem)]
    if not any(key.verifies(envelope.signature, envelope.message) for key in named):
        return [
            _finding(SIGNATURE_NAME, f"was not made with {named[0].path}, which it names: it was changed or forged")
        ]
    return []


def _over_everything(envelope: Envelope, contents: Contents) -> list[Finding]:
    signed = read_statement(envelope.payload)
    present = {name: digest for name, digest in contents.digests.items() if name != SIGNATURE_NAME}
    findings = []
    for name in sorted(signed.keys() | present.keys()):
        if name not in present:
            findings.append(_finding(name, "is signed but missing"))
        elif name not in signed:
            findings.append(_finding(name, "is not signed: it was added"))
        elif signed[name] != present[name]:
            findings.append(_finding(name, "is not what was signed: it was changed or damaged"))
    return findings or _under_its_name(contents)


def _under_its_name(contents: Contents) -> list[Finding]:
    """Check the name of the folder, so that another bundle of the same signer cannot be put in its place."""
    if _METADATA not in contents.files:
        return []
    metadata = json.loads(contents.read(_METADATA))
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if name == contents.name:
        return []
    problem = f"was signed as {name!r:.100}; rename it back if it is the one you want, it may have been exchanged"
    return [_finding(".", problem)]


def _finding(file: str, problem: str) -> Finding:
    return Finding(rule="signature", file=file, problem=problem)
