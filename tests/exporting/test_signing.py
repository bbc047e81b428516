"""The format of a signature: the published one, read strictly."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.keys import read_public_key, read_signing_key
from monai_fedlora.exporting.signing import SIGNATURE_NAME, read_envelope, read_statement, sign_bundle
from tests.exporting.signing import write_keys

VECTOR = Path(__file__).parent / "signed"
"""Made by another implementation of the specification (model-signing 1.1.1, with a key on P-384), of two files."""

FILES = {"LICENSE": b"free\n", "models/model.ts": b"\x00\x01\x02"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two files."""
    for name, content in FILES.items():
        (tmp_path / "bundle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / name).write_bytes(content)
    return tmp_path / "bundle"


def digests() -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def test_a_signature_of_another_implementation_is_verified() -> None:
    envelope = read_envelope((VECTOR / "model.sig").read_bytes())
    key = read_public_key(VECTOR / "key.pub.pem")
    assert envelope.fingerprint == key.fingerprint
    assert key.verifies(envelope.signature, envelope.message)
    assert read_statement(envelope.payload) == digests()


def test_what_is_written_says_the_same_as_that_of_another_implementation(folder: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    sign_bundle(folder, read_signing_key(keys.private))
    ours, theirs = (json.loads((where / SIGNATURE_NAME).read_bytes()) for where in (folder, VECTOR))
    said, expected = (json.loads(base64.b64decode(found["dsseEnvelope"]["payload"])) for found in (ours, theirs))
    assert said["predicate"]["serialization"].pop("ignore_paths") == ["model.sig"]
    expected["predicate"]["serialization"].pop("ignore_paths")
    assert said == expected
    for found in (ours, theirs):
        found["verificationMaterial"]["publicKey"]["hint"] = ""
        found["dsseEnvelope"]["payload"] = found["dsseEnvelope"]["signatures"][0]["sig"] = ""
    assert ours == theirs


def test_what_is_signed_is_the_encoding_of_the_protocol(folder: Path, tmp_path: Path) -> None:
    sign_bundle(folder, read_signing_key(write_keys(tmp_path).private))
    envelope = read_envelope((folder / SIGNATURE_NAME).read_bytes())
    size = len(envelope.payload)
    assert envelope.message == b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (size, envelope.payload)


def test_signing_again_leaves_the_old_signature_out(folder: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    for _ in range(2):
        sign_bundle(folder, read_signing_key(keys.private))
    envelope = read_envelope((folder / SIGNATURE_NAME).read_bytes())
    assert read_statement(envelope.payload) == digests()
    assert read_public_key(keys.public).verifies(envelope.signature, envelope.message)


def outer(**values: Any) -> Callable[[Any], None]:
    return lambda content: content.update(values)


def inner(**values: Any) -> Callable[[Any], None]:
    return lambda content: content["dsseEnvelope"].update(values)


ENVELOPES: dict[str, Callable[[Any], Any]] = {
    "another media type": outer(mediaType="application/json"),
    "a further member": outer(dsse_envelope={}),
    "no envelope": lambda content: content.pop("dsseEnvelope"),
    "a certificate": outer(verificationMaterial={"certificate": {}, "tlogEntries": []}),
    "a log": lambda content: content["verificationMaterial"].update(tlogEntries=[{}]),
    "no hint": lambda content: content["verificationMaterial"].update(publicKey={"rawBytes": ""}),
    "an empty hint": lambda content: content["verificationMaterial"]["publicKey"].update(hint=""),
    "a hint in capitals": lambda content: content["verificationMaterial"]["publicKey"].update(hint="A" * 64),
    "another payload type": inner(payloadType="application/json"),
    "no signature": inner(signatures=[]),
    "two signatures": lambda content: content["dsseEnvelope"]["signatures"].append({"sig": "", "keyid": ""}),
    "a signature that is none": inner(signatures=[""]),
    "a key's name": lambda content: content["dsseEnvelope"]["signatures"][0].update(keyid="x"),
    "a payload that is no text": inner(payload=1),
    "letters that are no base64": inner(payload="ä==="),
    "base64 with a line break": inner(payload="e30=\n"),
    "base64 with bits to spare": inner(payload="e31="),
}


@pytest.mark.parametrize("change", ENVELOPES)
def test_an_envelope_holds_what_it_needs_and_nothing_else(change: str) -> None:
    content = json.loads((VECTOR / "model.sig").read_bytes())
    ENVELOPES[change](content)
    with pytest.raises(ExportError):
        read_envelope(json.dumps(content).encode())


@pytest.mark.parametrize("keyid", [None, "", "absent"])
def test_an_envelope_may_leave_out_what_means_nothing(keyid: str | None) -> None:
    content = json.loads((VECTOR / "model.sig").read_bytes())
    expected = read_envelope((VECTOR / "model.sig").read_bytes())
    del content["verificationMaterial"]["tlogEntries"]
    content["dsseEnvelope"]["signatures"][0]["keyid"] = keyid
    if keyid == "absent":
        del content["dsseEnvelope"]["signatures"][0]["keyid"]
    assert read_envelope(json.dumps(content, indent=2).encode()) == expected


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "another statement": lambda content: content.update(_type="https://in-toto.io/Statement/v0.1"),
    "an older predicate": lambda content: content.update(predicateType="https://model_signing/Digests/v0.1"),
    "no predicate": lambda content: content.pop("predicate"),
    "shards": lambda content: content["predicate"]["serialization"].update(method="shards"),
    "another hash": lambda content: content["predicate"]["serialization"].update(hash_type="blake3"),
    "another hash of one file": lambda content: content["predicate"]["resources"][0].update(algorithm="blake3"),
    "no files": lambda content: content["predicate"].update(resources=[]),
    "files in another form": lambda content: content["predicate"].update(resources=[["LICENSE", "0"]]),
    "a file twice": lambda content: content["predicate"]["resources"].append(
        {"name": "LICENSE", "digest": "0" * 64, "algorithm": "sha256"}
    ),
}


@pytest.mark.parametrize("change", STATEMENTS)
def test_a_statement_is_about_the_digests_of_whole_files(change: str) -> None:
    content = json.loads(read_envelope((VECTOR / "model.sig").read_bytes()).payload)
    changed = copy.deepcopy(content)
    STATEMENTS[change](changed)
    assert changed != content
    with pytest.raises(ExportError):
        read_statement(json.dumps(changed).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["sha256", "files", "e30="]),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "dsseEnvelope", "verificationMaterial", "predicate", "resources", "name"]),
            part,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(content=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_crashes_the_readers(content: bytes) -> None:
    for read in (read_envelope, read_statement):
        with pytest.raises(ExportError):
            read(content)
