"""Python writes the job that the command writes, for names and for choices of a method."""

from __future__ import annotations

from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.cli import main
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.scope import Manifest

SITES = ["north", "south"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_function_and_command_write_the_same_files(tmp_path: Path) -> None:
    options = ["--sites", "north,south", "--rounds", "3", "--set", "rank=4"]
    options += ["--set", "batch_size=8", "--cases", "north=9"]
    assert main(["job", "dual_lora", "--output", str(tmp_path / "a" / "job"), *options]) == 0
    job = fl.write_job(
        fl.method("dual_lora", rank=4),
        output=tmp_path / "b" / "job",
        sites=SITES,
        rounds=3,
        settings={"batch_size": 8},
        declared_cases={"north": 9},
    )
    assert content(job.folder) == content(tmp_path / "a" / "job")
    assert job.plan == Plan.load(job.folder / "app" / "config" / "plan.json")
    assert job.manifest == Manifest.load(job.folder / "app" / "config" / "manifest.json")
    assert f"{job.manifest.up.nbytes:,} bytes go up" in job.notes[0]


def test_settings_take_the_place_of_the_choices(tmp_path: Path) -> None:
    choice = fl.method("dual_lora", rank=4, alpha=3)
    job = fl.write_job(choice, output=tmp_path / "job", sites=SITES, settings={"rank": 2})
    assert job.plan.method_args == {"rank": 2, "alpha": 3}


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (fl.method("fedit", targets="1", head="2"), {}, "leave the layers of 'fedit' out"),
        ("dual_lorra", {}, "did you mean 'dual_lora'"),
        ("dual_lora", {"ranks": 2}, "did you mean 'rank'"),
        ("dual_lora", {"batchsize": 2}, "did you mean 'batch_size'"),
        ("dual_lora", {"lr": 2}, "neither dual_lora nor training .* rank, .* learning_rate"),
    ],
    ids=["layers", "method", "setting", "of_training", "unlike_any"],
)
def test_what_is_no_job_leaves_nothing(tmp_path: Path, method: object, settings: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fl.write_job(method, output=tmp_path / "job", sites=SITES, settings=settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_names_may_come_in_any_kind_of_collection(tmp_path: Path) -> None:
    for number, sites in enumerate((dict.fromkeys(SITES), dict.fromkeys(SITES).keys(), iter(SITES))):
        job = fl.write_job("dual_lora", output=tmp_path / str(number), sites=sites)  # type: ignore[arg-type]
        assert job.plan.sites == tuple(SITES)
