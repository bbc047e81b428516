"""A signature covers every file of a bundle, and each way it can fail is named."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.bundle_zip import pack
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.check.contents import Contents, open_contents
from monai_fedlora.exporting.check.findings import NOT_VERIFIED, UNSIGNED, VERIFIED, Finding
from monai_fedlora.exporting.check.signature import check_signature
from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.exporting.keys import PublicKey, read_public_key, read_signing_key
from monai_fedlora.exporting.signing import SIGNATURE_NAME, sign_bundle
from tests.exporting.signing import KeyPair, write_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return write_keys(tmp_path_factory.mktemp("keys"), "mine")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return write_keys(tmp_path_factory.mktemp("keys"), "theirs")


@pytest.fixture(scope="module")
def trusted(keys: KeyPair) -> PublicKey:
    return read_public_key(keys.public)


@pytest.fixture(scope="module")
def signed(image_exported: Exported, keys: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle that tests only read."""
    folder = Path(shutil.copytree(image_exported.folder, tmp_path_factory.mktemp("b") / image_exported.folder.name))
    sign_bundle(folder, read_signing_key(keys.private))
    return folder


@pytest.fixture
def bundle(signed: Path, tmp_path: Path) -> Path:
    """A signed bundle that a test may change."""
    return Path(shutil.copytree(signed, tmp_path / signed.name))


def found(bundle: Path, *keys: PublicKey) -> list[Finding]:
    """What the rule alone has to say."""
    with open_contents(bundle) as contents:
        assert isinstance(contents, Contents)
        return list(check_signature(contents, keys=keys))


@pytest.mark.slow
def test_a_signed_bundle_is_verified_as_folder_and_as_zip(signed: Path, trusted: PublicKey, tmp_path: Path) -> None:
    pack(signed, tmp_path / "renamed.zip")
    for path in (signed, tmp_path / "renamed.zip"):
        report = check_bundle(path, keys=[trusted])
        assert (report.findings, report.signature, report.signer) == ((), VERIFIED, trusted.fingerprint)
        assert "signature" in report.examined
        report = check_bundle(path)
        assert (report.findings, report.signature, report.signer) == ((), NOT_VERIFIED, trusted.fingerprint)


def test_one_of_several_keys_is_enough(signed: Path, trusted: PublicKey, others: KeyPair) -> None:
    other = read_public_key(others.public)
    assert found(signed, other, trusted) == found(signed, trusted, other) == []


@pytest.mark.slow
def test_an_unsigned_bundle_is_one_that_is_not_asked_for_a_signature(
    image_exported: Exported, trusted: PublicKey
) -> None:
    report = check_bundle(image_exported.folder)
    assert (report.passed, report.signature, report.signer) == (True, UNSIGNED, None)
    report = check_bundle(image_exported.folder, keys=[trusted])
    assert (report.passed, report.signature) == (False, UNSIGNED)
    assert "is not signed" in report.findings[0].problem


def test_another_key_is_named(signed: Path, trusted: PublicKey, others: KeyPair) -> None:
    other = read_public_key(others.public)
    (finding,) = found(signed, other)
    assert "is of another key" in finding.problem
    assert trusted.fingerprint[:16] in finding.problem and other.fingerprint[:16] in finding.problem
    report = check_bundle(signed, keys=[other])
    assert (report.passed, report.signature) == (False, NOT_VERIFIED)


def edit(bundle: Path, change: Callable[[Any], None]) -> None:
    content = json.loads((bundle / SIGNATURE_NAME).read_bytes())
    change(content)
    (bundle / SIGNATURE_NAME).write_text(json.dumps(content, separators=(",", ":")))


def name_key(bundle: Path, key: PublicKey) -> None:
    edit(bundle, lambda content: content["verificationMaterial"]["publicKey"].update(hint=key.fingerprint))


def change_payload(bundle: Path) -> None:
    """Let the signature list what the folder holds now."""

    def change(content: Any) -> None:
        payload = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
        with open_contents(bundle) as contents:
            assert isinstance(contents, Contents)
            for resource in payload["predicate"]["resources"]:
                resource["digest"] = contents.digests[resource["name"]]
        content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()

    edit(bundle, change)


def write_and_forge(bundle: Path) -> None:
    (bundle / "LICENSE").write_text("another")
    write_checksums(bundle)
    change_payload(bundle)


TAMPERINGS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "changed": (lambda b: (b / "LICENSE").write_bytes(b"x"), "LICENSE", "is not what was signed"),
    "emptied": (lambda b: (b / "docs" / "README.md").write_bytes(b""), "docs/README.md", "is not what was signed"),
    "missing": (lambda b: (b / "models" / "model.pt2").unlink(), "models/model.pt2", "is signed but missing"),
    "moved": (
        lambda b: (b / "docs" / "CLAIM.md").rename(b / "docs" / "C.md"),
        "docs/CLAIM.md",
        "is signed but missing",
    ),
    "added": (lambda b: (b / "docs" / "MORE.md").write_text("x"), "docs/MORE.md", "is not signed: it was added"),
    "hidden": (
        lambda b: ((b / ".git").mkdir(), (b / ".git" / "hook").write_text("x")),
        ".git/hook",
        "is not signed: it was added",
    ),
    "checksums of another": (
        lambda b: ((b / "LICENSE").write_text("x"), write_checksums(b)),
        "checksums.json",
        "is not what was signed",
    ),
    "unsigned": (lambda b: (b / SIGNATURE_NAME).unlink(), ".", "is not signed"),
    "forged": (write_and_forge, SIGNATURE_NAME, "was changed or forged"),
    "no signature": (lambda b: (b / SIGNATURE_NAME).write_text("trust me"), SIGNATURE_NAME, "is not valid JSON"),
    "large": (lambda b: (b / SIGNATURE_NAME).write_bytes(b" " * (5 << 20)), SIGNATURE_NAME, "more than the 4,194,304"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", TAMPERINGS)
def test_what_was_done_to_a_signed_bundle_is_named(bundle: Path, trusted: PublicKey, change: str) -> None:
    tamper, file, problem = TAMPERINGS[change]
    tamper(bundle)
    findings = found(bundle, trusted)
    assert [finding for finding in findings if finding.file == file and problem in finding.problem], findings
    assert not check_bundle(bundle, keys=[trusted]).passed


def test_a_bundle_under_another_name_may_be_another_one(bundle: Path, trusted: PublicKey) -> None:
    moved = bundle.rename(bundle.parent / "other")
    (finding,) = found(moved, trusted)
    assert finding.file == "." and f"was signed as '{bundle.name}'" in finding.problem
    pack(moved, moved.parent / f"{bundle.name}.zip")
    assert "was signed as" in found(moved.parent / f"{bundle.name}.zip", trusted)[0].problem
    assert check_bundle(moved).passed


def test_the_signature_of_another_bundle_does_not_fit(
    bundle: Path, exported: Exported, keys: KeyPair, trusted: PublicKey, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(exported.folder, tmp_path / "other" / exported.folder.name))
    sign_bundle(other, read_signing_key(keys.private))
    shutil.copyfile(other / SIGNATURE_NAME, bundle / SIGNATURE_NAME)
    assert "is not what was signed" in " ".join(finding.problem for finding in found(bundle, trusted))


def test_a_key_that_is_named_must_have_signed(bundle: Path, trusted: PublicKey, others: KeyPair) -> None:
    name_key(bundle, read_public_key(others.public))
    (finding,) = found(bundle, read_public_key(others.public))
    assert "which it names: it was changed or forged" in finding.problem
    assert "is of another key" in found(bundle, trusted)[0].problem


def test_a_key_of_another_curve_with_the_same_name_is_no_crash(bundle: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = read_public_key(write_keys(tmp_path, curve=ec.SECP521R1()).public)
    same = dataclasses.replace(other, fingerprint=read_public_key(keys.public).fingerprint)
    assert "changed or forged" in found(bundle, same)[0].problem


def test_a_signature_is_well_formed_even_if_nobody_verifies_it(bundle: Path) -> None:
    (bundle / SIGNATURE_NAME).write_bytes(os.urandom(1000))
    report = check_bundle(bundle)
    assert [finding.file for finding in report.findings] == [SIGNATURE_NAME]
    assert report.signer is None


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60)
def test_any_changed_byte_of_any_file_is_found(
    signed: Path, trusted: PublicKey, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = sorted(path.relative_to(signed).as_posix() for path in signed.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(names) | st.just(SIGNATURE_NAME))
    content = bytearray((signed / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("b") / signed.name
    shutil.copytree(signed, folder, copy_function=os.link)
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    assert {finding.file for finding in found(folder, trusted)} == {name}


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60)
def test_every_byte_of_the_signature_itself_counts(
    signed: Path, trusted: PublicKey, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = (signed / SIGNATURE_NAME).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(
        st.sampled_from([content[:place], content[:place] + content[place + 1 :]])
        | st.binary(min_size=1, max_size=3).map(lambda more: content[:place] + more + content[place:])
    )
    folder = tmp_path_factory.mktemp("b") / signed.name
    shutil.copytree(signed, folder, copy_function=os.link)
    (folder / SIGNATURE_NAME).unlink()
    (folder / SIGNATURE_NAME).write_bytes(changed)
    if not changed.strip() or json_of(changed) != json_of(content):
        assert found(folder, trusted)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=40)
def test_a_changed_zip_is_refused_or_holds_the_same_files(
    signed: Path, trusted: PublicKey, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("z")
    pack(signed, place / "B.zip")
    content = bytearray((place / "B.zip").read_bytes())
    directory = data.draw(st.booleans())
    where = data.draw(st.integers(len(content) - 1000 if directory else 0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    (place / "B.zip").write_bytes(content)
    with open_contents(signed) as expected, open_contents(place / "B.zip") as contents:
        assert isinstance(expected, Contents)
        if isinstance(contents, Contents) and not list(check_signature(contents, keys=[trusted])):
            assert contents.digests == expected.digests
            assert contents.name == expected.name


def json_of(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
