"""``model.sig``: the signature of a bundle, in the format of the OpenSSF Model Signing specification, version 1.0.

It is a Sigstore bundle (v0.3) around a DSSE envelope (v1.0) around an in-toto statement (v1), which lists the SHA-256
of every other file. Any implementation of that specification can verify it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.exporting.keys import SigningKey
from monai_fedlora.files import sha256, write_text

SIGNATURE_NAME = "model.sig"
LARGEST = 4 << 20
"""Largest size of a signature in bytes (ours): a thousand files need 300 kB."""

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A signature that was read but not verified.

    Attributes:
        fingerprint: of the key that it names.
        payload: the statement, as the bytes that were signed.
        signature: DER.
    """

    fingerprint: str
    payload: bytes
    signature: bytes

    @property
    def message(self) -> bytes:
        """The signed bytes: DSSE's pre-authentication encoding of the payload and its type."""
        return b" ".join([b"DSSEv1", b"%d" % len(_PAYLOAD), _PAYLOAD.encode(), b"%d" % len(self.payload), self.payload])


def sign_bundle(folder: Path, key: SigningKey) -> None:
    """Sign every file of a finished bundle, and write ``model.sig`` into it.

    Args:
        folder: the bundle, with its final name.
        key: the private key.
    """
    paths = (path for path in folder.rglob("*") if path.is_file() and path != folder / SIGNATURE_NAME)
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    payload = json.dumps(statement(folder.name, digests), indent=1).encode()
    envelope = Envelope(fingerprint=key.public.fingerprint, payload=payload, signature=b"")
    write_text(folder / SIGNATURE_NAME, encoded(envelope, key.sign(envelope.message)))


def statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """The in-toto statement on a folder, from the SHA-256 of its files by path."""
    resources = [{"name": file, "algorithm": "sha256", "digest": digests[file]} for file in sorted(digests)]
    root = hashlib.sha256(b"".join(bytes.fromhex(resource["digest"]) for resource in resources)).hexdigest()
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE_NAME],
    }
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {"serialization": serialization, "resources": resources},
    }


def encoded(envelope: Envelope, signature: bytes) -> str:
    """The text of ``model.sig``, one line without spaces."""
    content = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": envelope.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(content, separators=(",", ":"))


def read_envelope(content: bytes) -> Envelope:
    """Parse ``model.sig``; only the entries of a signature with a key are accepted.

    Raises:
        ExportError: it has others, or lacks one.
    """
    outer = _members(read_plain_json(content), "mediaType", "verificationMaterial", "dsseEnvelope")
    material, inner = outer["verificationMaterial"], outer["dsseEnvelope"]
    if not isinstance(material, dict) or material.get("tlogEntries", []) != []:
        raise ExportError("is not made with a key alone; signatures with certificates or logs are not read")
    key = _members({**material, "tlogEntries": []}, "publicKey", "tlogEntries")["publicKey"]
    inner = _members(inner, "payload", "payloadType", "signatures")
    if outer["mediaType"] != _BUNDLE or inner["payloadType"] != _PAYLOAD:
        raise ExportError("is of another format or version")
    signatures = inner["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise ExportError("does not hold exactly one signature")
    if signatures[0].get("keyid") not in (None, ""):
        raise ExportError("names its key in an unknown way")
    signature = _members({**signatures[0], "keyid": ""}, "sig", "keyid")["sig"]
    fingerprint = _members(key, "hint")["hint"]
    if not isinstance(fingerprint, str) or len(fingerprint) != 64 or set(fingerprint) - set("0123456789abcdef"):
        raise ExportError("does not name its key by a SHA-256")
    return Envelope(fingerprint=fingerprint, payload=_decoded(inner["payload"]), signature=_decoded(signature))


def read_statement(payload: bytes) -> dict[str, str]:
    """SHA-256 by path of the files that a verified payload lists.

    Raises:
        ExportError: it has another format, or is incomplete.
    """
    content = read_plain_json(payload)
    predicate = content.get("predicate") if isinstance(content, dict) else None
    if not isinstance(predicate, dict) or (content.get("_type"), content.get("predicateType")) != (
        _STATEMENT,
        _PREDICATE,
    ):
        raise ExportError("signs something else than the files of a model")
    serialization, resources = predicate.get("serialization"), predicate.get("resources")
    if not isinstance(serialization, dict) or (serialization.get("method"), serialization.get("hash_type")) != (
        "files",
        "sha256",
    ):
        raise ExportError("does not sign the SHA-256 of whole files")
    digests: dict[str, str] = {}
    for resource in resources if isinstance(resources, list) else []:
        name, digest, algorithm = (
            (resource.get(key) for key in ("name", "digest", "algorithm")) if isinstance(resource, dict) else [None] * 3
        )
        if not isinstance(name, str) or not isinstance(digest, str) or algorithm != "sha256" or name in digests:
            raise ExportError("lists its files in an unknown way")
        digests[name] = digest
    if not digests:
        raise ExportError("lists no files")
    return digests


def _members(value: Any, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ExportError(f"is no signature of a model: it needs {', '.join(names)} and nothing else there")
    return value


def _decoded(text: Any) -> bytes:
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raise ExportError("is not encoded in base64") from None
    if base64.b64encode(content).decode() != text:
        raise ExportError("is not encoded in base64 as it should be")
    return content
