"""An audit of a run whose answers were kept: three attacks, in its file, its report and its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_fedlora import cli
from monai_fedlora.auditing import inversion
from monai_fedlora.auditing.membership_audit import audit_model
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.leakage import read_audit, read_run_audit
from monai_fedlora.exporting.leakage_card import RUN_NOT_MEASURED, card_entry
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.files import read_json, save_tensors, sha256, write_json
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.reporting.found_run import read_run
from monai_fedlora.reporting.page import page

from .conftest import CLASSES, FEW, SITE, Trained


@pytest.mark.slow
def test_a_run_is_attacked_by_what_was_seen_by_who_took_part_and_by_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(inversion.inverted.__kwdefaults__, "steps", 2)
    sites = (SITE, "site-2", "site-3")
    for seed, site in enumerate(sites):
        listed = load_datalist(site_data(site, phantom="dermoscopy", settings=PhotoPhantomSettings(seed=seed, **FEW)))
        write_json(tmp_path / "data" / site / "datalist.json", listed.to_json())
    torch.manual_seed(1)
    backbone = tmp_path / "vit.safetensors"
    save_tensors(backbone, build_backbone("micro_vit", out_chans=2).state_dict(), {})
    plan = Plan(
        experiment="skin",
        bundle="image_2d_fedopal_classification",
        method="dual_lora",
        sites=sites,
        classes=CLASSES,
        rounds=2,
        size="micro_vit",
        backbone_sha256=sha256(backbone),
        wire_dtype="int8",
        training={"augment": False, "batch_size": 8, "learning_rate": 0.01, "warmup_epochs": 0, "cache_features": True},
    )
    options = {"data_root": str(tmp_path / "data"), "backbone": str(backbone), "policy": lambda: NOTHING_LEAVES}
    run_in_process(plan, folder=tmp_path / "W", keep_answers=True, **options)  # type: ignore[arg-type]

    words = ["audit", str(tmp_path / "W"), "--site", SITE, "--data", str(tmp_path / "data"), "--shadows", "0"]
    words += ["--backbone", str(backbone), "--leave-out", "--invert", "8"]
    assert cli.main([*words, "--fail-above", "1"]) in (0, 1)
    said = capsys.readouterr().out
    assert "measured leakage of the run: 3 sites, 2 rounds, int8, no budget" in said
    final = tmp_path / "W" / "private" / "skin" / SITE / "final.safetensors"
    found, model = read_run_audit(final), read_audit(final)
    assert found is not None and model is not None
    targets = {attack.target for attack in found.attacks}
    assert targets == {"answers of 2 rounds", "shared model", "gradient of a small batch"}
    (took_part,) = [attack for attack in found.attacks if attack.target == "shared model"]
    assert (took_part.name, took_part.n_members, took_part.n_others) == ("participation, 4 runs", 9, 3)
    inverted = [attack for attack in found.attacks if attack.target == "gradient of a small batch"]
    assert sorted(attack.name.removesuffix(", reversed") for attack in inverted) == [
        f"inversion, {batch} at once" for batch in (1, 2, 4)
    ]
    assert not targets & {attack.target for attack in model.attacks}  # a gate looks at the model alone
    assert not list((tmp_path / "W").rglob("*left-out*"))

    assert "What the run told beside the models" in page(read_run(tmp_path / "W"))
    exported = export_bundle(
        run=tmp_path / "W", site=SITE, output=tmp_path / "B", backbone=str(backbone), program=False
    )
    assert exported.metadata["measured_leakage"]["run"]["measured"]
    assert "| answers of 2 rounds | share" in (exported.folder / "docs" / "README.md").read_text()
    assert read_json(final.with_name("audit.json"))["wire"] == "int8"


def test_what_nobody_looked_at_is_said_in_the_card(bundle: Exported) -> None:
    assert bundle.metadata["measured_leakage"]["run"] == {"measured": False, "reason": RUN_NOT_MEASURED}
    card = (bundle.folder / "docs" / "README.md").read_text()
    assert f"its shared model of the sites: not measured: {RUN_NOT_MEASURED}." in card


@pytest.mark.slow
def test_a_run_that_kept_nothing_says_so_and_what_to_do(trained: Trained) -> None:
    found = audit_model(trained.workspace, shadows=0, **trained.options)
    assert found.run is not None and not found.run.attacks
    assert "--keep-answers" in found.run.not_measured["answers"]
    assert "--leave-out" in found.run.not_measured["participation on shared model"]
    assert "--invert" in found.run.not_measured["inversion on gradient of a small batch"]
    assert card_entry(found.leakage, found.run)["run"]["measured"] is False


def test_a_bundle_has_no_run_to_attack(bundle: Exported, trained: Trained) -> None:
    for options, said in (({"leave_out": True}, "--leave-out"), ({"invert": 8}, "--invert")):
        with pytest.raises(ConfigError, match=f"{said} is about its run"):
            audit_model(bundle.folder, data=str(trained.data), **options)
    with pytest.raises(ConfigError, match="takes 5 images or more"):
        audit_model(trained.workspace, invert=2, **trained.options)
