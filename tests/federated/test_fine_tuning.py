"""Training after the last round: by hand it is the same, nothing of it leaves, and the model that is kept has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.peft_folders import export_peft
from monai_fedlora.federated.approval import Job
from monai_fedlora.federated.consent import job_lines
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_manifest, build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import load_tensors, read_json, save_tensors
from tests.federated.conftest import Prepared
from tests.helpers import fast_in_part, make_plan, through_json

RANK, ALPHA, RATE = 2, 16.0, 0.02
LORA: dict[str, Any] = {"rank": RANK, "targets": "1", "head": "2"}
PLAIN: dict[str, Any] = {
    "batch_size": 16,
    "learning_rate": RATE,
    "weight_decay": 0.1,
    "warmup_epochs": 0,
    "label_smoothing": 0.0,
    "class_weights": None,
    "max_grad_norm": None,
}


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))


def cases(seed: int) -> tuple[Tensor, list[int]]:
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return images, [int(image.mean() > images.mean()) for image in images]


SITES = {name: fl.SiteData(train=cases(seed), test=cases(seed + 10)) for seed, name in enumerate(("north", "south"))}


def run(folder: Path, method: str = "fedit", **settings: Any) -> fl.Run:
    choice = fl.method(method, **({} if method == "fedavg" else LORA))
    return fl.federate(network, choice, SITES, rounds=2, folder=folder, **{**PLAIN, **settings})


def parts(folder: Path, site: str) -> dict[str, dict[str, Tensor]]:
    """Tensors of a site's final model by part and state-dict key."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in load_tensors(folder / "private" / "run" / site / "final.safetensors")[0].items():
        part, _, name = key.partition("/")
        found.setdefault(part, {})[name] = value
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Folder of a run with a method and so many epochs after the last round."""
    root, made = tmp_path_factory.mktemp("runs"), set[Path]()

    def find(method: str, epochs: int) -> Path:
        folder = root / f"{method}-{epochs}"
        if folder not in made:
            run(folder, method, fine_tune_epochs=epochs)
            made.add(folder)
        return folder

    return find


@pytest.mark.slow
def test_it_is_training_by_hand_from_the_last_shared_tensors(folders: Callable[[str, int], Path]) -> None:
    """All cases are one batch, so that their order does not matter."""
    found, plain = parts(folders("fedit", 3), "north"), network()
    assert found.keys() == {"shared", "tuned"}
    values = {key: nn.Parameter(value.clone()) for key, value in found["shared"].items()}
    (a,), (b,) = ([p for key, p in values.items() if f"lora_{factor}" in key] for factor in "AB")
    (weight,) = (p for key, p in values.items() if "lora" not in key and p.dim() == 2)
    (bias,) = (p for key, p in values.items() if p.dim() == 1)
    groups: list[dict[str, Any]] = [{"params": [a, b, weight]}, {"params": [bias], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.1)
    images, labels = cases(0)
    for epoch in range(3):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (0.01 + 0.99 * (1 + math.cos(math.pi * epoch / 3)) / 2)
        x = images.flatten(1)
        hidden = plain[1](x) + ALPHA / RANK * x @ a.T @ b.T
        optimiser.zero_grad()
        nn.functional.cross_entropy(hidden @ weight.T + bias, torch.tensor(labels)).backward()
        optimiser.step()
    for key, value in values.items():
        torch.testing.assert_close(found["tuned"][key], value.detach(), rtol=1e-4, atol=1e-6)
        assert not torch.equal(found["tuned"][key], found["shared"][key])


@pytest.mark.parametrize("method", fast_in_part(["dual_lora", "fedit"]))
def test_what_leaves_is_what_left_without_it(folders: Callable[[str, int], Path], method: str) -> None:
    tuned, plain = folders(method, 3), folders(method, 0)
    one, other = (load_tensors(folder / "shared.safetensors")[0] for folder in (tuned, plain))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    results = [read_json(folder / "results.json") for folder in (tuned, plain)]
    for site in SITES:
        said, before = (each["final"][site] for each in results)
        assert said.keys() == before.keys()
        assert said["test"]["shared"] == before["test"]["shared"]
        with_it, without = parts(tuned, site), parts(plain, site)
        assert all(torch.equal(with_it["shared"][key], value) for key, value in without["shared"].items())
        assert with_it["tuned"].keys() == with_it["shared"].keys()
        assert "tuned" not in without
        assert not any(torch.equal(with_it["private"][k], value) for k, value in without.get("private", {}).items())


@pytest.mark.parametrize("method", fast_in_part(["flora", "fedit", "dual_lora", "local", "fedavg"], of=5))
def test_the_model_that_is_kept_has_it(tmp_path: Path, method: str) -> None:
    finished = run(tmp_path, method, fine_tune_epochs=2)
    assert ("tuned" in parts(tmp_path, "south")) == (method != "local")
    images, _ = cases(11)
    with torch.no_grad():
        found = finished.personal("south")(images).softmax(dim=1)[:, 1]
    rows = [row for row in finished.cases if (row["site"], row["split"], row["model"]) == ("south", "test", "personal")]
    assert found.tolist() == pytest.approx([row["p_1"] for row in rows], abs=1e-5)


@pytest.mark.slow
def test_a_kept_model_that_lacks_it_is_refused(tmp_path: Path) -> None:
    run(tmp_path, fine_tune_epochs=1)
    path = tmp_path / "private" / "run" / "north" / "final.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, {key: value for key, value in tensors.items() if not key.startswith("tuned/")}, metadata)
    with pytest.raises(ExportError, match="does not fit its own plan: it lacks"):
        run(tmp_path, fine_tune_epochs=1, resume=True).personal("north")


@pytest.mark.slow
def test_a_second_answer_is_the_same_and_no_peft_folder_calls_it_shared(prepared: Prepared, tmp_path: Path) -> None:
    """The server asks again where an answer was lost."""
    plan = prepared.plan(method="dual_lora", rounds=1, fine_tune_epochs=1)
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    shared = build_shared(plan)[1]
    site.train_round(0, shared)
    state, path = (
        (site.store.folder / "answered-00000.safetensors").read_bytes(),
        site.store.folder / "final.safetensors",
    )
    first, stored = site.finish(shared), load_tensors(path)[0]
    again = site.finish(shared)
    assert (again.test, again.validation) == (first.test, first.validation)
    assert all(torch.equal(value, stored[key]) for key, value in load_tensors(path)[0].items())
    assert (site.store.folder / "round-00000.safetensors").read_bytes() == state
    with pytest.raises(ExportError, match=r"site-1 has trained its model further after the last round"):
        export_peft(run=path, site="site-1", output=tmp_path / "peft", backbone=str(prepared.backbone))


def test_a_site_reads_of_it_before_it_consents(tmp_path: Path) -> None:
    plan = make_plan(method="fedit", bundle="cine_cmr_dual_lora_classification", fine_tune_epochs=3)
    manifest = build_shared(plan)[0]
    write_job(plan, manifest, tmp_path / "job")
    said = " ".join(text for _, text in job_lines(Job(tmp_path / "job", plan, manifest)))
    assert "then 3 epochs of the site's own model, of which no tensor leaves" in said


def test_a_plan_holds_it_only_where_it_is_asked_for() -> None:
    plan = make_plan(fine_tune_epochs=2)
    assert Plan.from_json(through_json(plan.to_json())) == plan
    assert plan.fingerprint == make_plan().fingerprint
    assert "fine_tune_epochs" not in make_plan().to_json()
    with pytest.raises(ConfigError, match="fine_tune_epochs is -1"):
        make_plan(fine_tune_epochs=-1)


def test_a_personal_model_apart_from_the_shared_one_is_not_trained_further() -> None:
    bundle = "cine_cmr_dual_lora_classification"
    with pytest.raises(ConfigError, match="fine_tune_epochs is 2, but the personal model of ditto trains apart"):
        build_manifest(make_plan(method="ditto", bundle=bundle, fine_tune_epochs=2))
    build_manifest(make_plan(method="ditto", bundle=bundle))
    build_manifest(make_plan(method="feddpa", bundle=bundle, fine_tune_epochs=2))
