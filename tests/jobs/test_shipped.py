"""The job folders of the repository are what the command writes, one for every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_fedlora.cli import main
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import read_json
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.prompts import bundle_prompts
from monai_fedlora.resources import bundle_path, bundle_setting
from tests.helpers import fast_in_part
from tests.methods.federation import NEED_TEXTS

JOBS = Path(__file__).resolve().parents[2] / "nvflare_jobs"
PHOTOGRAPHS = "image_2d_fedopal_classification"
TEXTS = "image_2d_pfedst_classification"


def read_recipes() -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Folders, with the method and the arguments that make them."""
    common: list[str] = []
    for line in (JOBS / "recipes.txt").read_text(encoding="utf-8").splitlines():
        name, *arguments = line.split()
        if name == "*":
            common = arguments
        elif name != "#":
            method, _, folder = name.partition("/")
            yield folder or name, (method, [*common, *arguments])


RECIPES = dict(read_recipes())


def plan_of(name: str) -> Plan:
    return Plan.load(JOBS / name / "app" / "config" / "plan.json")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_method_has_a_recipe_and_every_recipe_a_folder() -> None:
    assert sorted({method for method, _ in RECIPES.values()}) == method_names()
    assert {path.name for path in JOBS.iterdir() if path.is_dir() and path.name[0] not in "._"} == set(RECIPES)


@pytest.mark.parametrize("name", fast_in_part(RECIPES))
def test_a_recipe_makes_its_folder(name: str, tmp_path: Path) -> None:
    method, arguments = RECIPES[name]
    assert main(["job", method, "--output", str(tmp_path / name), *arguments]) == 0
    assert files_of(tmp_path / name) == files_of(JOBS / name)


def plans_of(bundle: str) -> dict[str, Plan]:
    return {name: plan for name in RECIPES if (plan := plan_of(name)).bundle == bundle}


def test_all_other_jobs_are_of_hearts() -> None:
    hearts = RECIPES.keys() - plans_of(PHOTOGRAPHS).keys() - plans_of(TEXTS).keys()
    assert {name: plan_of(name).task for name in hearts} == {
        "dual_lora": "classification",
        "dual_lora_segmentation": "segmentation",
    }


def test_photographs_are_the_same_task_for_all_methods() -> None:
    rivals = plans_of(PHOTOGRAPHS)
    own = ("experiment", "method", "method_args", "sites")
    common = {**dataclasses.asdict(rivals["fedopal"]), **dict.fromkeys(own)}
    rate = common["training"].pop("learning_rate")
    for name, plan in rivals.items():
        settings = {**dataclasses.asdict(plan), **dict.fromkeys(own)}
        is_full = settings["training"].pop("learning_rate") != rate
        assert (settings, is_full) == (common, name in ("fedavg", "fedbn"))
        assert (plan.experiment, plan.method) == (name, name)
        assert plan.sites == (("pooled",) if name == "centralised" else rivals["fedopal"].sites)


def test_what_compares_with_texts_does_so_at_the_same_clinics_with_the_bundles_prompts() -> None:
    """Zero-shot is the same in every round, so that one is enough; the probe has a head in place of the texts."""
    rivals, clinics = plans_of(TEXTS), plan_of("fedopal").sites
    assert set(rivals) == {"pfedst", "linear_probe", *NEED_TEXTS}
    own = ("experiment", "method", "prompts", "rounds", "local_epochs")
    common = {**dataclasses.asdict(rivals["pfedst"]), **dict.fromkeys(own)}
    for name, plan in rivals.items():
        assert {**dataclasses.asdict(plan), **dict.fromkeys(own)} == common
        assert (plan.experiment, plan.method, plan.sites) == (name, name, clinics)
        assert plan.prompts == (None if name == "linear_probe" else bundle_prompts(TEXTS))
        assert (plan.rounds, plan.local_epochs) == ((1, 1) if name == "clip_zero_shot" else (3, 4))


@pytest.mark.parametrize("name", RECIPES)
def test_a_job_trains_the_method_as_its_bundle_does(name: str) -> None:
    plan = plan_of(name)
    assert plan.classes == tuple(bundle_setting(plan.bundle, "inference", "classes"))
    assert plan.size == bundle_setting(plan.bundle, "train", "size")
    method, _ = RECIPES[name]
    override = bundle_path(plan.bundle) / "configs" / "methods" / f"{method}.json"
    args = read_json(override)["method_args"] if override.is_file() else {}
    assert plan.build_method() == get_method(method, args)
