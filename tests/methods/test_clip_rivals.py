"""What CLIP's readers compare pFedST with: where it begins, what it needs in memory, what a server needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks.prompts import Prompts
from tests.networks.clip import write_towers

CLASSES = ("NV", "MEL", "BKL")
PROMPTS = Prompts(
    templates=("a photo of {class}", "{class}, close up"),
    class_texts={"NV": "a mole", "MEL": "melanoma", "BKL": "a mole of skin"},
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a CLIP with random weights."""
    return str(write_towers(tmp_path_factory.mktemp("clip")))


def build(clip: str, method: str, **settings: Any) -> Any:
    common = {"size": "clip_demo", "out_chans": 3, "backbone": clip, "classes": CLASSES, "prompts": PROMPTS}
    return build_network(**{**common, "method": method, **settings}).eval()


@pytest.mark.slow
@torch.no_grad()
def test_what_reads_texts_begins_as_zero_shot_clip(clip: str, tmp_path: Path) -> None:
    """Of several prompts learned words begin with the first."""
    images = torch.randn(2, 3, 64, 64)
    zero_shot = build(clip, "clip_zero_shot", text_cache=tmp_path)(images)
    for method, settings in (("clip_adapter", {}), ("clip_adapter", {"form": "residual"}), ("pfedst", {})):
        assert torch.equal(build(clip, method, method_args=settings)(images), zero_shot)
    first = Prompts(templates=PROMPTS.templates[:1], class_texts=PROMPTS.class_texts)
    expected = build(clip, "clip_zero_shot", prompts=first)(images)
    torch.testing.assert_close(build(clip, "prompt_tuning")(images), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, zero_shot, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip_adapter", "clip_zero_shot", "pfedst", "prompt_tuning"])
def test_without_weights_a_network_that_reads_texts_has_the_same_shapes(clip: str, method: str) -> None:
    shapes = {key: value.shape for key, value in build(clip, method).state_dict().items()}
    with torch.device("meta"):
        empty = build_network(size="clip_demo", out_chans=3, backbone="untrained", method=method)
    assert {key: value.shape for key, value in empty.state_dict().items()} == shapes


@pytest.mark.slow
@pytest.mark.parametrize("start", ["words", "random"])
@pytest.mark.parametrize("method", ["clip_adapter", "prompt_tuning"])
def test_a_server_without_weights_draws_what_a_site_would(clip: str, method: str, start: str) -> None:
    settings = {"start": start} if method == "prompt_tuning" else {}
    one, other = (build(source, method, method_args=settings, seed=4) for source in (clip, "untrained"))
    drawn = {key: value for key, value in one.named_parameters() if value.requires_grad}
    assert all(torch.equal(value, other.get_parameter(key)) for key, value in drawn.items())
    assert any(value.any() for value in drawn.values()) == (start == "random" or method == "clip_adapter")


@pytest.mark.slow
def test_the_tower_is_in_memory_only_where_texts_train(clip: str) -> None:
    towers = {
        method: any("tower" in key for key in build(clip, method).state_dict())
        for method in ("clip_zero_shot", "clip_adapter", "prompt_tuning", "pfedst", "linear_probe")
    }
    assert {method for method, has_tower in towers.items() if has_tower} == {"prompt_tuning"}


@pytest.mark.parametrize("method", ["clip_adapter", "clip_zero_shot", "prompt_tuning"])
def test_a_size_without_texts_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} compares images with texts: a vit_demo network cannot read texts"):
        build_network(size="vit_demo", out_chans=2, backbone="untrained", method=method)
