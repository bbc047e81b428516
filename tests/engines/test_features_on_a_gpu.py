"""Features on the pretended GPU: bounded, counted, away when a site rests or memory is short, and never wrong."""

from __future__ import annotations

import gc

import pytest
import torch
from monai.transforms import Compose

from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.evidence import plain_outputs
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.on_device import held_on
from monai_fedlora.errors import OutOfMemory
from tests.engines.test_features import Named, network
from tests.pretended_gpu import GPU, PretendedGPU

IMAGES = torch.rand(4, 2, 16, 16, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def expected() -> torch.Tensor:
    gc.collect()  # a trainer of another test, which refers to itself, holds its features until then
    with torch.no_grad():
        return FrozenInferer()(Named(IMAGES), network())


def test_they_stay_there_within_their_share_until_a_rest(expected: torch.Tensor, gpu: PretendedGPU) -> None:
    built, inferer, views = network().to(GPU), FrozenInferer(), Named(IMAGES)
    gpu.memory = gpu.allocated + 64 * 2**20
    with torch.no_grad():
        torch.testing.assert_close(inferer(views, built).cpu(), expected)
        assert 0 < held_on(GPU) <= 16 * 2**20
        with gpu.watched() as seen:
            torch.testing.assert_close(inferer(views, built).cpu(), expected)
        assert sum(seen.to_device.values()) == 0
        before, held = gpu.allocated, held_on(GPU)
        inferer.rest()
        gc.collect()
        assert (held_on(GPU), gpu.allocated) == (0, before - held)
        torch.testing.assert_close(inferer(views, built).cpu(), expected)
    assert held_on(GPU) > 0


def test_a_gpu_without_memory_for_them_trains_from_the_host(
    expected: torch.Tensor, gpu: PretendedGPU, caplog: pytest.LogCaptureFixture
) -> None:
    built, inferer, views = network().to(GPU), FrozenInferer(), Named(IMAGES)
    inferer._room = lambda device: 10**9  # as the GPU said before another program took its memory
    gpu.memory = gpu.allocated + 2 * 2**20
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(inferer(views, built).cpu(), expected)
    assert held_on(GPU) == 0
    assert [record.message[:28] for record in caplog.records] == ["cuda:0 has no memory left: k"]


def test_too_little_memory_for_one_case_says_what_helps(gpu: PretendedGPU) -> None:
    built, inferer = network().to(GPU), FrozenInferer()
    gpu.memory = gpu.allocated
    with pytest.raises(OutOfMemory, match=r"features of one case on cuda:0 \(CUDA out of memory.*bf16.*fewer sites"):
        inferer(Named(IMAGES), built)


def test_evidence_is_computed_there_from_what_is_kept(gpu: PretendedGPU) -> None:
    data = CaseDataset([{"image": image, "label": 0} for image in IMAGES], Compose([]))
    built, inferer = network().to(GPU), FrozenInferer()
    for precision in ("bf16", "off"):
        found = plain_outputs(built, data, inferer=inferer, device=GPU, batch_size=2, mixed_precision=precision)
        for key in ("logits", "features"):
            assert (found[key].device.type, found[key].dtype) == ("cpu", torch.float32)
    assert held_on(GPU) > 0
