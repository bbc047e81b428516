"""Reading a finished run back: exactly what was trained, or a refusal that says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.environment import BACKBONE
from monai_fedlora.errors import ExportError, FedLoraError, WeightsError
from monai_fedlora.exporting.finished import (
    backbone_name,
    find_backbone,
    read_finished,
    read_personal,
    read_shared,
    rebuild,
)
from monai_fedlora.exporting.pooled import pooled_test
from monai_fedlora.files import load_tensors, save_tensors, sha256, write_json
from monai_fedlora.networks.weights import backbone_sha256
from monai_fedlora.site_report import EARLIER_VIEWS
from tests.helpers import make_plan

from .finished_runs import MICRO, Run


def rewrite(path: Path, *, drop: str = "", add: dict[str, torch.Tensor] | None = None, **metadata: str | None) -> None:
    """Change a stored file; None removes an entry of the metadata."""
    tensors, entries = load_tensors(path)
    tensors = {key: value for key, value in tensors.items() if not drop or drop not in key} | (add or {})
    entries |= {key: value for key, value in metadata.items() if value is not None}
    save_tensors(path, tensors, {key: value for key, value in entries.items() if metadata.get(key, "") is not None})


@pytest.mark.parametrize("site", ["site-1", "clinic-c"])
def test_rebuilt_network_computes_what_was_trained(run: Run, site: str) -> None:
    model = read_finished(run.workspace, site)
    network = rebuild(model, str(run.backbone))
    image = torch.rand(2, 2, *MICRO.image_size)
    with torch.no_grad():
        assert torch.equal(network(image), run.networks[site](image))
    assert (model.site, model.rounds, model.cases) == (site, 3, 20 if site == "site-1" else 22)
    assert model.test.keys() == {"personal", "shared"}


def test_a_model_that_an_earlier_version_stored_has_its_metrics_and_cases(run: Run, tmp_path: Path) -> None:
    now = read_finished(run.workspace, "site-1")
    path = tmp_path / now.path.name
    shutil.copy(now.path, path)
    record = json.loads(load_tensors(path)[1]["record"])
    for split in set(record) & {"validation", "test"}:
        record[split] = {earlier: record[split][view] for earlier, view in EARLIER_VIEWS.items()}
    rewrite(path, record=json.dumps(record))
    earlier = read_personal(path, "site-1")
    assert (earlier.test, earlier.validation_cases) == (now.test, now.validation_cases)
    assert set(earlier.test) == {"personal", "shared"}


def test_shared_model_is_the_one_without_private_parts(run: Run) -> None:
    model = read_finished(run.workspace, "shared")
    network = rebuild(model, str(run.backbone))
    method = run.plan.build_method()
    image = torch.rand(1, 2, *MICRO.image_size)
    with torch.no_grad():
        with method.shared_only(network):
            found = network(image)
        with method.shared_only(run.networks["site-1"]):
            expected = run.networks["site-1"](image)
    assert torch.equal(found, expected)
    assert model.site is None and model.cases is None and model.rounds == 3


def test_shared_model_has_the_pooled_test_metrics(run: Run) -> None:
    final = json.loads((run.workspace / "results.json").read_text())["final"]
    pooled = read_shared(run.workspace / "shared.safetensors").test["shared"]
    views = [final[site]["test"]["shared"] for site in run.plan.sites]
    assert pooled["n"] == sum(view["n"] for view in views)
    assert pooled["sites"] == len(views)
    assert pooled["accuracy"] == pytest.approx(sum(view["accuracy"] * view["n"] for view in views) / pooled["n"])
    assert pooled["worst_site_balanced_accuracy"] == min(view["balanced_accuracy"] for view in views)


def test_pooled_metrics_say_how_many_sites_they_cover_and_take_no_balance_of_one_class() -> None:
    plan = make_plan(sites=("a", "b", "c"), classes=("x", "y"))
    shared = {"confusion_matrix": [[0, 0], [1, 3]], "n": 4, "balanced_accuracy": 0.75}
    balanced = {"confusion_matrix": [[3, 1], [1, 3]], "n": 8, "balanced_accuracy": 0.8}
    tests = {"a": {"shared": shared}, "b": {"shared": balanced}, "c": {"shared": {}}}
    results = {"status": "finished", "plan": plan.to_json(), "final": {s: {"test": t} for s, t in tests.items()}}
    pooled = pooled_test(results, plan)
    assert pooled is not None
    assert (pooled["sites"], pooled["n"]) == (2, 12)
    assert pooled["balanced_accuracy"] == pytest.approx((3 / 4 + 6 / 8) / 2)
    assert pooled["worst_site_balanced_accuracy"] == 0.8
    tests["b"] = {"shared": {}}
    alone = pooled_test(results | {"final": {s: {"test": t} for s, t in tests.items()}}, plan)
    assert alone is not None
    assert (alone["sites"], alone["balanced_accuracy"], alone["worst_site_balanced_accuracy"]) == (1, None, None)


def test_a_site_that_has_trained_no_round_has_no_personal_model(run: Run, tmp_path: Path) -> None:
    now = read_finished(run.workspace, "site-1").path
    path = tmp_path / now.name
    shutil.copy(now, path)
    record = json.loads(load_tensors(path)[1]["record"])
    rewrite(path, record=json.dumps({**record, "restored_rounds": 0}))
    with pytest.raises(ExportError, match=r"site-1 has trained no round.*--site shared"):
        read_personal(path, "site-1")


def test_what_nobody_has_trained_is_no_shared_model(run: Run) -> None:
    results = run.workspace / "results.json"
    content = json.loads(results.read_text())
    entries = [{"round": number, "sites": {"site-1": {"bytes_sent": 600}}} for number in range(run.plan.rounds)]
    write_json(results, {**content, "status": "incomplete", "rounds": entries})
    with pytest.raises(ExportError, match=r"nobody has trained it.*refused"):
        read_finished(run.workspace, "shared")
    entries[1]["sites"] = {"site-1": {"round": 1, "cases": 20}}
    write_json(results, {**content, "status": "incomplete", "rounds": entries})
    assert read_finished(run.workspace, "shared").test == {}


@pytest.mark.parametrize("change", ["running", "other plan", "site missing", "best model", "no results"])
def test_metrics_of_something_else_are_not_taken(run: Run, change: str) -> None:
    path, results = run.workspace / "shared.safetensors", run.workspace / "results.json"
    content = json.loads(results.read_text())
    if change == "running":
        content["status"] = "running"
    elif change == "other plan":
        content["plan"]["experiment"] = "lungs"
    elif change == "site missing":
        del content["final"]["clinic-b"]
    elif change == "best model":
        rewrite(path, round="1")
    results.write_text(json.dumps(content))
    if change == "no results":
        results.unlink()
    assert read_shared(path).test == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "clinic-b"}, r"is the model of 'clinic-b', not of 'site-1'"),
        ({"site": None}, r"is the model of None"),
        ({"plan": None}, "carries no plan"),
        ({"plan": "{"}, "cannot read"),
        ({"plan": '{"experiment": "x"}'}, "cannot read"),
        ({"fingerprint": "0" * 64}, "contradicts its own plan"),
        ({"record": None}, "no record of a finished run"),
        ({"record": '{"round": 1}'}, "no record of a finished run"),
        ({"record": "[]"}, "no record of a finished run"),
        ({"add": {"optimiser/x": torch.zeros(1)}}, "belongs to no final model"),
    ],
)
def test_file_that_contradicts_itself_is_refused(run: Run, change: dict[str, Any], message: str) -> None:
    rewrite(run.personal(), **change)
    with pytest.raises(ExportError, match=message) as error:
        read_personal(run.personal(), "site-1")
    assert str(run.personal()) in str(error.value)


@pytest.mark.slow
def test_plan_of_another_experiment_is_refused(run: Run, make_run: Callable[..., Run], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", experiment="lungs")
    rewrite(run.personal(), plan=json.dumps(other.plan.to_json()))
    with pytest.raises(ExportError, match="put together from two experiments"):
        read_personal(run.personal(), "site-1")


KEY = "encoder.blocks.2.attn.q.lora_A.shared.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": KEY}, f"lacks {KEY}"),
        ({"drop": "private/"}, r"lacks .*lora_A\.private.* and 4 more"),
        ({"add": {"private/encoder.norm.bias": torch.zeros(24)}}, "encoder.norm.bias is not part"),
        ({"add": {f"shared/{KEY}": torch.zeros(8, 25)}}, "another shape"),
        ({"add": {f"shared/{KEY}": torch.full((8, 24), float("nan"))}}, "NaN"),
    ],
)
def test_tensors_have_to_be_exactly_the_plans(run: Run, change: dict[str, Any], message: str) -> None:
    rewrite(run.personal(), **change)
    model = read_personal(run.personal(), "site-1")
    with pytest.raises(ExportError, match=message) as error:
        rebuild(model, str(run.backbone))
    assert str(run.personal()) in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings_", "message"),
    [
        ("dual_lora", {"head": "private"}, "a part that it needs, such as the head, is private"),
        ("fedit", {"head": "private"}, "a part that it needs, such as the head, is private"),
        ("local", {}, "share nothing"),
    ],
)
def test_methods_without_a_shared_model_say_why(
    make_run: Callable[..., Run], method: str, settings_: dict[str, Any], message: str
) -> None:
    run = make_run(method=method, method_args=settings_)
    with pytest.raises(ExportError, match=message):
        rebuild(read_finished(run.workspace, "shared"), str(run.backbone))


def test_shared_file_without_round_is_refused(run: Run) -> None:
    rewrite(run.workspace / "shared.safetensors", round="-1")
    with pytest.raises(ExportError, match="after which round"):
        read_shared(run.workspace / "shared.safetensors")


@given(data=st.data())
@settings(max_examples=25)
def test_damaged_files_never_pass(stored_run: Run, tmp_path_factory: Any, data: st.DataObject) -> None:
    content = bytearray(stored_run.personal().read_bytes())
    header = int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(0, header + 7))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "final.safetensors"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, place]))])
    try:
        model = read_personal(path, "site-1")
        network = rebuild(model, str(stored_run.backbone))
    except FedLoraError as error:
        assert str(path) in str(error)
    else:  # what changed was a number in the record, or a setting that the trained tensors do not depend on
        image = torch.ones(1, 2, *MICRO.image_size)
        with torch.no_grad():
            assert torch.equal(network(image), stored_run.networks["site-1"](image))


def test_backbone_comes_from_the_argument_then_the_site(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backbone(run.plan, str(run.backbone)) == str(run.backbone)
    monkeypatch.setenv(BACKBONE, os.fspath(run.backbone))
    assert find_backbone(run.plan, None) == str(run.backbone)


def test_wrong_backbone_is_named(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"x")
    with pytest.raises(ExportError, match=r"other\.safetensors is not the backbone") as error:
        find_backbone(run.plan, str(other))
    assert sha256(other) in str(error.value)
    assert run.plan.backbone_sha256 in str(error.value)
    with pytest.raises(ExportError, match="found no file"):
        find_backbone(run.plan, str(tmp_path / "nothing.safetensors"))


def test_default_backbone_that_does_not_fit_asks_for_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = tmp_path / "demo.safetensors"
    demo.write_bytes(b"x")
    monkeypatch.setattr("monai_fedlora.exporting.finished.demo_weights", lambda size: demo)
    with pytest.raises(ExportError, match=r"no other file was given.*--backbone"):
        find_backbone(run.plan, None)


def test_size_without_demo_weights_asks_for_a_backbone(run: Run) -> None:
    with pytest.raises(ExportError, match="no demo weights of size micro; give the backbone with --backbone"):
        find_backbone(run.plan, None)


def test_backbone_in_several_files_is_pinned_as_a_whole(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
    for part in "12":
        (folder / f"{part}.safetensors").write_text(part)
    pinned = replace(run.plan, backbone_sha256=backbone_sha256(folder))
    assert find_backbone(pinned, str(folder)) == str(folder)
    (folder / "2.safetensors").write_text("3")
    with pytest.raises(ExportError, match="is not the backbone"):
        find_backbone(pinned, str(folder))


def test_backbone_from_the_hub_is_left_to_its_loader(run: Run) -> None:
    assert find_backbone(run.plan, "hf://owner/repo/file.safetensors") == "hf://owner/repo/file.safetensors"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/user/cinema.safetensors", "cinema.safetensors"),
        ("/data/$run@x#1.safetensors", "_run_x_1.safetensors"),
        ("hf://owner/repo/a.safetensors", "hf://owner/repo/a.safetensors"),
    ],
)
def test_backbone_name_is_plain(source: str, name: str) -> None:
    assert backbone_name(source) == name


def test_truncated_results_are_named(run: Run) -> None:
    (run.workspace / "results.json").write_text("{")
    with pytest.raises(FedLoraError, match=r"results\.json"):
        read_shared(run.workspace / "shared.safetensors")


def test_unreadable_file_is_a_weights_error(run: Run) -> None:
    run.personal().write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"final\.safetensors"):
        read_personal(run.personal(), "site-1")
