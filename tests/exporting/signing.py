"""Keys that a test makes and throws away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """PEM files of a key."""

    private: Path
    public: Path
    scalar: int


def write_keys(
    folder: Path, name: str = "key", *, curve: ec.EllipticCurve | None = None, passphrase: bytes | None = None
) -> KeyPair:
    """Make a key, on P-256 unless told otherwise."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pair = KeyPair(
        private=folder / f"{name}.pem",
        public=folder / f"{name}.pub.pem",
        scalar=key.private_numbers().private_value,
    )
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pair.private.chmod(0o600)
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair
