"""Adapters as PEFT folders: PEFT reads them back, and a new federation starts from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting import peft_folders as module
from monai_fedlora.exporting.peft_folders import export_peft
from monai_fedlora.federated.initial import build_shared, load_shared, starting_point
from monai_fedlora.files import load_tensors
from monai_fedlora.networks.cinema import convvit
from monai_fedlora.networks.weights import load_backbone

from .finished_runs import MICRO, Run


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def with_peft(run: Run, folder: Path, adapters: list[str]) -> torch.Tensor:
    """Logits of a fresh backbone with a folder's adapters, the way its README says."""
    network: Any = convvit("micro", out_chans=2)
    load_backbone(network, run.backbone)
    for head in folder.rglob("head.safetensors"):
        assert network.load_state_dict(load_tensors(head)[0], strict=False).unexpected_keys == []
    network = PeftModel.from_pretrained(network, str(folder / adapters[0]), adapter_name=adapters[0])
    for name in adapters[1:]:
        network.load_adapter(str(folder / name), adapter_name=name)
    network.base_model.set_adapter(adapters)
    with torch.no_grad():
        return network.eval()(torch.linspace(0, 1, 2 * 32 * 32 * 4).reshape(1, 2, *MICRO.image_size))


def in_memory(run: Run, site: str) -> torch.Tensor:
    with torch.no_grad():
        return run.networks[site](torch.linspace(0, 1, 2 * 32 * 32 * 4).reshape(1, 2, *MICRO.image_size))


def test_peft_reads_both_adapters_back(run: Run, tmp_path: Path) -> None:
    folder = export_peft(**run.options(tmp_path / "B", "clinic-b")).folder
    assert names(folder) == {
        "LICENSE",
        "README.md",
        "metadata.json",
        "private/adapter_config.json",
        "private/adapter_model.safetensors",
        "shared/adapter_config.json",
        "shared/adapter_model.safetensors",
        "shared/head.safetensors",
    }
    found = with_peft(run, folder, [SHARED, PRIVATE])
    torch.testing.assert_close(found, in_memory(run, "clinic-b"), rtol=0, atol=1e-5)


def test_shared_folder_is_the_model_without_private_part(run: Run, tmp_path: Path) -> None:
    folder = export_peft(**run.options(tmp_path / "B", "shared")).folder
    assert not (folder / PRIVATE).exists()
    with run.plan.build_method().shared_only(run.networks["site-1"]):
        expected = in_memory(run, "site-1")
    torch.testing.assert_close(with_peft(run, folder, [SHARED]), expected, rtol=0, atol=1e-5)


def test_new_federation_starts_from_the_shared_folder(run: Run, tmp_path: Path) -> None:
    folder = export_peft(**run.options(tmp_path / "B")).folder
    plan = replace(run.plan, experiment="next", seed=9)
    manifest, fresh = build_shared(plan)
    with starting_point(str(folder / SHARED), plan=plan, manifest=manifest) as (path, _):
        assert path is not None
        started, _ = load_shared(path, manifest=manifest)
    stored, _ = load_shared(run.workspace / "shared.safetensors", manifest=manifest)
    assert started.keys() == stored.keys()
    for key, value in stored.items():
        assert (started[key] == value).all()
    assert any((fresh[key] != value).any() for key, value in stored.items())


@pytest.mark.slow
def test_adapters_of_a_regression_say_which_scale_their_numbers_are_on(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    views = {"personal": {"n": 12, "scaled_error": 5.0}, "shared": {"n": 12, "scaled_error": 6.0}}
    options = {"classes": ("lv_ef", "lv_edv"), "scale": ((55.0, 15.0), (150.0, 50.0)), "given_views": views}
    run = make_run(task="regression", **options)
    found = export_peft(**run.options(tmp_path / "B"))
    assert "lv_ef is 15 times the number plus 55" in found.usage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "adapters", "head"),
    [
        ("dual_lora", {"head": "private"}, [SHARED, PRIVATE], "private/head.safetensors"),
        ("fedit", {"head": "private"}, [SHARED], "private/head.safetensors"),
        ("fedit", {}, [SHARED], "shared/head.safetensors"),
        ("local", {}, [PRIVATE], "private/head.safetensors"),
    ],
)
def test_head_lies_with_its_role(
    make_run: Callable[..., Run],
    tmp_path: Path,
    method: str,
    settings: dict[str, Any],
    adapters: list[str],
    head: str,
) -> None:
    run = make_run(method=method, method_args=settings)
    folder = export_peft(**run.options(tmp_path / "B")).folder
    assert [name for name in names(folder) if "head" in name] == [head]
    torch.testing.assert_close(with_peft(run, folder, adapters), in_memory(run, "site-1"), rtol=0, atol=1e-5)


def test_printed_code_gives_the_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = export_peft(**run.options(tmp_path / "B"))
    code = "\n".join(line[4:] for line in exported.usage.splitlines() if line.startswith("    ") and "job" not in line)
    monkeypatch.chdir(exported.folder)
    scope: dict[str, Any] = {"BACKBONE_FILE": str(run.backbone)}
    exec(code, scope)
    with torch.no_grad():
        found = scope["network"].eval()(torch.linspace(0, 1, 8192).reshape(1, 2, *MICRO.image_size))
    torch.testing.assert_close(found, in_memory(run, "site-1"), rtol=0, atol=1e-5)
    assert exported.usage in (exported.folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "ditto", "flora", "fedex_lora", "fedsa_lora"])
def test_what_no_folder_holds_is_refused(make_run: Callable[..., Run], tmp_path: Path, method: str) -> None:
    run = make_run(method=method)
    with pytest.raises(ExportError, match=f"{method} trains more than adapters and a head"):
        export_peft(**run.options(tmp_path / "B"))
    assert not (tmp_path / "B").exists()


@pytest.mark.slow
def test_a_head_alone_is_no_peft_folder(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(method="linear_probe")
    with pytest.raises(ExportError, match="linear_probe trains no adapter that PEFT knows; export a bundle"):
        export_peft(**run.options(tmp_path / "B"))
    assert not (tmp_path / "B").exists()


@pytest.mark.slow
def test_adapters_that_are_mixed_are_refused_and_the_shared_one_alone_is_not(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run(method="feddpa", method_args={"mix": 0.25})
    with pytest.raises(ExportError, match="feddpa weighs its shared adapter by another number than alpha / r"):
        export_peft(**run.options(tmp_path / "B"))
    folder = export_peft(**run.options(tmp_path / "B", "shared")).folder
    with run.plan.build_method().shared_only(run.networks["site-1"]):
        expected = in_memory(run, "site-1")
    torch.testing.assert_close(with_peft(run, folder, [SHARED]), expected, rtol=0, atol=1e-5)


def test_difference_stops_the_export(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = module.save_peft_folder

    def wrong(network: Any, adapter: str, folder: Path) -> None:
        save(network, adapter, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 17}))

    monkeypatch.setattr(module, "save_peft_folder", wrong)
    with pytest.raises(ExportError, match="PEFT gives other logits"):
        export_peft(**run.options(tmp_path / "B"))
    assert not (tmp_path / "B").exists()


def test_description_names_every_weights_file(run: Run, tmp_path: Path) -> None:
    exported = export_peft(**run.options(tmp_path / "B"))
    listed = json.loads((exported.folder / "metadata.json").read_text())["provenance"]["files_sha256"]
    assert listed.keys() == {name for name in names(exported.folder) if name.endswith(".safetensors")}
