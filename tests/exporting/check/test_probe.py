"""Running a model with limits: an honest one runs, and one that takes too much is stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.check.probe import run_problem
from tests.exporting.check.hostile import code

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning:torch")


@pytest.mark.slow
def test_an_honest_model_runs(image_exported: Exported) -> None:
    assert check_bundle(image_exported.folder, run=True).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "seconds", "message"),
    [
        ("while bool(torch.gt(torch.sum(image), -1.)):\n      image = torch.cos(image)", 8, "within 8 seconds"),
        ("image = torch.add(image, torch.sum(torch.ones([100000, 100000])))", 100, "does not run"),
    ],
)
def test_a_model_that_takes_too_much_is_stopped(
    image_exported: Exported, tmp_path: Path, line: str, seconds: float, message: str
) -> None:
    bundle = Path(shutil.copytree(image_exported.folder, tmp_path / "skin"))
    code(line)(bundle)
    assert message in (run_problem(bundle, seconds=seconds) or "")
