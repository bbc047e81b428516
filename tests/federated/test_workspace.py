"""A folder with results is not written over unasked, and with --overwrite nothing goes that no run wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_state import KeptAnswer, SiteState, SiteStore
from monai_fedlora.federated.workspace import SERVER_RUN, make_room
from monai_fedlora.files import read_json, write_json
from tests.helpers import make_plan

PLAN = make_plan()
FOREIGN = ("notes.txt", "private/notes.txt", "private/trial/north/notes.txt", "data/north/datalist.json")


def a_run(folder: Path, plan: Plan = PLAN, *, status: str | None = "finished", stored: bool = True) -> None:
    """What a run leaves in a workspace."""
    folder.mkdir(parents=True, exist_ok=True)
    if status:
        write_json(folder / "results.json", {"plan": plan.to_json(), "status": status})
    if not stored:
        return
    for name in ("shared.safetensors", "best_shared.safetensors"):
        (folder / name).write_bytes(b"tensors")
    for site in plan.sites:
        store = SiteStore(root=folder / "private", plan=plan, site=site)
        answer = KeptAnswer(sent="", after=None, tensors={}, report={})
        store.save(SiteState(round=0, epoch=1, private={"a": torch.zeros(1)}, optimiser={}), answer)
        store.save_final(shared={}, private={}, record={})
    (folder / "private" / "errors.log").write_text("old")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"status": "incomplete", "stored": False},
        {"status": "running"},
        {"status": None},
        {"plan": make_plan(experiment="other")},
    ],
    ids=["finished", "incomplete", "interrupted", "without a record", "of another experiment"],
)
@pytest.mark.parametrize("plan", [PLAN, make_plan(method="fedit", experiment="next")], ids=["same", "other"])
def test_a_folder_with_results_is_refused_and_untouched(tmp_path: Path, run: dict[str, Any], plan: Plan) -> None:
    a_run(tmp_path, **run)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"--overwrite.*--resume"):
        make_room(tmp_path, plan)
    assert files(tmp_path) == before


def test_what_is_left_of_a_run_that_came_to_nothing_is_in_nobodys_way(tmp_path: Path) -> None:
    a_run(tmp_path, status="running", stored=False)
    make_room(tmp_path, PLAN)
    assert files(tmp_path) == set()
    make_room(tmp_path, PLAN)


@pytest.mark.parametrize("old", [PLAN, make_plan(experiment="other", start_round=2)], ids=["same", "other"])
def test_overwriting_removes_what_the_run_wrote_and_nothing_else(tmp_path: Path, old: Plan) -> None:
    a_run(tmp_path, old)
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    make_room(tmp_path, PLAN, overwrite=True)
    assert files(tmp_path) == set(FOREIGN)


def test_a_run_that_goes_on_sets_the_earlier_results_aside(tmp_path: Path) -> None:
    a_run(tmp_path, status="running")
    private = {name for name in files(tmp_path) if name.startswith("private")}
    later = dataclasses.replace(PLAN, start_round=1)
    make_room(tmp_path, later)
    aside = {f"before-round-1/{name}" for name in ("results.json", "shared.safetensors", "best_shared.safetensors")}
    assert files(tmp_path) == private | aside
    (tmp_path / "results.json").write_text("{}")
    make_room(tmp_path, later)
    assert (tmp_path / "before-round-1.2" / "results.json").read_text() == "{}"
    assert read_json(tmp_path / "before-round-1" / "results.json")["status"] == "running"


def test_going_on_with_another_experiment_is_no_going_on(tmp_path: Path) -> None:
    a_run(tmp_path)
    with pytest.raises(ConfigError, match="--overwrite"):
        make_room(tmp_path, make_plan(experiment="other", start_round=1))


def test_private_parts_that_were_brought_here_are_gone_on_with(tmp_path: Path) -> None:
    a_run(tmp_path, status=None)
    (tmp_path / "shared.safetensors").unlink()
    (tmp_path / "best_shared.safetensors").unlink()
    before = files(tmp_path)
    make_room(tmp_path, dataclasses.replace(PLAN, start_round=1))
    assert files(tmp_path) == before


def test_what_a_killed_simulation_left_in_nvflares_workspace_counts(tmp_path: Path) -> None:
    a_run(tmp_path / SERVER_RUN, status="running")
    with pytest.raises(ConfigError, match="--overwrite"):
        make_room(tmp_path, PLAN)
    assert (tmp_path / "shared.safetensors").read_bytes() == b"tensors"
