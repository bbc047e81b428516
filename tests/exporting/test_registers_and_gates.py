"""A network with registers, gated MLPs and layer scale, from its weights to a checked bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_fedlora as fl
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.networks import catalogue
from monai_fedlora.networks.unetr import ViTUNETR
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from tests.exporting.finished_runs import MICRO_VIT, finished_run, write_backbone

GATED = ViTSettings(
    image_size=(32, 32),
    patch=8,
    dim=24,
    depth=3,
    n_heads=2,
    mlp_ratio=64 / 24,
    gated=True,
    registers=3,
    layer_scale=True,
)


@pytest.mark.parametrize("family", [VisionTransformer, ViTUNETR])
def test_it_can_be_cut_before_any_block(family: Any) -> None:
    torch.manual_seed(0)
    network, x = family(GATED, out_chans=2).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for block in range(GATED.depth + 1):
            torch.testing.assert_close(network.suffix(network.prefix(x, block), block), network(x), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_run_of_it_is_exported_and_passes_the_check(
    tmp_path: Path, micro: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.IMAGE_SIZES, "micro_gated", replace(MICRO_VIT, name="micro_gated", shape=GATED))
    backbone = write_backbone(tmp_path / "gated.safetensors", "micro_gated")
    run = finished_run(tmp_path / "W", backbone, size="micro_gated", method="fedopal", training={"style": "dermoscopy"})
    exported = export_bundle(**run.options(tmp_path / "B"))
    assert check_bundle(exported.folder, run=True).passed
    image = torch.rand(2, 3, 32, 32)
    plain = catalogue.build_backbone("micro_gated", out_chans=2).eval()
    plain.load_state_dict(torch.load(exported.folder / "models" / "model.pt", weights_only=True), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(image), run.networks["site-1"](image), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_sites_train_it_together(tmp_path: Path) -> None:
    def data(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(6, 3, 32, 32, generator=generator), torch.arange(6) % 2

    sites = {name: fl.SiteData(train=data(seed), test=data(seed + 9)) for seed, name in enumerate(("north", "south"))}
    options: dict[str, Any] = {"classes": ("a", "b"), "rounds": 1}
    run = fl.federate(lambda: VisionTransformer(GATED, out_chans=2), fl.method("dual_lora", rank=2), sites, **options)
    exported = run.export("north", tmp_path / "B")
    assert check_bundle(exported.folder, run=True).passed
