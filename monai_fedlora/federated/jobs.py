"""NVFlare job folders: two configurations, the plan and the manifest, made from one template."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.job_files import FORM_NAME, INITIAL_NAME, MANIFEST_NAME, PLAN_NAME
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_rule import check_rule
from monai_fedlora.files import make_folder, write_bytes, write_json, write_text
from monai_fedlora.scope import Manifest

_COMPONENTS = "monai_fedlora.federated"
_TASKS = ["train", "validate", "ready"]
_CUSTOM_NOTE = """\
This folder is empty of code on purpose. NVFlare only builds classes from outside its own list when a job has
such a folder. The classes come from the monai-fedlora package that every end has installed. A site that prefers
its allow-list can use a job without this folder: monai-fedlora job --allow-listed.
"""


def write_job(
    plan: Plan,
    manifest: Manifest,
    output: Path,
    *,
    initial: Path | None = None,
    custom_folder: bool = True,
    without: Collection[str] = (),
    follower: str | None = None,
) -> None:
    """Write a job folder that the simulator, POC mode and a provisioned federation take unchanged.

    Args:
        plan: the experiment; its sites become the job's clients.
        manifest: what may travel, see :func:`monai_fedlora.federated.initial.build_shared`.
        output: folder to create; it must not exist.
        initial: stored shared tensors to start from.
        custom_folder: add the (empty) ``custom`` folder that lets NVFlare load this package's classes; without
            it each site has to put ``monai_fedlora.federated.`` on its class allow-list.
        without: sites of the plan that the job is not sent to.
        follower: SHA-256 of the key of who may follow the run from outside, see
            :class:`monai_fedlora.federated.followed.Followed`; None for nobody.

    Raises:
        ConfigError: ``output`` exists, or no site is left.
    """
    if output.exists():
        raise ConfigError(f"{output} exists; choose another folder or remove it")
    clients = [site for site in plan.sites if site not in without]
    if not clients:
        raise ConfigError(f"no site is left: the job is sent to none of {', '.join(plan.sites)}")
    plan.participation.check(clients)
    check_rule(plan.build_method(), sites=len(clients), participation=plan.participation, top_k=plan.top_k)
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        job = Path(scratch) / output.name
        config = job / "app" / "config"
        _write_ordered(job / "meta.json", _meta(plan, clients))
        _write_ordered(config / "config_fed_server.json", _server(plan, follower))
        _write_ordered(config / "config_fed_client.json", _client())
        write_json(config / PLAN_NAME, plan.to_json())
        write_json(config / MANIFEST_NAME, manifest.to_json())
        write_json(config / FORM_NAME, plan.form.to_json())
        if custom_folder:
            write_text(job / "app" / "custom" / "README.md", _CUSTOM_NOTE)
        if initial is not None:
            write_bytes(config / INITIAL_NAME, initial.read_bytes())
        job.rename(output)


def _write_ordered(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with its entries in the given order.

    ``nvflare job submit`` (2.9) writes these files again, and of a file whose first entry is not a plain value it
    keeps that entry alone.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def _meta(plan: Plan, clients: Sequence[str]) -> dict[str, Any]:
    return {
        "name": plan.experiment,
        "resource_spec": {},
        "min_clients": plan.participation.begins_with(clients),
        **({"mandatory_clients": list(required)} if (required := plan.participation.required_sites) else {}),
        "deploy_map": {"app": ["server", *clients]},
    }


def _component(name: str, path: str, **args: Any) -> dict[str, Any]:
    return {"id": name, "path": path, "args": args}


def _filters() -> dict[str, Any]:
    gate = [{"tasks": _TASKS, "filters": [{"path": f"{_COMPONENTS}.filters.SharedOnly", "args": {}}]}]
    return {"task_data_filters": gate, "task_result_filters": gate}


def _server(plan: Plan, follower: str | None) -> dict[str, Any]:
    rounds = _component("rounds", f"{_COMPONENTS}.rounds_controller.Rounds", asks_readiness=True)
    final = _component(
        "final",
        f"{_COMPONENTS}.final_round.FinalRound",
        processor="final_evaluation",
        task_name=_TASKS[1],
        wait_time_after_min_received=0,
        timeout=plan.participation.seconds(final=True),
    )
    return {
        "format_version": 2,
        "server": {"task_request_interval": 0.1},
        "workflows": [rounds, final],
        "components": [
            _component("record", f"{_COMPONENTS}.server.FlareRecord"),
            _component("persistor", f"{_COMPONENTS}.server.SharedPersistor"),
            _component("aggregator", f"{_COMPONENTS}.server.SharedAggregator"),
            _component("final_evaluation", f"{_COMPONENTS}.server.FinalEvaluation"),
            _component("wake_up", f"{_COMPONENTS}.wake_up.WakeUpSender"),
            *([_component("followed", f"{_COMPONENTS}.followed.Followed", key_sha256=follower)] if follower else []),
        ],
        **_filters(),
    }


def _client() -> dict[str, Any]:
    executor = {"path": f"{_COMPONENTS}.executor.SiteExecutor", "args": {}}
    return {
        "format_version": 2,
        "executors": [{"tasks": _TASKS, "executor": executor}],
        "components": [_component("wake_up", f"{_COMPONENTS}.wake_up.WakeUpListener")],
        **_filters(),
    }
