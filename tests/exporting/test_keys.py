"""Keys: which are taken, what the others are told, and that none is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import read_public_key, read_public_keys, read_signing_key
from tests.exporting.signing import write_keys

SECRET = b"not in the logs"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_one_half_signs_the_other_verifies(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    keys, others = write_keys(tmp_path, curve=curve), write_keys(tmp_path, "other", curve=curve)
    private, public = read_signing_key(keys.private), read_public_key(keys.public)
    signature = private.sign(b"message")
    assert public.verifies(signature, b"message")
    assert not public.verifies(signature, b"massage")
    assert not public.verifies(signature[:-1], b"message")
    assert not read_public_key(others.public).verifies(signature, b"message")
    assert private.public.fingerprint == public.fingerprint == hashlib.sha256(keys.public.read_bytes()).hexdigest()
    assert private.warnings == ()


def test_the_fingerprint_is_of_the_key_and_not_of_its_file(tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    expected = read_public_key(keys.public).fingerprint
    keys.public.write_bytes(b"a note\r\n" + keys.public.read_bytes().replace(b"\n", b"\r\n"))
    assert read_public_key(keys.public).fingerprint == expected


def test_passphrase_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = write_keys(tmp_path, passphrase=SECRET)
    (tmp_path / "passphrase").write_bytes(SECRET + b"\nanother line\n")
    (tmp_path / "passphrase").chmod(0o600)
    assert read_signing_key(keys.private, tmp_path / "passphrase").warnings == ()
    with pytest.raises(ConfigError, match=r"is encrypted.*--sign-passphrase-file.*MONAI_FEDLORA_SIGN_PASSPHRASE"):
        read_signing_key(keys.private)
    monkeypatch.setenv("MONAI_FEDLORA_SIGN_PASSPHRASE", SECRET.decode())
    read_signing_key(keys.private)
    monkeypatch.setenv("MONAI_FEDLORA_SIGN_PASSPHRASE", "wrong")
    with pytest.raises(ConfigError, match="cannot be decrypted") as caught:
        read_signing_key(keys.private)
    assert "wrong" not in str(caught.value)
    with pytest.raises(ConfigError, match="is not encrypted, and a passphrase was given"):
        read_signing_key(write_keys(tmp_path, "plain").private)
    (tmp_path / "passphrase").write_bytes(b"\n")
    with pytest.raises(ConfigError, match="no passphrase in its first line"):
        read_signing_key(keys.private, tmp_path / "passphrase")


def test_files_that_others_can_read_are_a_warning(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, passphrase=SECRET)
    (tmp_path / "passphrase").write_bytes(SECRET)
    (tmp_path / "passphrase").chmod(0o640)
    keys.private.chmod(0o644)
    first, second = read_signing_key(keys.private, tmp_path / "passphrase").warnings
    assert "key.pem can be read or written by others (mode 0644); chmod 600" in first
    assert "passphrase can be read or written by others (mode 0640)" in second


def test_a_private_key_is_never_shown(tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    shown = repr(read_signing_key(keys.private))
    assert "fingerprint" in shown
    assert str(keys.scalar) not in shown
    assert "EllipticCurve" not in shown
    with pytest.raises(ConfigError, match="holds a private key; give its public half") as caught:
        read_public_key(keys.private)
    assert keys.private.read_text().splitlines()[1] not in str(caught.value)


def write_rsa(path: Path, *, public: bool) -> None:
    key = rsa.generate_private_key(65537, 2048)
    write(path, key, public=public)


def write(path: Path, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, *, public: bool) -> None:
    if public:
        path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    else:
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, public: write_rsa(path, public=public), "a key of another kind.*openssl genpkey"),
        (
            lambda path, public: write(path, ed25519.Ed25519PrivateKey.generate(), public=public),
            "a key of another kind",
        ),
        (lambda path, public: path.write_bytes(b"nonsense"), "holds no (public|private) key in PEM format"),
        (lambda path, public: path.write_bytes(b"x" * 70_000), "it is no key file"),
        (lambda path, public: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path, public: None, "cannot be read: No such file"),
    ],
)
@pytest.mark.parametrize("public", [True, False])
def test_what_is_no_key_of_ours_is_refused(
    tmp_path: Path, make: Callable[..., None], message: str, public: bool
) -> None:
    make(tmp_path / "K", public)
    with pytest.raises(ConfigError, match=rf"K.*{message}"):
        (read_public_key if public else read_signing_key)(tmp_path / "K")


def test_a_curve_that_nobody_verifies_is_refused(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, curve=ec.SECP256K1())
    for read, path in ((read_public_key, keys.public), (read_signing_key, keys.private)):
        with pytest.raises(ConfigError, match="secp256k1; use P-256"):
            read(path)


def test_one_bad_key_of_several_is_an_error(tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    assert len(read_public_keys([keys.public, keys.public])) == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_keys([keys.public, tmp_path / "gone"])


@given(content=st.binary(max_size=300))
def test_no_file_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("k") / "K"
    path.write_bytes(b"-----BEGIN PUBLIC KEY-----\n" + content + b"\n-----END PUBLIC KEY-----\n")
    for read in (read_public_key, read_signing_key):
        with pytest.raises(ConfigError):
            read(path)
