"""The page that says how a signing key is made gives keys that this version takes."""

from __future__ import annotations

import stat
from pathlib import Path

from monai_fedlora.exporting.keys import read_public_key, read_signing_key
from tests.docs.commands import shell_blocks
from tests.docs.test_guides import in_one_shell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def test_the_page_makes_a_key_that_signs_and_prints_its_fingerprint(tmp_path: Path) -> None:
    (block,) = [block for block in shell_blocks(PAGE) if "openssl" in block.code]
    status, outputs = in_one_shell([block], tmp_path)
    assert status == 0, outputs
    key = read_signing_key(tmp_path / "signing-2026.pem", tmp_path / "passphrase.txt")
    assert key.warnings == ()
    assert b"ENCRYPTED" in key.path.read_bytes()
    public = read_public_key(tmp_path / "signing-2026.pub.pem")
    assert public.verifies(key.sign(b"message"), b"message")
    assert outputs[block.line].split()[-2:] == [public.fingerprint, "-"]
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
