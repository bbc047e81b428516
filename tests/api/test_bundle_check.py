"""A check from Python says what the command prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import monai_fedlora as fl
from monai_fedlora.resources import bundle_path

NAME = "cine_cmr_dual_lora_classification"


def test_a_bundle_with_code_does_not_pass(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundle_path(NAME), tmp_path / NAME))
    (bundle / "configs" / "ev\x1bil.py").write_text("x = 1")
    found = fl.check(bundle)
    assert not found.passed and found.verdict == "refused"
    assert found.problems[0].startswith("configs/ev?il.py: ")
    assert found.notes[-1] == "the bundle did not pass; do not load it"
    results = {row[0]: row[2] for row in found.table().rows}
    assert results["container"] == "1 wrong" and results["files"] == "not looked at"
