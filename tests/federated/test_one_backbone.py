import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_fedlora.federated.one_backbone import FrozenTensors, return_freed_memory


def network(value: float = 1.0) -> nn.Module:
    built = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.fill_(value)
    return built


def test_equal_frozen_tensors_are_held_once_and_trained_ones_apart() -> None:
    frozen, first, second = FrozenTensors(), network(), network()
    for built in (first, second):
        frozen.share(built, ["0.weight", "0.bias", "1.running_mean"])
    for name in ("0.weight", "0.bias", "1.running_mean"):
        assert first.state_dict()[name].data_ptr() == second.state_dict()[name].data_ptr()
    assert first[2].weight.data_ptr() != second[2].weight.data_ptr()
    with torch.no_grad():
        second[2].weight.fill_(5)
    assert (first[2].weight == 1).all()


def test_what_differs_stays_as_it_is() -> None:
    frozen, first, second, half = FrozenTensors(), network(), network(2.0), network().half()
    for built in (first, second, half):
        frozen.share(built, ["0.weight"])
    assert (second[0].weight == 2).all()
    assert half[0].weight.dtype == torch.float16
    assert (first[0].weight == 1).all()


def test_a_network_trains_on_shared_tensors_as_on_its_own() -> None:
    frozen, images = FrozenTensors(), torch.rand(5, 4)
    alone, shared = network(), network()
    frozen.share(network(), ["0.weight"])
    frozen.share(shared, ["0.weight"])
    for built in (alone, shared):
        built[0].weight.requires_grad_(False)
        built(images).square().sum().backward()
    assert shared[0].weight.grad is None
    assert torch.equal(shared[2].weight.grad, alone[2].weight.grad)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_freed_memory_goes_back_to_the_system_from_between_what_is_in_use() -> None:
    pieces = [torch.zeros(16_000) for _ in range(2000)]  # small enough for the allocator's own heap
    kept = pieces[::100]
    del pieces
    before = resident()
    return_freed_memory()
    assert resident() < before - 64 * 10**6
    assert not any(piece.any() for piece in kept)


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
