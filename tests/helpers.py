"""A network, a plan and tensors that take milliseconds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.update import Update
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.text_head import CosineHead, put_head
from monai_fedlora.networks.text_reader import TextReader
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.scope import Entry, Manifest
from monai_fedlora.site_report import MetricsForm


def fast_in_part(values: Iterable[Any], *, of: int = 3) -> list[Any]:
    """Parameters of a test that shows the same for each: one of every few for the fast tests, the rest for the slow."""
    return [pytest.param(value, marks=pytest.mark.slow if place % of else ()) for place, value in enumerate(values)]


def tiny_network(*, seed: int = 0, depth: int = 3, **changes: Any) -> ConvViT:
    """A ConvViT of 24 dimensions on images of (2, 16, 16, 2), in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvViT(
            **{
                "image_size": (16, 16, 2),
                "n_frames": 2,
                "out_chans": 2,
                "patch_size": (2, 2, 1),
                "scale_factor": (2, 2, 1),
                "conv_chans": (4, 8),
                "conv_n_blocks": 1,
                "embed_dim": 24,
                "depth": depth,
                "n_heads": 2,
                **changes,
            }
        )
    return network.eval()


def tiny_images(count: int = 2, *, seed: int = 1) -> Tensor:
    """Images that :func:`tiny_network` takes."""
    return torch.randn(count, 2, 16, 16, 2, generator=torch.Generator().manual_seed(seed))


def tiny_vit(*, seed: int = 0, depth: int = 3, out_chans: int = 2, **changes: Any) -> VisionTransformer:
    """A vision transformer of 24 dimensions on colour images of (16, 16), in evaluation mode."""
    settings = {"image_size": (16, 16), "patch": 4, "dim": 24, "n_heads": 2, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VisionTransformer(ViTSettings(depth=depth, **settings), out_chans=out_chans)
    return network.eval()


def tiny_photographs(count: int = 2, *, seed: int = 1) -> Tensor:
    """Images that :func:`tiny_vit` takes."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


ROTARY: dict[str, Any] = {"positions": "rotary", "registers": 2, "key_bias": False, "layer_scale": True, "gated": True}
CLIP_TOWER: dict[str, Any] = {"pre_norm": True, "activation": "quick_gelu", "patch_bias": False}
"""How CLIP's image encoder differs from a plain vision transformer."""


def tiny_clip(*, seed: int = 0, depth: int = 3) -> VisionTransformer:
    """A :func:`tiny_vit` of CLIP's kind that compares with the texts of two classes, and the reader of these texts."""
    network = tiny_vit(seed=seed, depth=depth, **CLIP_TOWER)
    settings = TextSettings(context=9, vocabulary=12, dim=8, depth=2, n_heads=2, embed_dim=10)
    tower = TextTransformer(settings).eval().requires_grad_(False)
    randomise(tower, "", seed=seed + 50, scale=0.5)
    start, end, words = 10, settings.end_token, [1, 2, 3]
    ids = torch.tensor([[start, *words, 4, end, end], [start, *words, 5, 6, end]])
    head = CosineHead(n_classes=2, embed_dim=10, dim=24)
    head.projection.copy_(torch.randn(10, 24, generator=torch.Generator().manual_seed(seed + 51)))
    head.logit_scale.fill_(2.0)
    with torch.no_grad():
        head.text.copy_(functional.normalize(tower(ids), dim=-1))
    head.reader = TextReader(tower=tower, ids=ids, start=1, before=len(words), context=settings.context)
    put_head(network, head)
    return network.eval()


def randomise(network: torch.nn.Module, *parts: str, seed: int = 2, scale: float = 0.3) -> None:
    """Fill the parameters whose name holds one of ``parts`` with normal values of standard deviation ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if any(part in name for part in parts):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def for_methods(names: Iterable[str], *, always: Collection[str]) -> list[Any]:
    """Parameters of a slow test, marked ``long`` but for the methods that differ most in what the test is about."""
    listed = list(names)
    assert set(always) <= set(listed), "a method that is always tested has another name"
    return [name if name in always else pytest.param(name, marks=pytest.mark.long) for name in listed]


def make_plan(**changes: Any) -> Plan:
    """A valid plan for two sites."""
    settings: dict[str, Any] = {
        "experiment": "trial",
        "bundle": "cine",
        "method": "dual_lora",
        "sites": ("north", "south"),
        "classes": ("NOR", "ABN"),
        "rounds": 2,
        "backbone_sha256": "0" * 64,
    }
    return Plan(**{**settings, **changes})


def make_manifest(dtype: str = "float32") -> Manifest:
    """Three tensors, one of them a scalar."""
    return Manifest({"a": Entry((2, 3), dtype), "b.weight": Entry((4,), dtype), "c": Entry((), dtype)})


def make_payload(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    """What a manifest declares, with normal values."""
    generator = np.random.default_rng(seed)
    return {
        key: np.array(generator.normal(size=entry.shape), dtype=entry.dtype)
        for key, entry in sorted(manifest.entries.items())
    }


def make_update(tensors: Any, report: Any = None) -> Update:
    """What a site sends: tensors as they travel, and a report about two classes."""
    return Update.read(tensors, report or {}, form=MetricsForm(classes=2))


def scored(balanced_accuracy: float) -> dict[str, Any]:
    """Metrics of 2,000 cases of two classes; the accuracy has three decimals."""
    hits = round(1000 * balanced_accuracy)
    return {"balanced_accuracy": hits / 1000, "n": 2000, "confusion_matrix": [[hits, 1000 - hits], [1000 - hits, hits]]}


def through_json(value: Any) -> Any:
    """What is left of a value after it was a file."""
    return json.loads(json.dumps(value))
