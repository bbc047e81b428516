"""The job folders of the repository are what the command writes, one for every method."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.cli import main
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods import method_names

JOBS = Path(__file__).resolve().parents[2] / "nvflare_jobs"
RECIPES = {
    line.split()[0]: line.split()[1:]
    for line in (JOBS / "recipes.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_folder_has_a_recipe_and_every_recipe_a_folder() -> None:
    assert {path.name for path in JOBS.iterdir() if path.is_dir() and path.name[0] not in "._"} == set(RECIPES)


def test_every_method_has_a_job() -> None:
    assert {Plan.load(JOBS / name / "app" / "config" / "plan.json").method for name in RECIPES} == set(method_names())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_its_folder(name: str, tmp_path: Path) -> None:
    assert main(["job", name, "--output", str(tmp_path / name), *RECIPES[name]]) == 0
    assert files_of(tmp_path / name) == files_of(JOBS / name)
