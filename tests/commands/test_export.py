"""The export command: what it prints, and its errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora import cli
from monai_fedlora.commands import export
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting import bundle_export, peft_folders
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.leakage_card import leakage_line
from tests.exporting.signing import write_keys

ATTACK = {
    "name": "loss",
    "target": "weights",
    "n_members": 32,
    "n_others": 20,
    "auc": 0.62,
    "interval_95": [0.45, 0.77],
}
METADATA = {
    "measured_leakage": {"measured": True, "attacks": [ATTACK]},
    "out_of_distribution": {"available": False, "reason": "the site has 19 patients, fewer than 20"},
    "eval_metrics": {
        "test": {
            "personal": {
                "n": 12,
                "confusion_matrix": [[5, 1], [2, 4]],
                "auroc": {"value": 0.8, "interval_95": [0.5, 0.95]},
                "mcc": {"value": None, "interval_95": None},
            },
            "shared": {"n": 12, "auroc": {"value": 0.7, "interval_95": [0.4, 0.9]}},
        }
    },
}


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export.add_parser(parser.add_subparsers())
    return parser.parse_args(["export", *words])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Record what would be exported, and write one file."""
    made: list[tuple[str, dict[str, Any]]] = []

    def record(name: str) -> Any:
        def write(**options: Any) -> Exported:
            made.append((name, options))
            options["output"].mkdir()
            (options["output"] / "file [1]").write_bytes(b"12345")
            return Exported(folder=options["output"], metadata=METADATA, usage="run [this] STUDIES", digest="a1b2" * 16)

        return write

    monkeypatch.setattr(bundle_export, "export_bundle", record("bundle"))
    monkeypatch.setattr(peft_folders, "export_peft", record("peft"))
    return made


def test_summary_has_files_metrics_and_command(
    calls: list[tuple[str, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "B"
    assert export.run(parse("--run", "W", "--site", "site-1", "--output", str(output))) == 0
    options = {"backbone": None, "program": True, "onnx": False, "packed": False, "statistics": True, "public": None}
    options["key"] = None
    assert callable(calls[0][1].pop("on_public"))
    assert calls == [("bundle", {"run": Path("W"), "site": "site-1", "output": output, **options})]
    printed = capsys.readouterr().out
    for text in (
        str(output),
        "file [1]",
        "5 bytes",
        "12 cases",
        "loss on the weights tells members from others with an AUC of 0.62 (0.45 to 0.77",
        "0.800 (0.500 to 0.950)",
        "0.700",
        "it does not tell unusual images: the site has 19 patients, fewer than 20",
        "run [this] STUDIES",
        "a1b2" * 16,
    ):
        assert text in printed
    assert "personal model" in printed and "shared model" in printed
    assert "not for clinical use" in printed


def test_format_and_backbone_are_passed_on(calls: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    words = ["--run", "W", "--site", "shared", "--output", str(tmp_path / "B"), "--backbone", "F", "--format", "peft"]
    export.run(parse(*words))
    assert calls[0][0] == "peft"
    assert calls[0][1]["backbone"] == "F"


def test_files_of_a_bundle_are_chosen(calls: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    words = ["--run", "W", "--site", "a", "--output", str(tmp_path / "B"), "--zip", "--onnx", "--no-pt2"]
    words += ["--no-statistics"]
    export.run(parse(*words))
    chosen = {"program": False, "onnx": True, "packed": True, "statistics": False, "public": None}
    assert {key: calls[0][1][key] for key in chosen} == chosen


def test_public_data_are_passed_on_where_they_are_used(calls: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    words = ["--run", "W", "--public-data", "P", "--output"]
    without = ["--no-statistics"]
    for unused in (["--site", "shared", *without], ["--site", "a", *without], ["--site", "shared", "--format", "peft"]):
        with pytest.raises(ConfigError, match="--public-data"):
            export.run(parse(*words, str(tmp_path / "B"), *unused))
    assert calls == []
    for site in ("a", "shared"):
        export.run(parse(*words, str(tmp_path / site), "--site", site))
        assert calls.pop()[1]["public"] == Path("P")


def test_a_key_is_read_before_anything_is_exported(
    calls: list[tuple[str, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = write_keys(tmp_path, passphrase=b"secret")
    words = ["--run", "W", "--site", "a", "--output", str(tmp_path / "B"), "--sign", str(keys.private)]
    with pytest.raises(ConfigError, match="is encrypted"):
        export.run(parse(*words))
    assert calls == []
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o644)
    assert export.run(parse(*words, "--sign-passphrase-file", str(tmp_path / "passphrase"))) == 0
    assert calls[0][1]["key"].path == keys.private
    said = capsys.readouterr()
    assert "it is signed" in said.out
    assert "warning: " in said.err and "passphrase can be read or written by others" in said.err
    assert "key.pem" not in said.err
    with pytest.raises(ConfigError, match="give the key with --sign"):
        export.run(parse(*words[:-2], "--sign-passphrase-file", str(tmp_path / "passphrase")))


def test_no_option_takes_a_passphrase() -> None:
    parser = argparse.ArgumentParser()
    options = export.add_parser(parser.add_subparsers())._option_string_actions
    assert [name for name in options if "pass" in name] == ["--sign-passphrase-file"]


@pytest.mark.parametrize("option", ["--zip", "--onnx", "--no-pt2", "--no-statistics", "--sign=K"])
def test_peft_folders_have_no_such_files(tmp_path: Path, option: str) -> None:
    words = ["--run", "W", "--site", "a", "--output", str(tmp_path / "B"), "--format", "peft", option]
    with pytest.raises(ConfigError, match="are of bundles"):
        export.run(parse(*words))


def test_missing_metrics_are_said(
    calls: list[tuple[str, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METADATA["eval_metrics"], "test", {})
    export.run(parse("--run", "W", "--site", "shared", "--output", str(tmp_path / "B")))
    assert "no test metrics" in capsys.readouterr().out


def test_a_leakage_that_was_not_measured_is_said() -> None:
    assert leakage_line({"measured": False, "reason": "nothing was kept"}).endswith("nothing was kept")


def test_command_line_reaches_the_export(calls: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    assert cli.main(["export", "--run", "W", "--site", "site-1", "--output", str(tmp_path / "B")]) == 0
    assert calls[0][1]["run"] == Path("W")


def test_missing_run_is_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not exist"):
        export.run(parse("--run", str(tmp_path / "W"), "--site", "site-1", "--output", str(tmp_path / "B")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["--run", "--site", "--output"])
def test_run_site_and_output_are_required(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"--run": "W", "--site": "site-1", "--output": "B"}
    del words[missing]
    with pytest.raises(SystemExit):
        parse(*(word for pair in words.items() for word in pair))
    assert missing in capsys.readouterr().err
