"""A recipe of NVFlare exports and runs the job folder as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvflare.recipe import PocEnv, SimEnv
from nvflare.recipe.spec import Recipe

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.initial import build_manifest
from monai_fedlora.federated.job_recipe import JobRecipe
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.files import read_json
from tests.federated.conftest import SITES, Prepared, written_job


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plans_recipe_exports_the_folder_that_the_command_writes(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan()
    write_job(plan, build_manifest(plan), tmp_path / "trial")
    recipe = JobRecipe.of_plan(plan)
    assert isinstance(recipe, Recipe)
    recipe.export(str(tmp_path / "exported"), env=SimEnv(num_clients=2))
    assert files_of(tmp_path / "exported" / "trial") == files_of(tmp_path / "trial")
    with pytest.raises(ConfigError, match="exists"):
        recipe.export(str(tmp_path / "exported"))


def test_a_folders_recipe_exports_it_to_the_byte(prepared: Prepared, tmp_path: Path) -> None:
    job = written_job(prepared.plan(), tmp_path)
    recipe = JobRecipe.of_folder(job)
    recipe.export(str(tmp_path / "exported"))
    assert files_of(tmp_path / "exported" / recipe.name) == files_of(job)


def test_what_poc_submits_is_the_same_folder(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = {}

    def submit(self: PocEnv, job: object) -> str:
        job.export_job(str(tmp_path / "submitted"))  # type: ignore[attr-defined]  # as NVFlare's session does
        submitted.update(files_of(tmp_path / "submitted" / "trial"))
        return "an id"

    monkeypatch.setattr(PocEnv, "deploy", submit)
    job = written_job(prepared.plan(), tmp_path)
    run = JobRecipe.of_folder(job).execute(PocEnv(clients=list(SITES[:2])))
    assert run is not None and run.get_job_id() == "an id"
    assert submitted == files_of(job)


@pytest.mark.parametrize("env", [{"num_clients": 3}, {"clients": ["north", "south"]}])
def test_an_environment_of_other_sites_is_refused(prepared: Prepared, env: dict) -> None:
    with pytest.raises(ConfigError, match="site-1, site-2"):
        JobRecipe.of_plan(prepared.plan()).execute(SimEnv(**env))


def test_nothing_can_be_added_that_would_be_left_out_in_silence(prepared: Prepared) -> None:
    recipe = JobRecipe.of_plan(prepared.plan())
    with pytest.raises(ConfigError, match="as it was written"):
        JobRecipe.of_plan(prepared.plan()).set_per_site_config({"site-1": {"a": 1}})
    with pytest.raises(ConfigError, match="as it was written"):
        recipe.add_client_output_filter(SharedOnly())
    with pytest.raises(ConfigError, match="as it was written"):
        recipe.execute(SimEnv(num_clients=2), client_exec_params={"a": 1})


def test_a_name_that_nvflare_does_not_take_is_refused(prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="-trial"):
        JobRecipe.of_plan(prepared.plan(experiment="-trial"))


@pytest.mark.slow
def test_it_runs_in_nvflares_simulator_and_leaves_a_run_to_read(prepared: Prepared, tmp_path: Path) -> None:
    places = {"data": str(prepared.data), "backbone": str(prepared.backbone)}
    recipe = JobRecipe.of_plan(prepared.plan(rounds=1), **places)
    run = recipe.execute(SimEnv(num_clients=2, workspace_root=str(tmp_path)))
    assert run is not None
    results = read_json(Path(str(run.get_result())) / "results.json")
    assert results["status"] == "finished"
    assert results["plan"] == recipe.plan.to_json()
    assert {path.name for path in (tmp_path / "trial" / "private").glob("trial*/*")} >= set(SITES[:2])
