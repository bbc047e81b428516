"""Sites that break the rules cost themselves their rounds, and nobody else anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import load_tensors, read_json, write_json
from tests.federated.conftest import SITES, Prepared, written_job
from tests.federated.custom import misbehaving as script


def name(value: Any) -> str:
    return getattr(value, "__name__", "")


pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    plan: Plan
    workspace: Path
    results: Mapping[str, Any]


@pytest.fixture(scope="module")
def run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One round per misdeed at site-2, whose own filters stand, and at site-3, which has removed them."""
    folder = tmp_path_factory.mktemp("misbehaviour")
    plan = prepared.plan(
        sites=SITES,
        rounds=len(script.SCRIPT),
        wire_dtype="float32",
        declared_cases=dict.fromkeys(SITES, script.CASES),
    )
    job = written_job(plan, folder, executor="misbehaving.ScriptedExecutor")
    shutil.copytree(job / "app", job / "attack")
    config = job / "attack" / "config" / "config_fed_client.json"
    write_json(config, {**read_json(config), "task_result_filters": [], "task_data_filters": []})
    meta = read_json(job / "meta.json")
    write_json(job / "meta.json", {**meta, "deploy_map": {"app": ["server", *SITES[:2]], "attack": [SITES[2]]}})
    return Run(plan, folder / "workspace", simulate(job, workspace=folder / "workspace", threads=3))


def reasons(results: Mapping[str, Any], deed: Callable[..., Any] | None) -> dict[str, str]:
    """What the results say about the round of a misdeed; None is the final evaluation."""
    number = script.SCRIPT.index(deed) if deed else len(script.SCRIPT) - 1
    return {entry["site"]: entry["reason"] for entry in results["refused"] if entry["round"] == number}


@pytest.mark.parametrize("deed, reason", script.BLOCKED_BY_FILTERS.items(), ids=name)
def test_what_a_sites_filter_blocks_the_servers_blocks_too_if_the_site_removes_its_own(
    run: Run, deed: Callable[..., Any], reason: str
) -> None:
    found = reasons(run.results, deed)
    assert found.keys() == {"site-2", "site-3"}
    assert found["site-2"] == "blocked by the site's own filter"
    assert re.match(f"blocked by the server's filter: .*{reason}", found["site-3"])


@pytest.mark.parametrize("deed, reason", script.REFUSED_BY_AGGREGATOR.items(), ids=name)
def test_what_looks_right_and_is_not_is_refused_by_the_aggregator(
    run: Run, deed: Callable[..., Any], reason: str
) -> None:
    found = reasons(run.results, deed)
    assert found.keys() == {"site-2", "site-3"}
    assert all(re.search(reason, text) for text in found.values())


@pytest.mark.parametrize("deed, reason", script.NEVER_READ.items(), ids=name)
def test_what_would_end_the_job_while_it_is_read_costs_the_site_that_round(
    run: Run, deed: Callable[..., Any], reason: str
) -> None:
    found = reasons(run.results, deed)
    assert found.keys() == {"site-2", "site-3"}
    assert found["site-2"] == "blocked by the site's own filter"
    assert found["site-3"].startswith(reason)


def test_a_code_that_would_end_the_job_costs_the_site_that_round(run: Run) -> None:
    found = reasons(run.results, script.ending_code)
    assert found.keys() == {"site-2", "site-3"}
    assert all("'UNSAFE_JOB'" in text for text in found.values())


def test_an_error_reply_is_noted(run: Run) -> None:
    found = reasons(run.results, script.failure)
    assert found.keys() == {"site-2", "site-3"}
    assert all("'EXECUTION_EXCEPTION'" in text for text in found.values())


def test_good_updates_of_the_same_sites_count_again(run: Run) -> None:
    assert reasons(run.results, script.message) == {}
    sites = run.results["rounds"][script.SCRIPT.index(script.message)]["sites"]
    assert {site for site in sites if "cases" in sites[site]} == set(SITES)


def test_an_update_in_anothers_name_counts_as_the_senders(run: Run) -> None:
    sites = run.results["rounds"][script.SCRIPT.index(script.in_anothers_name)]["sites"]
    assert {site for site in sites if "cases" in sites[site]} == set(SITES)


def test_the_honest_sites_updates_are_all_that_changed_the_tensors(run: Run) -> None:
    assert not any(entry["site"] == script.HONEST for entry in run.results["refused"])
    stored = load_tensors(run.workspace / "shared.safetensors")[0]
    for key, value in build_shared(run.plan)[1].items():
        np.testing.assert_allclose(stored[key].numpy(), value + len(script.SCRIPT) * script.STEP, atol=1e-6)


def test_text_instead_of_metrics_never_becomes_part_of_the_results(run: Run) -> None:
    assert set(run.results["final"]) == {script.HONEST}
    found = reasons(run.results, None)
    assert found["site-2"] == "blocked by the site's own filter"
    assert found["site-3"] == "blocked by the server's filter: undeclared report entry 'path'"
    for path in run.workspace.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):  # of the code that misbehaves
            assert b"patient007" not in path.read_bytes(), path
