"""Python writes the job that the command writes, for names and for choices of a method."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.cli import main
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.photograph_modality import Photograph
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.resources import weights_path
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


def test_of_five_sites_a_job_takes_the_median_unless_it_is_told_another_rule(tmp_path: Path) -> None:
    five = ["a", "b", "c", "d", "e"]
    job = fl.write_job("dual_lora", output=tmp_path / "usual", sites=five)
    assert job.plan.method_args == {"averaging": "median"}
    assert "averaging=median, which is usual from 5 sites on" in job.notes[0]
    mean = fl.write_job("dual_lora", output=tmp_path / "mean", sites=five, settings={"averaging": "factors"})
    assert mean.plan.method_args == {"averaging": "factors"}
    assert fl.write_job("dual_lora", output=tmp_path / "four", sites=five[:4]).plan.method_args == {}


@pytest.mark.parametrize("before", [{}, {"averaging": "trimmed_mean"}, {"averaging": "factors"}])
def test_a_job_that_goes_on_keeps_the_rule_that_the_rounds_before_had(tmp_path: Path, before: dict[str, str]) -> None:
    five = ["a", "b", "c", "d", "e"]
    first = fl.write_job("dual_lora", output=tmp_path / "first", sites=five, experiment="x", allow_versions=True)
    plan = dataclasses.replace(first.plan, method_args=before)
    stored = tmp_path / "shared.safetensors"
    save_shared(stored, build_shared(plan)[1], plan=plan, round_number=2)
    options = {"sites": five, "experiment": "x", "start_from": stored, "allow_versions": True}
    job = fl.write_job("dual_lora", output=tmp_path / "job", resume=True, **options)
    assert job.plan.method_args == before and job.plan.start_round == 3
    anew = fl.write_job("dual_lora", output=tmp_path / "anew", **options)
    assert anew.plan.method_args == {"averaging": "median"}


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


def test_a_regression_has_its_values_and_their_scale_in_the_plan(tmp_path: Path) -> None:
    options = ["--task", "regression", "--value", "lv_ef", "--value", "wall_mm=9/3", "--sites", "north,south"]
    assert main(["job", "dual_lora", "--output", str(tmp_path / "a" / "job"), *options]) == 0
    values = {"lv_ef": None, "wall_mm": (9.0, 3.0)}
    job = fl.write_job("dual_lora", output=tmp_path / "b" / "job", sites=SITES, task="regression", values=values)
    assert content(job.folder) == content(tmp_path / "a" / "job")
    plan = job.plan
    assert (plan.task, plan.classes) == ("regression", ("lv_ef", "wall_mm"))
    assert plan.scale == ((55.0, 15.0), (9.0, 3.0))
    assert plan.bundle == "cine_cmr_dual_lora_classification"
    head = [entry.shape for key, entry in job.manifest.up.entries.items() if "head" in key]
    assert {shape[0] for shape in head} == {2}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "regresion"}, "did you mean 'regression'"),
        ({"task": "regression", "classes": ["lv_ef"]}, "give --value NAME, and drop --classes"),
        ({"task": "regression", "values": {"wall_mm": None}}, "--value wall_mm needs the scale .* wall_mm=50/15"),
        ({"task": "regression", "values": {"lv_ef": (55, 0)}}, "distance above 0"),
        ({"values": {"lv_ef": None}}, "--value is of a regression, and classification has classes"),
        ({"task": "segmentation"}, "names no structures of segmentation; name them with --classes"),
    ],
)
def test_names_that_fit_no_task_are_refused(tmp_path: Path, given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fl.write_job("dual_lora", output=tmp_path / "job", sites=SITES, **given)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("task", "names"), [("segmentation", {"classes": ["lesion"]}), ("regression", {})])
def test_a_method_that_compares_with_sentences_has_only_classes(
    tmp_path: Path, task: str, names: dict[str, list[str]]
) -> None:
    with pytest.raises(ConfigError, match=f"sentences about classes, and {task} has .*; choose another method"):
        fl.write_job(
            "clip_adapter",
            output=tmp_path / "job",
            sites=SITES,
            task=task,
            bundle="image_2d_pfedst_classification",
            **names,
        )  # type: ignore[arg-type]


def photographs(folder: Path, **said: object) -> Path:
    """Weights of photographs in a folder, and what a file beside them says of images."""
    folder.mkdir()
    weights = Path(shutil.copy(weights_path("demo_vit.safetensors"), folder))
    if said:
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return weights


def photograph_job(folder: Path, weights: Path, *, size: str = "vit_demo", **settings: object) -> fl.WrittenJob:
    bundle = "image_2d_fedopal_classification"
    options: dict = {"sites": SITES, "bundle": bundle, "size": size, "backbone": str(weights), "settings": settings}
    return fl.write_job("fedit", output=folder, **options)


def test_files_beside_the_weights_decide_how_photographs_are_normalised(tmp_path: Path) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    weights = photographs(tmp_path / "vit", image_mean=mean, image_std=std)
    job = photograph_job(tmp_path / "job", weights)
    plan = Plan.load(job.folder / "app" / "config" / "plan.json")
    assert plan.training == {"image_mean": mean, "image_std": std}
    assert "64 x 64 pixels" in job.notes[0] and "mean 0.485 0.456 0.406" in job.notes[0] and "beside" in job.notes[0]
    form = modality_of(plan)
    assert isinstance(form, Photograph) and (form.mean, form.std) == (tuple(mean), tuple(std))
    chosen = photograph_job(tmp_path / "chosen", weights, image_std=[1, 1, 1])
    assert chosen.plan.training == {"image_mean": mean, "image_std": [1, 1, 1]}


def test_without_such_files_the_size_decides_and_the_note_says_so(tmp_path: Path) -> None:
    job = photograph_job(tmp_path / "job", photographs(tmp_path / "vit"))
    assert job.plan.training == {}
    assert "mean 0.5 0.5 0.5 and divided by 0.5 0.5 0.5, as vit_demo has it" in job.notes[0]


def test_a_job_keeps_the_image_size_that_was_named_whatever_a_file_says(tmp_path: Path) -> None:
    weights = photographs(tmp_path / "vit", size={"height": 48, "width": 48})
    job = photograph_job(tmp_path / "job", weights, size="vit_demo-96")
    plan = Plan.load(job.folder / "app" / "config" / "plan.json")
    assert plan.size == "vit_demo-96" and "96 x 96 pixels" in job.notes[0]
    form = modality_of(plan)
    assert isinstance(form, Photograph) and form.architecture.image_size == (96, 96)
    assert form.probe().shape[-2:] == (96, 96)


BUDGET = ["--dp-epsilon", "8", "--dp-delta", "1e-5", "--dp-clip", "0.5", "--cases", "north=400,south=90"]


@pytest.mark.slow
def test_a_budget_is_written_and_its_noise_is_said(tmp_path: Path) -> None:
    options = ["--sites", "north,south", "--rounds", "3", *BUDGET]
    assert main(["job", "dual_lora", "--output", str(tmp_path / "a" / "job"), *options]) == 0
    job = fl.write_job(
        "dual_lora",
        output=tmp_path / "b" / "job",
        sites=SITES,
        rounds=3,
        settings={"dp_epsilon": 8.0, "dp_delta": 1e-5, "dp_clip": 0.5},
        declared_cases={"north": 400, "south": 90},
    )
    assert content(job.folder) == content(tmp_path / "a" / "job")
    north, south = (note for note in job.notes if "epsilon 8 (delta 1e-05)" in note)
    assert "north: " in north and "3 rounds of 50 steps on 8 of 400 patients" in north
    assert "south: " in south and "3 rounds of 12 steps on 8 of 90 patients" in south


@pytest.mark.parametrize(
    ("method", "changed", "said"),
    [
        ("dual_lora", {"--dp-clip": "0"}, "clip is 0.0"),
        ("dual_lora", {"--dp-delta": "0.02"}, "delta is 0.02, above one over the 400 patients of north"),
        ("dual_lora", {"--dp-epsilon": "-1"}, "epsilon is -1"),
        ("dual_lora", {"--cases": "north=400"}, "it does not of south: --cases"),
        ("fedper", {}, "fedper cannot keep a budget: its head stays in the site"),
        ("dual_lora", {"--set": "class_weights=balanced"}, "class_weights is 'balanced'"),
    ],
)
def test_a_budget_that_cannot_be_kept_leaves_no_job(
    tmp_path: Path, method: str, changed: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # a noise of its own needs no search for the least one
    pairs = {**dict(zip(BUDGET[::2], BUDGET[1::2], strict=True)), "--dp-noise": "50", **changed}
    options = [part for pair in pairs.items() for part in pair]
    assert main(["job", method, "--output", str(tmp_path / "job"), "--sites", "north,south", *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "job").exists()
