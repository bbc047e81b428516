"""Times on a device by its own clock, what runs there, and what the device could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from _gpu.place import Place

_WARM_UP = 3


def milliseconds(work: Callable[[], Any], place: Place, *, repeats: int) -> dict[str, float]:
    """Median and quartiles of how long a piece of work takes: by CUDA events on a GPU, by the wall on a processor.

    Args:
        work: called with nothing.
        place: where it runs.
        repeats: times that count, after three that do not.
    """
    for _ in range(_WARM_UP):
        work()
    place.synchronise()
    taken = []
    for _ in range(repeats):
        if place.on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end))
        else:
            started = time.perf_counter()
            work()
            taken.append(1e3 * (time.perf_counter() - started))
    quartiles = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    return {"median": quartiles[1], "lower": quartiles[0], "upper": quartiles[2]}


def kernels(work: Callable[[], Any], place: Place) -> dict[str, Any] | None:
    """Of one call: kernels, the milliseconds that they take, and the five that take longest; None on a processor."""
    if not place.on_gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    place.synchronise()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        place.synchronise()
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    by_name: dict[str, float] = {}
    for event in events:
        by_name[event.name] = by_name.get(event.name, 0.0) + event.device_time / 1e3
    longest = sorted(by_name.items(), key=lambda item: -item[1])[:5]
    return {
        "kernels": len(events),
        "busy_milliseconds": sum(by_name.values()),
        "longest": {name[:80]: spent for name, spent in longest},
    }


def ceilings(place: Place) -> dict[str, float]:
    """Operations a second of a large matrix product by type, and bytes a second of a large copy, as measured here."""
    width, copied = place.choose((8192, 2**31), (256, 2**22))
    found = {}
    for name, dtype, allowed in (
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ):
        one, other = (torch.randn(width, width, device=place.device, dtype=dtype) for _ in range(2))
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(allowed)
        taken = milliseconds(lambda one=one, other=other: one @ other, place, repeats=10)["median"]
        torch.set_float32_matmul_precision(before)
        found[f"{name}_operations"] = 2 * width**3 / taken * 1e3
    source = torch.randint(0, 255, (copied,), device=place.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    found["bytes"] = 2 * copied / milliseconds(lambda: target.copy_(source), place, repeats=10)["median"] * 1e3
    return found


class Operations(TorchDispatchMode):
    """Counts floating-point operations, and the bytes that every operation reads and writes once.

    Views move nothing. What a fused kernel would leave out is counted, so that the bytes are those of this program, one
    operation after the other.

    Args:
        operations_per_second: of matrix products and convolutions, the only ones whose operations count.
        bytes_per_second: read and written.

    Attributes:
        operations: of all.
        bytes: of all.
        seconds: the sum over all operations of the longer of computing and moving.
    """

    def __init__(self, *, operations_per_second: float, bytes_per_second: float) -> None:
        super().__init__()
        self.operations, self.bytes, self.seconds = 0, 0, 0.0
        self._rates = operations_per_second, bytes_per_second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            moved = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values())
            count = flop_registry.get(func._overloadpacket)
            computed = count(*args, **(kwargs or {}), out_val=result) if count else 0
            self.operations += computed
            self.bytes += moved
            self.seconds += max(computed / self._rates[0], moved / self._rates[1])
        return result
