"""Methods that compare images with texts: an export has the texts' features, and neither a tower nor a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.finished import read_finished, rebuild
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.verify import exported_view, logits
from monai_fedlora.methods import get_method
from monai_fedlora.networks.prompts import Prompts
from tests.methods.federation import NEED_TEXTS
from tests.networks.clip import write_towers

from .finished_runs import Run, finished_run

PROMPTS = Prompts(class_texts={"NOR": "a mole", "ABN": "melanoma"})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a CLIP with random weights."""
    return write_towers(tmp_path_factory.mktemp("clip"))


def run_of(clip: Path, workspace: Path, method: str, **settings: Any) -> Run:
    return finished_run(
        workspace,
        clip,
        size="clip_demo",
        method=method,
        method_args=settings,
        sites=("site-1",),
        prompts=PROMPTS,
        training={"style": "dermoscopy"},
    )


METHODS = [*((name, {}) for name in (*NEED_TEXTS, "pfedst")), ("prompt_tuning", {"start": "random"})]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), METHODS, ids=lambda value: str(value))
def test_the_plain_network_computes_what_the_method_trained(
    clip: Path, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    run = run_of(clip, tmp_path / "W", method, **settings)
    image = modality_of(run.plan).probe()
    for site in ("site-1", "shared"):
        model = read_finished(run.workspace, site)
        network = rebuild(model, str(clip))
        with exported_view(model, network):
            expected = logits(network, image)
            merge_lora(network)
        torch.testing.assert_close(logits(network, image), expected, rtol=0, atol=1e-5)
        head = {key for key in network.state_dict() if key.startswith("head.") and ".adapter." not in key}
        assert head == {"head.text", "head.projection", "head.logit_scale"}
        with exported_view(model, run.networks["site-1"]):
            torch.testing.assert_close(logits(run.networks["site-1"], image), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt_tuning", "clip_adapter"])
def test_an_export_has_the_learned_part_and_no_tower(clip: Path, tmp_path: Path, method: str) -> None:
    run = run_of(clip, tmp_path / "W", method)
    exported = export_bundle(**run.options(tmp_path / "bundle"))
    state = torch.load(exported.folder / "models" / "model.pt", weights_only=True)
    assert not any("tower" in key or "context" in key for key in state)
    head: Any = run.networks["site-1"].head
    if method == "prompt_tuning":
        with torch.no_grad():
            torch.testing.assert_close(state["head.text"], head.texts(), rtol=0, atol=1e-6)
            assert not torch.allclose(state["head.text"], head.cosine.text, atol=1e-2)
    else:
        assert torch.equal(state["head.adapter.second.weight"], head.adapter.second.weight)


@pytest.mark.slow
def test_a_model_of_which_nothing_trains_can_be_handed_to_anybody(clip: Path, tmp_path: Path) -> None:
    run = run_of(clip, tmp_path / "W", "clip_zero_shot")
    assert get_method("clip_zero_shot").scope(run.networks["site-1"]).manifest.entries == {}
    assert read_finished(run.workspace, "shared").tensors == {}
    assert read_finished(run.workspace, "site-1").tensors == {}
