"""`monai-fedlora job` writes what was asked for, or one line on what was wrong and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.cli import main
from monai_fedlora.federated.initial import build_shared, load_shared, save_shared
from monai_fedlora.federated.installation import installed_versions
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import save_tensors, sha256, write_json
from monai_fedlora.networks.catalogue import demo_weights
from monai_fedlora.networks.cinema import convvit
from monai_fedlora.resources import BUNDLES_VARIABLE, bundle_digest
from monai_fedlora.scope import Manifest


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = convvit("small", out_chans=2)
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(network.head_prefixes)}
    save_tensors(path, state, {})
    return path


Command = Callable[..., int]


@pytest.fixture
def job(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    configs = tmp_path / "bundles" / "cine" / "configs"
    write_json(configs / "train.json", {"size": "small", "train": {}})
    write_json(configs / "inference.json", {"classes": ["NOR", "ABN"]})
    monkeypatch.setenv(BUNDLES_VARIABLE, str(tmp_path / "bundles"))

    def run(*arguments: str, output: str = "mine", method: str = "dual_lora") -> int:
        folder = str(tmp_path / output)
        return main(["job", method, "--output", folder, "--bundle", "cine", "--backbone", str(backbone), *arguments])

    return run


def plan_of(folder: Path) -> Plan:
    return Plan.load(folder / "app" / "config" / "plan.json")


def test_the_defaults_make_a_job_for_four_sites(job: Command, tmp_path: Path, backbone: Path, capsys: Any) -> None:
    assert job() == 0
    plan = plan_of(tmp_path / "mine")
    assert plan.experiment == "mine"
    assert plan.sites == ("site-1", "site-2", "site-3", "site-4")
    assert plan.classes == ("NOR", "ABN")
    assert (plan.rounds, plan.start_round, plan.local_epochs) == (5, 0, 1)
    assert plan.backbone_sha256 == sha256(backbone)
    manifest = Manifest.load(tmp_path / "mine" / "app" / "config" / "manifest.json")
    assert manifest == build_shared(plan)[0]
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"{manifest.nbytes:,} bytes" in said
    assert "4 sites" in said
    assert "monai-fedlora simulate" in said


def test_every_option_reaches_the_plan(job: Command, tmp_path: Path) -> None:
    options = "--sites north,south --rounds 7 --local-epochs 2 --classes NOR,DCM,HCM --experiment trial --seed 3"
    options += " --wire float32 --cases north=12,south=9 --max-share 0.5 --update-bound 3"
    options += " --set rank=4 --set head=private --set targets=attn.q,attn.kv"
    options += " --set learning_rate=0.01 --set augment=false --set class_weights=[1,2,3] --allow-listed"
    assert job(*options.split()) == 0
    plan = plan_of(tmp_path / "mine")
    assert plan.sites == ("north", "south")
    assert plan.classes == ("NOR", "DCM", "HCM")
    assert (plan.rounds, plan.local_epochs, plan.seed, plan.experiment) == (7, 2, 3, "trial")
    assert plan.wire_dtype == "float32"
    assert plan.declared_cases == {"north": 12, "south": 9}
    assert (plan.max_share, plan.update_bound) == (0.5, 3.0)
    assert plan.method_args == {"rank": 4, "head": "private", "targets": ["attn.q", "attn.kv"]}
    assert plan.training == {"learning_rate": 0.01, "augment": False, "class_weights": [1, 2, 3]}
    assert not (tmp_path / "mine" / "app" / "custom").exists()
    assert {e.dtype for e in Manifest.load(tmp_path / "mine/app/config/manifest.json").entries.values()} == {"float32"}


def test_encoded_updates_are_declared_and_their_bytes_told(job: Command, tmp_path: Path, capsys: Any) -> None:
    assert job("--wire", "int8", "--top-k", "0.1") == 0
    plan = plan_of(tmp_path / "mine")
    assert (plan.wire_dtype, plan.top_k) == ("int8", 0.1)
    manifest = Manifest.load(tmp_path / "mine" / "app" / "config" / "manifest.json")
    assert manifest == build_shared(plan)[0]
    said = " ".join(capsys.readouterr().out.split())
    assert f"{manifest.up.nbytes:,} bytes go up" in said
    assert f"{manifest.down.nbytes:,} bytes come down" in said
    assert manifest.up.nbytes < manifest.down.nbytes / 6


def test_the_largest_changes_alone_are_refused_for_factors_that_start_anew(
    job: Command, tmp_path: Path, capsys: Any
) -> None:
    assert job("--top-k", "0.1", method="flora") == 2
    assert "leave top_k at 1" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "fedit", "local", "fedavg"])
def test_every_method_gives_a_job(job: Command, tmp_path: Path, method: str) -> None:
    assert job(method=method) == 0
    assert plan_of(tmp_path / "mine").method == method


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--set", "ranks=4"], "did you mean 'rank'"),
        (["--set", "rank"], "NAME=VALUE"),
        (["--set", "rank=0"], "rank"),
        (["--set", "rank=NaN"], "rank"),
        (["--set", "alpha=large"], "alpha"),
        (["--set", "head=$x"], "head"),
        (["--set", 'targets={"a": 1}'], "targets"),
        (["--set", "learning_rate=NaN"], "learning_rate"),
        (["--set", "learning_rate=1e999"], "learning_rate"),
        (["--sites", "a,a"], "sites"),
        (["--sites", "a,,b"], "sites"),
        (["--sites", "../a"], "sites"),
        (["--classes", "NOR"], "classes"),
        (["--rounds", "0"], "rounds"),
        (["--seed", "-1"], "seed"),
        (["--top-k", "0"], "top_k"),
        (["--top-k", "1.5"], "top_k"),
        (["--cases", "site-1"], "SITE=N"),
        (["--cases", "site-1=many"], "SITE=N"),
        (["--max-share", "0.2"], "max_share"),
        (["--update-bound", "0.5"], "update_bound"),
        (["--classes", ",".join(f"c{n}" for n in range(129))], "129 classes"),
        (["--cases", "site-9=4"], "site-9"),
        (["--cases", "site-1=0"], "site-1"),
        (["--size", "huge"], "huge"),
        (["--bundle", "unheard-of"], "unheard-of"),
        (["--backbone", "absent.safetensors"], "absent.safetensors"),
        (["--experiment", "a b"], "experiment"),
        (["--start-from", "absent.safetensors"], "absent.safetensors"),
        (["--resume"], "--start-from"),
        (["--accept-changes"], "is of --resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(
    job: Command, tmp_path: Path, capsys: Any, arguments: list[str], hint: str
) -> None:
    assert job(*arguments) == 2
    said = capsys.readouterr().err
    assert hint in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["bundles"]


def test_an_unknown_method_is_corrected(job: Command, capsys: Any) -> None:
    assert job(method="dual_lorra") == 2
    assert "did you mean 'dual_lora'" in capsys.readouterr().err


def test_an_existing_folder_is_refused_and_untouched(job: Command, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    assert job() == 2
    assert "exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


@pytest.fixture
def stored(job: Command, tmp_path: Path) -> Path:
    """Shared tensors of the experiment "first" after its round 4."""
    assert job(output="first") == 0
    plan = plan_of(tmp_path / "first")
    payload = {key: value + 1 for key, value in build_shared(plan)[1].items()}
    save_shared(tmp_path / "shared.safetensors", payload, plan=plan, round_number=4)
    return tmp_path / "shared.safetensors"


def test_a_stored_file_starts_a_new_experiment_at_round_zero(job: Command, tmp_path: Path, stored: Path) -> None:
    assert job("--start-from", str(stored), output="second") == 0
    assert plan_of(tmp_path / "second").start_round == 0
    assert (tmp_path / "second/app/config/initial_shared.safetensors").read_bytes() == stored.read_bytes()


def test_a_resumed_run_goes_on_with_the_next_round(job: Command, tmp_path: Path, stored: Path) -> None:
    options = ("--resume", "--experiment", "first", "--rounds", "3", "--start-from", str(stored))
    assert job(*options, output="second") == 0
    plan = plan_of(tmp_path / "second")
    assert (plan.start_round, plan.rounds, plan.total_epochs) == (5, 3, 8)
    assert plan.fingerprint == plan_of(tmp_path / "first").fingerprint
    manifest = Manifest.load(tmp_path / "second/app/config/manifest.json")
    load_shared(tmp_path / "second/app/config/initial_shared.safetensors", manifest=manifest)


@pytest.fixture
def interrupted(job: Command, tmp_path: Path) -> tuple[str, ...]:
    """Options that go on with the experiment "first", which was stored after its round 1 of 5."""
    assert job(output="first") == 0
    plan = plan_of(tmp_path / "first")
    save_shared(tmp_path / "shared.safetensors", build_shared(plan)[1], plan=plan, round_number=1)
    return "--resume", "--experiment", "first", "--start-from", str(tmp_path / "shared.safetensors")


def test_a_resumed_run_has_the_rounds_that_were_left(
    job: Command, tmp_path: Path, interrupted: tuple[str, ...]
) -> None:
    assert job(*interrupted, output="second") == 0
    plan = plan_of(tmp_path / "second")
    assert (plan.start_round, plan.rounds, plan.changed) == (2, 3, ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, name, said",
    [
        (["--seed", "3"], "seed", "seed: 0 -> 3"),
        (["--set", "learning_rate=0.5"], "training.learning_rate", "training.learning_rate: not set -> 0.5"),
        (["--local-epochs", "2"], "local_epochs", "local_epochs: 1 -> 2"),
        (["--wire", "float32"], "wire_dtype", "wire_dtype: float16 -> float32"),
        (["--rounds", "7"], "rounds", "rounds: 5 in all -> 9 in all"),
    ],
)
def test_other_settings_have_to_be_accepted_and_stand_in_the_plan(
    job: Command, tmp_path: Path, interrupted: tuple[str, ...], capsys: Any, options: list[str], name: str, said: str
) -> None:
    assert job(*interrupted, *options, output="second") == 2
    assert said in capsys.readouterr().err
    assert job(*interrupted, *options, "--accept-changes", output="second") == 0
    plan = plan_of(tmp_path / "second")
    assert plan.changed == (name,)
    again = tmp_path / "again.safetensors"
    save_shared(again, build_shared(plan)[1], plan=plan, round_number=2)
    arguments = ["--rounds", "6"] if name == "rounds" else options
    assert job(*interrupted[:-1], str(again), *arguments, output="third") == 0
    assert plan_of(tmp_path / "third").changed == (name,)


def test_a_run_that_came_to_its_end_goes_on_only_for_rounds_that_are_named(
    job: Command, tmp_path: Path, stored: Path, capsys: Any
) -> None:
    assert job("--resume", "--experiment", "first", "--start-from", str(stored), output="second") == 2
    assert "--rounds" in capsys.readouterr().err


@pytest.mark.parametrize("change", [[], ["--experiment", "first", "--set", "alpha=32"]], ids=["name", "alpha"])
def test_resuming_another_experiment_is_refused(
    job: Command, tmp_path: Path, stored: Path, capsys: Any, change: list[str]
) -> None:
    """Its sites would not find their private parts."""
    assert job("--resume", "--start-from", str(stored), *change, output="second") == 2
    assert str(stored) in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "second").exists()


def test_a_stored_file_that_does_not_fit_is_named(job: Command, tmp_path: Path, stored: Path, capsys: Any) -> None:
    assert job("--start-from", str(stored), "--set", "rank=4", output="second") == 2
    assert str(stored) in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(stored.read_bytes()[:-1])
    assert job("--start-from", str(damaged), output="second") == 2
    assert str(damaged) in capsys.readouterr().err


def test_a_file_that_knows_no_round_cannot_be_resumed(job: Command, tmp_path: Path, stored: Path, capsys: Any) -> None:
    manifest = Manifest.load(tmp_path / "first/app/config/manifest.json")
    payload, metadata = load_shared(stored, manifest=manifest)
    tensors = {key: torch.from_numpy(value) for key, value in payload.items()}
    save_tensors(stored, tensors, {**metadata, "round": "?"})
    assert job("--resume", "--experiment", "first", "--start-from", str(stored), output="second") == 2
    assert "knows its round" in capsys.readouterr().err


def test_a_written_job_is_plain_json(job: Command, tmp_path: Path) -> None:
    assert job() == 0
    for path in (tmp_path / "mine").rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_size_and_classes_are_the_bundles_unless_given(job: Command, tmp_path: Path) -> None:
    write_json(tmp_path / "bundles" / "cine" / "configs" / "inference.json", {"classes": ["A", "B", "C"]})
    assert job() == 0
    plan = plan_of(tmp_path / "mine")
    assert (plan.size, plan.classes) == ("small", ("A", "B", "C"))


def test_a_bundle_that_does_not_say_its_classes_asks_for_them(job: Command, tmp_path: Path, capsys: Any) -> None:
    write_json(tmp_path / "bundles" / "cine" / "configs" / "inference.json", {})
    assert job() == 2
    assert "does not say classes" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_size_without_demonstration_weights_needs_a_file(tmp_path: Path, capsys: Any) -> None:
    assert main(["job", "dual_lora", "--output", str(tmp_path / "mine"), "--size", "base"]) == 2
    assert "give the file of its backbone" in capsys.readouterr().err


def test_a_backbone_may_be_a_folder_pinned_by_the_weights_in_it(job: Command, tmp_path: Path) -> None:
    from transformers import ViTConfig

    shape = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 384}
    folder = tmp_path / "published"
    ViTConfig(**shape, image_size=64, patch_size=8).save_pretrained(folder)
    weights = demo_weights("vit_demo")
    assert weights is not None
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    assert job("--size", "vit_demo", "--backbone", str(folder)) == 0
    assert plan_of(tmp_path / "mine").backbone_sha256 == sha256(weights)


def test_a_folder_is_not_pinned_for_a_size_that_is_loaded_from_a_file(
    job: Command, tmp_path: Path, backbone: Path, capsys: Any
) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "config.json").write_text("{}")
    (tmp_path / "published" / "model.safetensors").write_bytes(backbone.read_bytes())
    assert job("--backbone", str(tmp_path / "published")) == 2
    assert "published" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_backbone_that_no_site_could_load_makes_no_job(
    job: Command, tmp_path: Path, capsys: Any, content: bytes
) -> None:
    (tmp_path / "junk.safetensors").write_bytes(content)
    assert job("--backbone", str(tmp_path / "junk.safetensors")) == 2
    assert "junk.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_backbone_of_another_size_makes_no_job(job: Command, tmp_path: Path, capsys: Any) -> None:
    assert job("--size", "base") == 2
    assert "does not fit" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_site_whose_declared_cases_make_too_few_steps_is_named(job: Command, tmp_path: Path, capsys: Any) -> None:
    sites = ("--sites", "north,south", "--rounds", "1", "--set", "batch_size=8", "--set", "accumulation_steps=1")
    assert job(*sites, "--cases", "north=9,south=8", method="fedrep") == 2
    said = capsys.readouterr().err
    assert "south declares 8 training cases" in said
    assert "1 optimiser step for the method's 2 phases" in said
    assert not (tmp_path / "mine").exists()
    assert job(*sites, "--cases", "north=9,south=8", "--local-epochs", "2", method="fedrep") == 0
    assert job(*sites, "--cases", "north=9,south=8", output="other", method="fedper") == 0
    assert job(*sites, "--rounds", "2", "--cases", "north=9,south=8", output="turns", method="fedrep") == 0


@pytest.mark.slow
def test_classes_of_ones_own_get_texts_of_ones_own(tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str, method: str = "pfedst") -> int:
        options = ["--bundle", "image_2d_pfedst_classification", "--sites", "a,b", "--classes", "glaucoma,healthy"]
        return main(["job", method, *options, "--output", str(tmp_path / "job"), *arguments])

    assert run() == 2
    assert "no text for class 'glaucoma'" in (said := capsys.readouterr().err) and "--class-text glaucoma=" in said
    assert run("--class-text", "glaucoma=an eye with glaucoma") == 2
    assert "--class-text healthy=" in capsys.readouterr().err
    assert run("--class-text", "glaucoma=a", "--class-text", "healthy=b", method="fedit") == 2
    assert "fedit reads no texts" in capsys.readouterr().err
    assert run("--class-text", "glaucoma") == 2
    assert "write CLASS=TEXT" in capsys.readouterr().err
    assert run("--class-text", "glaucoma=an eye with glaucoma", "--class-text", "healthy=a healthy eye") == 0
    prompts = plan_of(tmp_path / "job").prompts
    assert prompts is not None
    assert prompts.class_texts == {"glaucoma": "an eye with glaucoma", "healthy": "a healthy eye"}


def test_a_job_pins_what_is_installed_unless_all_versions_are_allowed(job: Command, tmp_path: Path) -> None:
    assert job(output="pinned") == job("--allow-versions", output="open") == 0
    pinned, opened = (plan_of(tmp_path / name) for name in ("pinned", "open"))
    assert (pinned.bundle_sha256, pinned.versions) == (bundle_digest("cine"), installed_versions())
    assert (opened.bundle_sha256, opened.versions) == ("", {})
