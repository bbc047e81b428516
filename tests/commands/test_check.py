"""The check command: what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_fedlora.cli import main
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.check.findings import RULES
from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.exporting.keys import read_signing_key
from monai_fedlora.exporting.signing import sign_bundle
from monai_fedlora.resources import bundle_path
from tests.exporting.signing import write_keys


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a shipped bundle."""
    return Path(shutil.copytree(bundle_path("cine_cmr_dual_lora_classification"), tmp_path / "B [1]"))


def test_a_bundle_that_passes_gives_zero_and_a_row_per_rule(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bundle)]) == 0
    printed = capsys.readouterr().out
    for rule, text in RULES.items():
        (line,) = [line for line in printed.splitlines() if text in line]
        assert rule in line and ("unsigned" if rule == "signature" else "passed") in line
    assert "training bundle" in printed and "the bundle passed" in printed and "digest" not in printed


def test_a_finding_gives_one_and_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "configs" / "evil.py").write_text("x = 1")
    assert main(["check", str(bundle)]) == 1
    printed = capsys.readouterr().out
    assert "configs/evil.py: is code; a bundle holds none" in printed
    assert "1 wrong" in printed and "did not pass; do not load it" in printed


def test_nothing_is_looked_at_behind_a_link(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "docs" / "link.md").symlink_to("/etc/hostname")
    assert main(["check", str(bundle)]) == 1
    assert capsys.readouterr().out.count("not looked at") == len(RULES) - 1


def test_json_is_one_document(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bundle), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["kind"], report["findings"]) == (True, "training", [])
    (bundle / "LICENSE").unlink()
    assert main(["check", str(bundle), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["file"] == "LICENSE"


def test_the_digest_is_printed_and_compared(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_checksums(bundle)
    assert main(["check", str(bundle), "--digest", digest]) == 0
    assert f"digest {digest}" in capsys.readouterr().out
    assert main(["check", str(bundle), "--digest", "0" * 64]) == 1
    assert "it is of another export" in capsys.readouterr().out


def test_a_signature_is_asked_for_and_said(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, others = write_keys(tmp_path), write_keys(tmp_path, "other")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    bundle = bundle.rename(tmp_path / metadata["name"])
    assert main(["check", str(bundle), "--verify", str(keys.public)]) == 1
    assert "is not signed: it has no model.sig" in capsys.readouterr().out
    sign_bundle(bundle, read_signing_key(keys.private))
    assert main(["check", str(bundle)]) == 0
    assert "signed, signature not verified: give --verify" in capsys.readouterr().out
    assert main(["check", str(bundle), "--verify", str(others.public), "--verify", str(keys.public)]) == 0
    fingerprint = read_signing_key(keys.private).public.fingerprint
    assert f"signed with the key {fingerprint}, which --verify names" in capsys.readouterr().out
    assert main(["check", str(bundle), "--verify", str(others.public), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["signature"], report["signer"], report["passed"]) == ("not verified", fingerprint, False)
    assert main(["check", str(bundle), "--verify", str(keys.private)]) == 2
    assert "holds a private key" in capsys.readouterr().err


def test_letters_that_steer_a_terminal_are_not_printed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "docs" / "\x1b[2Jx.md").write_text("x")
    assert main(["check", str(bundle)]) == 1
    assert "\x1b[2J" not in capsys.readouterr().out


def test_a_foreign_bundle_has_a_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zoo" / "configs").mkdir(parents=True)
    (tmp_path / "zoo" / "configs" / "metadata.json").write_text('{"version": "0.5.0"}')
    assert main(["check", str(tmp_path / "zoo")]) == 3
    printed = capsys.readouterr().out
    assert "not made by this toolkit: cannot be judged" in printed and "do not load it" not in printed
    assert main(["check", "--json", str(tmp_path / "zoo")]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "foreign"


def test_a_missing_bundle_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "B")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--run"]])
def test_the_model_runs_if_asked_for_and_else_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    asked: list[object] = []

    def check(*args: object, run: bool, **others: object) -> None:
        asked.append(run)
        raise ConfigError("seen")

    monkeypatch.setattr("monai_fedlora.exporting.check.checker.check_bundle", check)
    assert main(["check", str(tmp_path), *options]) == 2
    assert asked == [bool(options)]
