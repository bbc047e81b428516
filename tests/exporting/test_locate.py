"""Finding a run's files from whatever folder the user gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fedlora.errors import ExportError, WeightsError
from monai_fedlora.exporting.locate import find_personal, find_shared
from monai_fedlora.federated.site_state import EARLIER
from monai_fedlora.files import load_tensors, save_tensors

from .finished_runs import Run


@pytest.mark.parametrize("levels", range(5))
def test_personal_model_is_found_from_every_level(run: Run, levels: int) -> None:
    place = run.personal()
    for _ in range(levels):
        place = place.parent
    assert find_personal(place, "site-1") == run.personal()


def test_plain_simulator_workspace(run: Run, tmp_path: Path) -> None:
    workspace = tmp_path / "plain"
    for site in run.plan.sites:
        target = workspace / site / "private" / "hearts" / site
        shutil.copytree(run.personal(site).parent, target)
    job = workspace / "server" / "simulate_job"
    job.mkdir(parents=True)
    shutil.copy(run.workspace / "shared.safetensors", job)
    assert find_personal(workspace, "clinic-b") == (
        workspace / "clinic-b" / "private" / "hearts" / "clinic-b" / "final.safetensors"
    )
    assert find_shared(workspace) == job / "shared.safetensors"


def test_other_site_is_named(run: Run) -> None:
    with pytest.raises(ExportError, match=r"holds the model of clinic-b, clinic-c, site-1, none of site-9"):
        find_personal(run.workspace, "site-9")
    with pytest.raises(ExportError, match=r"holds the model of clinic-b, none of site-1"):
        find_personal(run.personal("clinic-b"), "site-1")


@pytest.mark.slow
def test_two_experiments_are_listed(run: Run, make_run: Callable[..., Run]) -> None:
    make_run(experiment="lungs")
    with pytest.raises(ExportError, match=r"2 different models of site-1") as error:
        find_personal(run.workspace, "site-1")
    assert "hearts/site-1/final.safetensors" in str(error.value)
    assert "lungs/site-1/final.safetensors" in str(error.value)


def test_what_an_experiment_had_left_before_it_began_anew_is_found_only_if_asked_for(run: Run) -> None:
    earlier = run.personal().parent / f"{EARLIER}1"
    tensors, metadata = load_tensors(run.personal())
    save_tensors(earlier / "final.safetensors", tensors, metadata | {"record": "{}"})
    assert find_personal(run.workspace, "site-1") == run.personal()
    assert find_personal(earlier, "site-1") == earlier / "final.safetensors"


def test_identical_copies_count_once(run: Run) -> None:
    copy = run.workspace / "nvflare" / "server" / "simulate_job"
    copy.mkdir(parents=True)
    shutil.copy(run.workspace / "shared.safetensors", copy)
    assert find_shared(run.workspace) == run.workspace / "shared.safetensors"
    assert find_shared(run.workspace / "nvflare") == copy / "shared.safetensors"


def test_unfinished_run_is_told_from_a_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"holds no final\.safetensors; give"):
        find_personal(tmp_path, "site-1")
    (tmp_path / "round-00001.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match="the run was not finished"):
        find_personal(tmp_path, "site-1")


def test_missing_shared_tensors_say_where_they_are(run: Run) -> None:
    with pytest.raises(ExportError, match="server's run folder"):
        find_shared(run.workspace / "private")


def test_missing_folder(tmp_path: Path) -> None:
    for find in (lambda path: find_personal(path, "site-1"), find_shared):
        with pytest.raises(ExportError, match="does not exist"):
            find(tmp_path / "W")


def test_damaged_file_is_named(run: Run) -> None:
    run.personal().write_bytes(run.personal().read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"site-1/final\.safetensors"):
        find_personal(run.workspace, "clinic-b")


def test_file_without_owner(run: Run) -> None:
    with pytest.raises(ExportError, match="no site's final model"):
        find_personal(run.workspace / "shared.safetensors", "site-1")
