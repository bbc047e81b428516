"""Federations of segmentation and regression on a network of one's own: every method, caches, orders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import RandFlipd

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import METHODS, method_names
from monai_fedlora.networks.convunetr import ConvUNetR, DecoderSettings
from tests.tasks.small import STRUCTURES, Pixels, images_and_masks, targets

TEXT_ALONE = ("clip_adapter", "clip_zero_shot", "prompt_tuning", "pfedst")
OUTPUTS = {"segmentation": 3, "regression": 2}


def sites(task: str, **more: Any) -> dict[str, fl.SiteData]:
    found = {}
    for number, name in enumerate(("north", "south")):
        images, masks = images_and_masks(12, seed=number)
        wanted = targets(task, masks)
        parts = {"train": slice(0, 6), "validation": slice(6, 9), "test": slice(9, 12)}
        found[name] = fl.SiteData(**{part: (images[cut], wanted[cut]) for part, cut in parts.items()}, **more)
    return found


def choice(method: str) -> Any:
    fields = METHODS[method].__dataclass_fields__
    settings: dict[str, Any] = {"targets": r"blocks\.2\.fc"} if "targets" in fields else {}
    settings |= {"rank": 2} if "rank" in fields else {}
    return fl.method(method, head="head", blocks="blocks", **settings)


def run(task: str, method: str = "dual_lora", *, data: Any = None, **settings: Any) -> fl.Run:
    def network() -> Pixels:
        return Pixels(OUTPUTS[task], dense=task == "segmentation")

    options = {"rounds": 1, "learning_rate": 0.02, "batch_size": 2, "warmup_epochs": 0, **settings}
    given = sites(task) if data is None else data
    return fl.federate(network, choice(method), given, classes=STRUCTURES, task=task, **options)


def measured(found: fl.Run) -> list[dict[str, Any]]:
    return [row for row in found.records if row["split"] == "test"]


@pytest.mark.slow
@pytest.mark.parametrize("task", OUTPUTS)
@pytest.mark.parametrize("method", [name for name in method_names() if name not in TEXT_ALONE])
def test_every_method_trains_every_task(task: str, method: str) -> None:
    data = sites(task)
    if method == "centralised":
        data.pop("south")
    found = run(task, method, data=data)
    key = "dice" if task == "segmentation" else "scaled_error"
    rows = measured(found)
    assert {row["site"] for row in rows} == set(data)
    assert all(row["cases"] == 3 and row[key] is not None for row in rows)
    images, _ = images_and_masks(2)
    assert found.personal("north")(images).shape[:2] == (2, OUTPUTS[task])


@pytest.mark.slow
def test_a_federation_learns_to_outline() -> None:
    last = run("segmentation", rounds=8, learning_rate=0.05)
    before = next(row for row in last.records if row["split"] == "validation")
    after = measured(last)[0]
    assert after["dice"] > max(before["dice"], 0.6)
    assert after["dice_low"] <= after["dice"] <= after["dice_high"]
    assert last.plan.task == "segmentation"
    assert json.loads(json.dumps(last.plan.to_json()))["task"] == "segmentation"


def test_the_table_has_the_metric_of_the_task_with_its_interval() -> None:
    found = run("regression")
    table = found.table()
    assert table.head == ["site", "model", "n", "scaled error"]
    row = measured(found)[0]
    assert f"({row['scaled_error_low']:.3f} to {row['scaled_error_high']:.3f})" in str(table.rows)
    assert "scaled error" in found.plot().svg


def test_masks_turn_with_their_images_where_features_are_kept() -> None:
    """Kept features stand for augmented images, and the masks beside them are those of the same views."""
    flipped = {"augmentation": [RandFlipd(["image", "mask"], prob=0.5, spatial_axis=0)]}
    options = {"rounds": 2, "augmented_views": 2, "cache_dtype": "float32"}
    kept = run("segmentation", data=sites("segmentation", **flipped), cache_features=True, **options)
    fresh = run("segmentation", data=sites("segmentation", **flipped), cache_features=False, **options)
    for one, other in zip(measured(kept), measured(fresh), strict=True):
        assert one == pytest.approx(other, abs=2e-3)
    losses = [[row["loss"] for row in found.records if row["split"] == "training"] for found in (kept, fresh)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(("outputs", "dense"), [(1, True), (3, False)])
def test_outputs_that_are_no_masks_are_refused(outputs: int, dense: bool) -> None:
    with pytest.raises(ConfigError, match="one logit per voxel"):
        fl.federate(
            lambda: Pixels(outputs, dense=dense),
            choice("fedper"),
            sites("segmentation"),
            classes=STRUCTURES,
            task="segmentation",
        )


def test_as_many_structures_are_named_as_the_network_has_outputs_for() -> None:
    with pytest.raises(ConfigError, match="3 structures, and the network outputs for 2"):
        fl.federate(
            lambda: Pixels(3, dense=True),
            choice("fedper"),
            sites("segmentation"),
            classes=("LV", "MYO", "RV"),
            task="segmentation",
        )


def test_structures_that_a_site_does_not_outline_are_left_out_there() -> None:
    data = sites("segmentation")
    images, masks = images_and_masks(12, seed=5)
    masks[masks == 2] = 0
    cases = [
        {"image": image, "mask": mask, "labelled": [True, True, False]}
        for image, mask in zip(images, masks, strict=True)
    ]
    data["south"] = fl.SiteData(train=cases[:6], validation=cases[6:9], test=cases[9:])
    rows = {(row["site"], row["model"]): row for row in measured(run("segmentation", data=data))}
    assert "dice_MYO" not in rows["south", "personal"]
    assert rows["north", "personal"]["dice_MYO"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("task", OUTPUTS)
def test_a_task_trains_under_a_budget_and_keeps_what_it_found_to_itself(task: str, caplog: Any, tmp_path: Path) -> None:
    """With missing values, and structures that are not outlined; the private part trains on top of the last round."""
    images, masks = images_and_masks(12, seed=5)
    if task == "segmentation":
        masks[masks == 2] = 0
        known = {"labelled": [True, True, False]}
        cases = [{"image": image, "mask": mask, **known} for image, mask in zip(images, masks, strict=True)]
    else:
        values = targets(task, masks)
        values[::3, 1] = float("nan")
        cases = [{"image": image, "values": found} for image, found in zip(images, values, strict=True)]
    data = {**sites(task), "south": fl.SiteData(train=cases[:6], validation=cases[6:9], test=cases[9:])}
    budget = {"dp_epsilon": 8.0, "dp_delta": 1e-5, "dp_clip": 0.5, "dp_noise": 20.0}
    found = run(task, data=data, folder=tmp_path / "run", **budget)
    assert found.plan.privacy is not None and found.plan.declared_cases == {"north": 6, "south": 6}
    assert all(row["loss"] is None for row in found.records if row["split"] == "training")
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["status"] == "finished" and results["refused"] == []
    assert all("test" not in said for said in results["final"].values())
    charged = [path.read_text(encoding="utf-8") for path in (tmp_path / "run").rglob("charges.jsonl")]
    assert [text.count('"answer"') for text in charged] == [1, 1]
    assert "not finite" not in caplog.text
    first, _ = images_and_masks(2)
    assert torch.isfinite(found.personal("north")(first)).all()


@pytest.mark.slow
def test_a_pair_of_frames_is_outlined_by_the_convunetr_with_its_frozen_blocks_kept() -> None:
    """Masks for both frames, by phase; features and skips of the frozen blocks give what computing them anew does."""
    sizes: dict[str, Any] = {"image_size": (8, 8, 2), "patch_size": (2, 2, 1), "scale_factor": (2, 2, 1)}
    shape = DecoderSettings(chans=(4, 6, 8), patch_size=(2, 2, 1), scale_factor=(2, 2, 1), kernel_size=(3, 3, 1))
    more: dict[str, Any] = {"n_frames": 2, "conv_chans": (4, 6), "conv_n_blocks": 1, "n_heads": 2, "decoder": shape}

    def network() -> ConvUNetR:
        return ConvUNetR(out_chans=3, embed_dim=24, depth=3, **sizes, **more)

    images, masks = images_and_masks(8)
    cines = torch.stack([images[:, 0], -images[:, 0]], dim=1).unsqueeze(-1).repeat(1, 1, 1, 1, 2)
    outlines = torch.stack([masks, masks], dim=1).unsqueeze(-1).repeat(1, 1, 1, 1, 2)
    data = {"north": fl.SiteData(train=(cines[:4], outlines[:4]), test=(cines[4:], outlines[4:]))}
    options: dict[str, Any] = {"task": "segmentation", "classes": STRUCTURES, "rounds": 1, "batch_size": 2}
    options |= {"cache_dtype": "float32", "warmup_epochs": 0}
    rows = [
        measured(fl.federate(network, fl.method("dual_lora", rank=2), data, cache_features=kept, **options))[0]
        for kept in (True, False)
    ]
    assert rows[0] == pytest.approx(rows[1], abs=2e-3)
    assert {"dice_LV_ED", "dice_MYO_ES"} <= rows[0].keys()


def test_a_kept_run_goes_on_has_its_page_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    found = run("segmentation", "fedper", folder=tmp_path / "run")
    again = run("segmentation", "fedper", folder=tmp_path / "run", resume=True)
    assert [row["dice"] for row in measured(again)] == [row["dice"] for row in measured(found)]
    text = found.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Validation mean Dice" in text and "Dice of MYO" in text
    assert "balanced accuracy" not in text and "confusion" not in text.lower()
    with pytest.raises(ConfigError, match="attacks class probabilities"):
        fl.audit(tmp_path / "run", site="north")
    with pytest.raises(ConfigError, match=r"run\.records"):
        _ = found.cases
