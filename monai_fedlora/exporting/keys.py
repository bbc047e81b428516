"""Elliptic-curve keys for signatures of bundles, which are read from PEM files and never written.

The curves are NIST's P-256, P-384 and P-521, each with the hash of its size (FIPS 186-5), as the OpenSSF Model Signing
specification requires.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from monai_fedlora.environment import SIGN_PASSPHRASE
from monai_fedlora.errors import ConfigError

_HASHES = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
_LARGEST = 64 << 10
_MAKE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 makes one"


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """The public key that verifies signatures.

    Attributes:
        path: its file.
        fingerprint: hexadecimal SHA-256 of its PEM text, as ``openssl pkey -pubin -in PUBKEY | sha256sum`` prints it.
    """

    path: Path
    fingerprint: str
    _key: ec.EllipticCurvePublicKey = field(repr=False)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key made a signature (DER) of a message."""
        try:
            self._key.verify(signature, message, ec.ECDSA(_HASHES[self._key.curve.name]))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """The private key that makes signatures.

    Attributes:
        path: its file.
        public: the public half.
        warnings: sentences on unsafe permissions of its files.
    """

    path: Path
    public: PublicKey
    warnings: tuple[str, ...]
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """A signature (DER) of a message; ECDSA signatures are random, so that each is different."""
        return self._key.sign(message, ec.ECDSA(_HASHES[self._key.curve.name]))


def read_public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    content = _read(path)
    if b"PRIVATE KEY-----" in content:
        raise ConfigError(
            f"{path} holds a private key; give its public half (openssl pkey -in KEY -pubout), and keep the private "
            "one where bundles are signed"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no public key in PEM format, which begins with BEGIN PUBLIC KEY") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} holds a key of another kind; bundles are signed with elliptic-curve keys: {_MAKE}")
    return _public(path, key)


def read_public_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """Read several public keys with :func:`read_public_key`."""
    return tuple(read_public_key(path) for path in paths)


def read_signing_key(path: Path, passphrase_file: Path | None = None) -> SigningKey:
    """Read a private key, and decrypt it in memory.

    Args:
        path: PEM file.
        passphrase_file: its first line is the passphrase of an encrypted key; None takes the environment variable
            ``MONAI_FEDLORA_SIGN_PASSPHRASE`` if it is set.

    Raises:
        ConfigError: a file cannot be read, holds something else, or the passphrase is missing or wrong.
    """
    content = _read(path)
    secret = _passphrase(passphrase_file)
    warnings = [_readable_by_others(part) for part in (path, passphrase_file) if part]
    try:
        key = load_pem_private_key(content, secret)
    except TypeError as error:
        if secret is None:
            raise ConfigError(
                f"{path} is encrypted; give the file with its passphrase with --sign-passphrase-file, or set "
                f"{SIGN_PASSPHRASE}"
            ) from error
        raise ConfigError(f"{path} is not encrypted, and a passphrase was given; is it the right key?") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if secret is not None and b"ENCRYPTED" in content:
            raise ConfigError(f"{path} cannot be decrypted; the passphrase is probably another key's") from error
        raise ConfigError(f"{path} holds no private key in PEM format; {_MAKE}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} holds a key of another kind; bundles are signed with elliptic-curve keys: {_MAKE}")
    return SigningKey(
        path=path,
        public=_public(path, key.public_key()),
        warnings=tuple(warning for warning in warnings if warning),
        _key=key,
    )


def _public(path: Path, key: ec.EllipticCurvePublicKey) -> PublicKey:
    if key.curve.name not in _HASHES:
        raise ConfigError(f"{path} holds a key on the curve {key.curve.name}; use P-256, P-384 or P-521: {_MAKE}")
    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(path=path, fingerprint=hashlib.sha256(text).hexdigest(), _key=key)


def _passphrase(path: Path | None) -> bytes | None:
    if path is None:
        text = os.environ.get(SIGN_PASSPHRASE)
        return None if text is None else text.encode()
    secret = _read(path).partition(b"\n")[0].rstrip(b"\r")
    if not secret:
        raise ConfigError(f"{path} holds no passphrase in its first line")
    return secret


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise ConfigError(f"{path} has more than {_LARGEST:,} bytes; it is no key file")
    return content


def _readable_by_others(path: Path) -> str | None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return f"{path} can be read or written by others (mode {mode:04o}); chmod 600 keeps it to yourself"
    return None
