"""The pretended GPU itself: it refuses what CUDA refuses, and sees what a program waits for."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional

from tests.pretended_gpu import PretendedGPU

MIXED = "same device"


def test_tensors_say_where_they_lie(gpu: PretendedGPU) -> None:
    host, device = torch.ones(3), torch.ones(3, device="cuda")
    assert (host.device.type, host.is_cuda, host.is_cpu, host.get_device()) == ("cpu", False, True, -1)
    assert (device.device, device.is_cuda, device.is_cpu, device.get_device()) == (gpu_zero(), True, False, 0)
    made: dict[str, Any] = {
        "a view": device[1:],
        "a result": device * 2,
        "in place": device.add_(1),
        "a parameter": nn.Parameter(device),
        "detached": device.detach(),
        "data": device.data,
        "like": torch.zeros_like(device),
        "new": device.new_zeros(2),
        "new with content": device.new_tensor([1.0]),
        "from numbers": torch.tensor([1.0], device="cuda:0"),
        "as a tensor": torch.as_tensor(np.ones(2), device="cuda"),
        "stacked": torch.stack([device, device]),
        "copied": copy.deepcopy(device),
        "moved": host.to("cuda"),
        "moved to another's place": host.to(device),
        "by name": host.cuda(),
        "of MONAI": MetaTensor(device),
        "MONAI's, moved": MetaTensor(host).to("cuda"),
        "of another type": device.double(),
        "by a generator of sizes": torch.arange(3, device=device.device),
        "one-hot": functional.one_hot(torch.tensor([0, 1], device="cuda"), 2),
    }
    assert {name for name, tensor in made.items() if not tensor.is_cuda} == set()
    back: dict[str, Any] = {
        "cpu": device.cpu(),
        "to": device.to("cpu"),
        "to a type": device.to("cpu", torch.float64),
        "like on the host": torch.zeros_like(device, device="cpu"),
        "new on the host": device.new_zeros(2, device="cpu"),
        "of the host": torch.zeros(2),
        "MONAI's": MetaTensor(device).cpu(),
    }
    assert {name for name, tensor in back.items() if tensor.is_cuda} == set()
    assert not host.is_cuda
    assert device.to("cuda") is device
    assert host.to("cpu") is host


def gpu_zero() -> torch.device:
    return torch.device("cuda:0")


def test_modules_move_with_their_buffers_and_keep_their_parameters(gpu: PretendedGPU) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = [*network.parameters()]
    network.to("cuda")
    assert all(one is other for one, other in zip(before, network.parameters(), strict=True))
    assert all(tensor.is_cuda for tensor in network.state_dict().values())
    network.load_state_dict({key: value.cpu() for key, value in network.state_dict().items()})
    assert all(tensor.is_cuda for tensor in copy.deepcopy(network).state_dict().values())
    assert network.cpu()[0].weight.device.type == "cpu"


def weighted(host: torch.Tensor, device: torch.Tensor) -> Any:
    return functional.cross_entropy(device, torch.zeros(3, dtype=torch.long, device="cuda"), weight=host[0])


MIXES = {
    "a sum": lambda host, device: device + host,
    "in place": lambda host, device: device.mul_(host),
    "into the host": lambda host, device: host.add_(device),
    "into the host, a number": lambda host, device: host.add_(device[0, 0]),
    "a product": lambda host, device: device @ host,
    "stacking": lambda host, device: torch.stack([device, host]),
    "stacking numbers": lambda host, device: torch.stack([device[0, 0], host[0, 0]]),
    "a host's tensor by indices of the device": lambda host, device: host[device.long()],
    "putting": lambda host, device: device.index_put_((device[0].long(),), host),
    "a loss": weighted,
    "a linear layer": lambda host, device: functional.linear(device, host),
    "several at once": lambda host, device: torch._foreach_add([device, device], [device, host]),
    "dot": lambda host, device: torch.dot(device[0], host[0]),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_mix_is_refused(gpu: PretendedGPU, mix: Any) -> None:
    with pytest.raises(RuntimeError, match=MIXED):
        mix(torch.ones(3, 3), torch.ones(3, 3, device="cuda"))


def test_what_cuda_allows_across_devices_is_allowed(gpu: PretendedGPU) -> None:
    host, device = torch.tensor(2.0), torch.ones(3, 3, device="cuda")
    assert all(made.is_cuda for made in (device * host, host + device, device.clone().fill_(host), 3 - device))
    assert torch.where(device > 0, host, device).is_cuda
    device[0] = host
    device[1] = torch.zeros(3)
    device.copy_(torch.ones(3, 3))
    assert device[torch.tensor([0, 1])].is_cuda


def test_a_mix_within_the_backward_pass_is_refused(gpu: PretendedGPU) -> None:
    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * torch.full((3,), 2.0)

    x = torch.ones(3, device="cuda", requires_grad=True)
    loss = Careless.apply(x).sum()
    with pytest.raises(RuntimeError, match=MIXED):
        loss.backward()


def test_a_wait_within_the_backward_pass_is_counted(gpu: PretendedGPU) -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    doubled = x * 2
    doubled.register_hook(lambda gradient: gradient if gradient.isfinite().all() else None)
    with gpu.watched() as seen:
        doubled.sum().backward()
    assert [event.operation for event in seen.events] == ["item"]
    assert x.grad is not None and x.grad.is_cuda


def test_gradients_are_those_of_the_processor(gpu: PretendedGPU) -> None:
    def gradients(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 5))
        images, labels = torch.randn(2, 3, 6, 6), torch.tensor([0, 3])
        network.to(device)
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(network(images.to(device)), labels.to(device))
        loss.backward()
        assert all(parameter.grad.device.type == device for parameter in network.parameters())
        return [parameter.grad.cpu() for parameter in network.parameters()]

    assert all(map(torch.equal, gradients("cuda"), gradients("cpu")))


WAITS = {
    "item": lambda device: device[0].item(),
    "float": lambda device: float(device[0]),
    "truth": lambda device: bool(device[0] > 0),
    "a list": lambda device: device.tolist(),
    "comparison": lambda device: torch.equal(device, device),
    "to the host": lambda device: device.cpu(),
    "to the host by its name": lambda device: device.to(torch.device("cpu")),
    "into a tensor of the host": lambda device: torch.empty(3).copy_(device),
    "what is not zero": lambda device: device.nonzero(),
    "a mask": lambda device: device[device > 0],
    "a mask of the host": lambda device: device[torch.tensor([True, False, True])],
    "indices of the host": lambda device: device[torch.tensor([0, 1])],
    "from the host": lambda device: torch.ones(3).to("cuda"),
    "numbers": lambda device: torch.tensor([1.0], device="cuda"),
    "different values": lambda device: device.unique(),
    "until all is done": lambda device: torch.cuda.synchronize(),
    "a condition": lambda device: 1 if device.sum() > 0 else 0,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_whatever_the_host_waits_for_is_counted_once(gpu: PretendedGPU, wait: Any) -> None:
    device = torch.ones(3, device="cuda")
    with gpu.watched() as seen:
        wait(device)
    assert sum(seen.waits.values()) == 1
    assert "test_pretended_gpu.py" in str(seen.events[0])


def test_what_the_host_does_not_wait_for_is_not_counted(gpu: PretendedGPU) -> None:
    device, host = torch.ones(3, device="cuda"), torch.ones(3)
    with gpu.watched() as seen:
        found = device * 2 + 1
        found[0] = 3.0
        found[found > 2] = 0.0
        torch.where(found > 0, found, device).softmax(0).argmax()
        found.isfinite().all()
        torch.zeros(3, device="cuda")
        found.repeat_interleave(torch.ones(3, dtype=torch.long, device="cuda"), output_size=3)
        nn.utils.clip_grad_norm_([nn.Parameter(device)], 1.0)
        host.sum().item()
        host.to("cuda", non_blocking=True)
    assert not seen.waits
    assert sum(seen.to_device.values()) == 1


def test_arrays_are_refused(gpu: PretendedGPU) -> None:
    device = torch.ones(3, device="cuda")
    for make in (torch.Tensor.numpy, np.asarray, np.array):
        with pytest.raises(TypeError, match="numpy"):
            make(device)
    assert device.numpy(force=True).tolist() == device.cpu().numpy().tolist() == [1, 1, 1]


def test_a_generator_of_the_host_is_refused(gpu: PretendedGPU) -> None:
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(2, device="cuda", generator=torch.Generator())


OPTIMISERS: dict[str, Any] = {
    "fused": lambda parameters: torch.optim.AdamW(parameters, fused=True),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, foreach=True),
    "one by one": lambda parameters: torch.optim.AdamW(parameters, foreach=False),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_an_optimiser_steps_and_goes_on_from_what_was_stored(gpu: PretendedGPU, make: Any) -> None:
    def step(optimiser: Any, layer: nn.Linear) -> None:
        layer(torch.ones(2, 3, device="cuda")).sum().backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimiser.step()

    layer = nn.Linear(3, 2, device="cuda")
    optimiser = make(layer.parameters())
    step(optimiser, layer)
    stored = torch.utils._pytree.tree_map(
        lambda value: value.cpu() if isinstance(value, torch.Tensor) else value, optimiser.state_dict()
    )
    fresh = make(layer.parameters())
    fresh.load_state_dict(stored)
    with gpu.watched() as seen:
        step(fresh, layer)
    assert not seen.waits
    assert all(tensor.is_cuda for slots in fresh.state.values() for tensor in slots.values() if tensor.dim())


def test_counters_of_a_fused_optimiser_may_not_stay_on_the_host(gpu: PretendedGPU) -> None:
    layer = nn.Linear(3, 2, device="cuda")
    optimiser = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(2, 3, device="cuda")).sum().backward()
    optimiser.step()
    for slots in optimiser.state.values():
        slots["step"] = slots["step"].cpu()
    with pytest.raises(RuntimeError, match="state_steps"):
        optimiser.step()


def test_counters_of_another_optimiser_make_the_host_wait_on_the_device(gpu: PretendedGPU) -> None:
    layer = nn.Linear(3, 2, device="cuda")
    optimiser = torch.optim.AdamW(layer.parameters(), foreach=True)
    layer(torch.ones(2, 3, device="cuda")).sum().backward()
    optimiser.step()
    for slots in optimiser.state.values():
        slots["step"] = slots["step"].to("cuda")
    with gpu.watched() as seen:
        optimiser.step()
    assert sum(seen.waits.values()) >= 2


def test_gradients_come_back_from_the_other_device(gpu: PretendedGPU) -> None:
    x = torch.ones(3, requires_grad=True)
    (x.to("cuda") * 2).cpu().sum().backward()
    assert x.grad is not None
    assert not x.grad.is_cuda
    assert x.grad.tolist() == [2, 2, 2]


def test_mixed_precision_of_the_device_holds_there(gpu: PretendedGPU) -> None:
    layer, x = nn.Linear(3, 2, device="cuda"), torch.ones(1, 3, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
        assert torch.is_autocast_enabled("cuda")
        assert layer(x).softmax(-1).dtype is functional.layer_norm(layer(x), (2,)).dtype is torch.float32
        assert torch.cat([x.half(), x.half()]).dtype is torch.float16
        with torch.autocast("cuda", enabled=False):
            assert layer(x).dtype is torch.float32
    assert layer(x).dtype is torch.float32


def test_memory_is_counted_and_runs_out(gpu: PretendedGPU) -> None:
    gpu.memory = 4000
    kept = torch.zeros(500, device="cuda")
    views = kept[1:], kept.view(5, 100)
    assert torch.cuda.memory_allocated() == 2000
    assert torch.cuda.mem_get_info() == (2000, 4000)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        kept.double()
    del kept, views
    gc.collect()
    assert (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()) == (0, 2000)


def test_nothing_of_it_is_left_behind() -> None:
    assert not torch.cuda.is_available()
    assert "device" not in vars(torch.Tensor)
    assert torch.ones(2).device.type == "cpu"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.ones(2, dtype=torch.bfloat16).softmax(-1).dtype is torch.bfloat16
