"""Segmentation of hearts through the shared parts of the bundles' configs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.methods.base import get_method
from monai_fedlora.networks.convunetr import ConvUNetR
from tests.bundles.shipped import CINE

SETTINGS = {"class_weights": None, "label_smoothing": 0.0, "selection_metric": "dice"}


@pytest.fixture(scope="module")
def masked_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of three phantoms with masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        few = PhantomSettings(training=1, validation=1, test=1, task="segmentation")
        return site_data("site-1", settings=few)


@pytest.mark.parametrize("head", ["shared", "private"])
def test_a_datalist_with_masks_gets_the_decoder_and_adapters_in_the_encoder(masked_site: Path, head: str) -> None:
    workflow = CINE.workflow("train", dataset_dir=str(masked_site), method_args={"head": head}, **SETTINGS)
    workflow.initialize()
    network = workflow.network_def
    assert isinstance(network, ConvUNetR)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if "lora_" in name}
    assert {name.split(".")[0] for name in adapters} == {"encoder"}
    assert {part for name in adapters for part in (SHARED, PRIVATE) if f".{part}." in name} == {SHARED, PRIVATE}
    decoder = {name for name, _ in network.named_parameters() if name.startswith(network.head_prefixes)}
    assert trained == adapters | decoder
    method = get_method("dual_lora", {"head": head})
    travels = {name for name in trained if method.is_shared(name, network)}
    assert travels == {name for name in adapters if f".{SHARED}." in name} | (decoder if head == "shared" else set())
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 48, 48, 8)).shape == (1, 2, 4, 48, 48, 8)
