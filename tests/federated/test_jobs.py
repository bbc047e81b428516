"""A written job is what NVFlare's own parsers take, with every task gated at both ends."""

from __future__ import annotations

import json
import shutil
import stat
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FilterKey, FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.task_utils import apply_filters
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.config_service import ConfigService
from nvflare.private.fed.client.client_json_config import ClientJsonConfigurator
from nvflare.private.fed.server.server_json_config import ServerJsonConfigurator
from nvflare.private.privacy_manager import Scope
from nvflare.tool.job.job_cli import prepare_job_config

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import bell, executor, filters, final_round, rounds_controller, server, wake_up
from monai_fedlora.federated.flare_context import READY_TASK, TRAIN_TASK, weights_message
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.scope import Manifest
from tests.helpers import make_manifest, make_payload, make_plan

TASKS = ("train", "validate", "ready")
SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "nvflare_jobs").glob("*/meta.json"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_job(make_plan(start_round=3), make_manifest(), tmp_path / "jobs" / "mine")
    return tmp_path / "jobs" / "mine"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the folder -----------------------------------------------------------------------------------------


def test_a_job_has_these_files_and_no_code(job: Path) -> None:
    assert set(files_of(job)) == {
        "meta.json",
        "app/config/config_fed_server.json",
        "app/config/config_fed_client.json",
        "app/config/plan.json",
        "app/config/manifest.json",
        "app/config/report_form.json",
        "app/custom/README.md",
    }
    assert [path.name for path in job.parent.iterdir()] == ["mine"]
    assert stat.S_IMODE(job.stat().st_mode) == 0o700


def test_plan_and_manifest_come_back(job: Path) -> None:
    assert Plan.load(job / "app/config/plan.json") == make_plan(start_round=3)
    assert Manifest.load(job / "app/config/manifest.json") == make_manifest()


def test_the_job_goes_to_the_server_and_every_site(job: Path) -> None:
    meta = json.loads((job / "meta.json").read_text())
    assert meta["deploy_map"] == {"app": ["server", "north", "south"]}
    assert meta["min_clients"] == 2


def test_without_a_custom_folder_sites_decide_by_their_allow_list(tmp_path: Path) -> None:
    write_job(make_plan(), make_manifest(), tmp_path / "job", custom_folder=False)
    assert not (tmp_path / "job" / "app" / "custom").exists()


def test_a_starting_point_travels_with_the_job(tmp_path: Path) -> None:
    (tmp_path / "start").write_bytes(b"tensors")
    write_job(make_plan(), make_manifest(), tmp_path / "job", initial=tmp_path / "start")
    assert (tmp_path / "job/app/config/initial_shared.safetensors").read_bytes() == b"tensors"


@pytest.mark.parametrize("kind", ["file", "empty folder", "job"])
def test_an_existing_output_is_refused_and_untouched(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "job"
    if kind == "file":
        output.write_text("mine")
    elif kind == "empty folder":
        output.mkdir()
    else:
        write_job(make_plan(), make_manifest(), output)
    before = files_of(tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        write_job(make_plan(rounds=9), make_manifest(), output)
    assert files_of(tmp_path) == before


def test_a_job_that_cannot_be_completed_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        write_job(make_plan(), make_manifest(), tmp_path / "job", initial=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["written", "shipped"])
def test_what_nvflare_submits_is_the_job(job: Path, tmp_path: Path, kind: str) -> None:
    for number, source in enumerate(SHIPPED if kind == "shipped" else [job]):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(source, copy)
        prepare_job_config(Namespace(job_folder=str(source)), ["app"], str(copy))
        for name in ("meta.json", "app/config/config_fed_server.json", "app/config/config_fed_client.json"):
            assert json.loads((copy / name).read_text()) == json.loads((source / name).read_text()), source.name


def test_the_same_plan_makes_the_same_job(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_job(make_plan(), make_manifest(), tmp_path / name)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


# ---- the configurations ---------------------------------------------------------------------------------


def config_of(job: Path, end: str) -> dict[str, Any]:
    return json.loads((job / f"app/config/config_fed_{end}.json").read_text())


@pytest.mark.parametrize("end", ["server", "client"])
@pytest.mark.parametrize("chain", ["task_data_filters", "task_result_filters"])
def test_every_task_is_named_in_every_gate(job: Path, end: str, chain: str) -> None:
    (gate,) = config_of(job, end)[chain]
    assert sorted(gate["tasks"]) == sorted(TASKS)
    assert [item["path"] for item in gate["filters"]] == ["monai_fedlora.federated.filters.SharedOnly"]


def test_no_task_runs_that_is_not_gated(job: Path) -> None:
    """NVFlare's wildcard does not cover named tasks, so the names have to agree everywhere."""
    text = json.dumps([config_of(job, end) for end in ("server", "client")])
    assert '"*"' not in text
    workflows = config_of(job, "server")["workflows"]
    used = {w["args"].get("task_name", TRAIN_TASK) for w in workflows} | {READY_TASK}
    (route,) = config_of(job, "client")["executors"]
    assert used == set(route["tasks"]) == set(TASKS)


@pytest.fixture
def app(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Workspace, Path, Namespace]]:
    """An NVFlare workspace, and what its processes know about the run; its global settings are put back."""
    for name, value in vars(ConfigService).items():
        if name.startswith("_") and isinstance(value, (dict, list, type(None))) and not name.startswith("__"):
            monkeypatch.setattr(ConfigService, name, value.copy() if value is not None else None)
    root = tmp_path / "workspace"
    (root / "startup").mkdir(parents=True)
    (root / "local").mkdir()
    arguments = Namespace(
        job_id="job",
        workspace=str(root),
        client_name="north",
        sp_scheme="grpc",
        sp_target="localhost:8002",
        parent_url=None,
    )
    yield Workspace(str(root), site_name="north"), job / "app", arguments


def test_nvflare_builds_every_component_of_the_server(app: tuple[Workspace, Path, Namespace]) -> None:
    workspace, folder, arguments = app
    configurator = ServerJsonConfigurator(
        workspace_obj=workspace,
        config_file_name=str(folder / "config" / "config_fed_server.json"),
        args=arguments,
        app_root=str(folder),
        kv_list=None,
    )
    configurator.configure()
    runner = configurator.runner_config
    assert isinstance(runner.components["record"], server.FlareRecord)
    assert isinstance(runner.components["persistor"], server.SharedPersistor)
    assert isinstance(runner.components["aggregator"], server.SharedAggregator)
    assert isinstance(runner.components["final_evaluation"], server.FinalEvaluation)
    assert isinstance(runner.components["wake_up"], wake_up.WakeUpSender)
    assert [workflow.id for workflow in runner.workflows] == ["rounds", "final"]
    assert isinstance(runner.workflows[1].controller, final_round.FinalRound)
    assert runner.task_request_interval == 0.1
    rounds = runner.workflows[0].controller
    assert isinstance(rounds, rounds_controller.Rounds)
    assert set(runner.task_data_filters) == {f"{task}/out" for task in TASKS}
    assert set(runner.task_result_filters) == {f"{task}/in" for task in TASKS}


def test_a_job_that_names_the_components_of_earlier_versions_still_runs(app: tuple[Workspace, Path, Namespace]) -> None:
    path = app[1] / "config" / "config_fed_client.json"
    written = path.read_text()
    path.write_text(written.replace("wake_up.WakeUpListener", "bell.BellListener").replace('"wake_up"', '"bell"'))
    assert isinstance(client_runner(app).components["bell"], wake_up.WakeUpListener)
    assert bell.TaskBell is wake_up.WakeUpSender


def client_runner(app: tuple[Workspace, Path, Namespace]) -> Any:
    workspace, folder, arguments = app
    configurator = ClientJsonConfigurator(
        workspace_obj=workspace,
        config_file_name=str(folder / "config" / "config_fed_client.json"),
        args=arguments,
        app_root=str(folder),
        kv_list=None,
    )
    configurator.configure()
    return configurator.runner_config


def test_nvflare_builds_every_component_of_a_site(app: tuple[Workspace, Path, Namespace]) -> None:
    runner = client_runner(app)
    for task in TASKS:
        assert isinstance(runner.task_router.route(task), executor.SiteExecutor)
    assert isinstance(runner.components["wake_up"], wake_up.WakeUpListener)
    assert set(runner.task_data_filters) == {f"{task}/in" for task in TASKS}
    assert set(runner.task_result_filters) == {f"{task}/out" for task in TASKS}
    for table in (runner.task_data_filters, runner.task_result_filters):
        assert all(type(gate) is filters.SharedOnly for chain in table.values() for gate in chain)


@pytest.mark.parametrize("task", TASKS)
def test_a_private_tensor_does_not_get_through_a_sites_chain(app: tuple[Workspace, Path, Namespace], task: str) -> None:
    """The chain as NVFlare assembles and runs it, from the written files."""
    runner, context = client_runner(app), FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(app[1]), private=True, sticky=False)

    def send(message: Any) -> Any:
        name = Scope.TASK_RESULT_FILTERS_NAME
        return apply_filters(name, message, context, runner.task_result_filters, task, FilterKey.OUT)

    payload = make_payload(make_manifest())
    message = weights_message(payload, {"round": 3, "cases": 5})
    assert send(message) is message
    with pytest.raises(ContentBlockedException, match="private"):
        send(weights_message({**payload, "q.lora_A.private.weight": np.zeros(3, np.float32)}))
    message.set_header("note", "patient007")
    with pytest.raises(ContentBlockedException, match="'note'"):
        send(message)


# ---- the shipped jobs -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_job_is_what_its_plan_makes(shipped: Path, tmp_path: Path) -> None:
    plan = Plan.load(shipped / "app" / "config" / "plan.json")
    network = build_network(
        size=plan.size,
        out_chans=plan.outputs,
        masks=plan.task_of.gives_masks,
        backbone=UNTRAINED,
        method=plan.method,
        method_args=plan.method_args,
    )
    custom = (shipped / "app" / "custom").exists()
    write_job(plan, plan.scope(network).manifest, tmp_path / shipped.name, custom_folder=custom)
    assert files_of(shipped) == files_of(tmp_path / shipped.name)
