from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monai_fedlora import files
from monai_fedlora.api.backbone_pretraining import pretrain_supervised
from monai_fedlora.engines.photo_pretraining import photo_lesson
from monai_fedlora.networks.catalogue import architecture, build_backbone
from monai_fedlora.networks.weights import load_backbone


def test_the_area_that_is_learned_is_that_of_the_mask_beside_it() -> None:
    """A disc at the edge, of which shifting cuts a part off or brings another into the picture."""
    lesson = photo_lesson(architecture("vit_demo"), seed=0, device=torch.device("cpu"))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    maps = torch.zeros(6, 6, 64, 64)
    maps[:, 0] = ((x - 4) ** 2 + (y - 32) ** 2 < 200).float()
    numbers = torch.arange(36.0).view(6, 6)
    batch = [torch.rand(6, 3, 64, 64), maps, numbers, torch.zeros(6, 17), torch.zeros(6, dtype=torch.long)]
    _, moved, changed, *_ = lesson.changed(batch, torch.Generator().manual_seed(3))
    standardised = (moved[:, 0].mean(dim=(1, 2)).log() + 1.9) / 0.85
    torch.testing.assert_close(changed[:, 0], standardised)
    assert changed[:, 0].max() - changed[:, 0].min() > 0.1
    assert torch.equal(changed[:, 1:], numbers[:, 1:])


@pytest.mark.slow
def test_pictures_are_learned_and_the_result_is_a_backbone_with_a_standardised_readout(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    quick = {"epochs": 2, "phantoms": 12, "views": 2, "batch_size": 6, "held_out": 8}
    made = pretrain_supervised(output=path, size="vit_demo", device="cpu", **quick)
    assert made.losses[1] < made.losses[0]
    metadata = files.load_tensors(path)[1]
    assert {"size": "vit_demo", "n_images": "24", "readout": "standardised"}.items() <= metadata.items()
    assert set(json.loads(metadata["held_out"])) == {"dice", "correlation", "balanced_accuracy", "signs"}
    assert made.measured.to_json() == json.loads(metadata["held_out"])
    network = build_backbone("vit_demo", out_chans=2)
    load_backbone(network, path)
    assert torch.isfinite(network(torch.rand(2, 3, 64, 64))).all()
