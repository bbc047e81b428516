"""Several processes of one site: start, stop, wrap, who may write files, and how one step is made of all of them."""

from __future__ import annotations

import hashlib
import importlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_fedlora.engines.compiling import compiled
from monai_fedlora.engines.store import hash_tensors
from monai_fedlora.errors import ConfigError, FedLoraError, WeightsError

_LOST = ("connection closed", "connection reset", "timed out waiting", "nccl", "socket", "broken pipe")
"""What the messages of PyTorch's ways of communication say when another process is not there."""
_WRAPPED: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
"""What :func:`data_parallel` has wrapped; each holds the process group."""


def rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def start(*, timeout: float = 600) -> None:
    """Join the process group that ``torchrun`` announced, with nccl on GPUs and gloo on CPUs.

    Args:
        timeout: seconds that a process waits for the others, above 0; longer than any of them may take between two
            steps, for instance to read its cases.

    Raises:
        ConfigError: the command was not started through torchrun, there are more processes on this machine than GPUs,
            or the time is none.
        FedLoraError: the processes do not find each other.
    """
    if dist.is_initialized():
        return
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "multi_gpu_train.json needs one process per GPU; start it with "
            "'python -m torch.distributed.run --standalone --nproc_per_node=<GPUs> -m monai.bundle run ...'"
        )
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ConfigError(f"process_timeout is {timeout!r}; give a number of seconds above 0, for example 600")
    device = process_device()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    importlib.import_module("torch._dynamo")  # imported while there is a process group, it would keep that for ever
    try:
        dist.init_process_group(
            backend="nccl" if on_gpu else "gloo",
            timeout=timedelta(seconds=timeout),
            device_id=device if on_gpu else None,
        )
    except (dist.DistError, ValueError) as error:  # ValueError: a variable that torchrun sets is missing
        raise FedLoraError(
            "the processes did not find each other: the port is in use by another program, one of them did not start "
            "within process_timeout, or torchrun did not start them; python -m torch.distributed.run --standalone "
            f"looks for a free port ({str(error).splitlines()[0]})"
        ) from error


def stop() -> None:
    """Leave the process group, if there is one, when all processes have come to the end.

    A process that left while another one still talks to it could end the other's communication threads by force. What
    was wrapped lets go of the group, so that its threads end here: one that still frees a tensor while the interpreter
    shuts down aborts the process. A wrapped network computes no gradients afterwards.
    """
    if dist.is_initialized():
        dist.barrier()
        for wrapped in _WRAPPED:
            for held in ("reducer", "logger", "process_group"):
                setattr(wrapped, held, None)
        dist.destroy_process_group()


def process_device() -> torch.device:
    """The GPU of this process, or the CPU.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    processes, gpus = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), local + 1), torch.cuda.device_count()
    if processes > gpus:
        raise ConfigError(
            f"{processes} processes were started on a machine where PyTorch sees {gpus} GPU(s), and each needs one of "
            f"its own; start --nproc_per_node={gpus}, or let CUDA_VISIBLE_DEVICES name more"
        )
    return torch.device("cuda", local)


def data_parallel(network: nn.Module, *, device: torch.device, compiler: str = "off") -> nn.Module:
    """Wrap ``network`` so that gradients are averaged over the processes; one of which nothing trains stays as it is.

    What trains, and tables that are no weights, start from the first process's. Frozen weights are compared and never
    sent. Nothing but gradients is exchanged afterwards.

    The wrapped forward pass talks to the other processes. Evaluation, where they may have different numbers of
    batches, must use :func:`unwrap`.

    Args:
        network: with its method attached.
        device: of this process.
        compiler: see :func:`monai_fedlora.engines.compiling.compiled`.

    Raises:
        WeightsError: a process has other frozen weights than the first one.
        ConfigError: the network cannot be compiled so.
    """
    network = compiled(network.to(device), device=device, mode=compiler)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    frozen = {name: p for name, p in network.named_parameters() if not p.requires_grad}
    _refuse_other_weights(frozen, device)
    for buffer in network.buffers():
        values = buffer.contiguous()
        dist.broadcast(values, src=0)
        buffer.copy_(values)
    left_alone = [*frozen, *(name for name, _ in network.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, left_alone)
    wrapped = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    _WRAPPED.add(wrapped)
    return wrapped


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside :func:`data_parallel`, or ``network`` itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network


class Share(NamedTuple):
    """What a process's batch is in a step of all processes: scalars on the device of its labels, in float32.

    Attributes:
        weight: of its mean loss; the mean of the weights over the processes is 1.
        cases: of the step, divided by the number of processes.
    """

    weight: Tensor
    cases: Tensor


def share_of_step(loss_function: Callable[[Tensor, Tensor], Tensor], labels: Tensor) -> Share | None:
    """This process's share in a step that all processes take together; None for a single process.

    The gradient of the mean loss times the weight, averaged over the processes, is that of all cases in one batch, also
    where classes weigh differently or the processes have different numbers of cases.

    Args:
        loss_function: a mean over cases, weighted by class where it has a ``weight`` (C,), as PyTorch's losses are.
        labels: (B,), those that count; B may be 0 where another process has cases.
    """
    if world_size() == 1:
        return None
    weights = getattr(loss_function, "weight", None)
    cases = labels.new_full((), len(labels), dtype=torch.float32)
    here = torch.stack([cases if weights is None else weights[labels].sum().float(), cases])
    mean = here.clone()
    dist.all_reduce(mean)
    mean /= world_size()
    return Share(here[0] / mean[0], mean[1])


def summed(values: Sequence[float], *, device: torch.device) -> list[float]:
    """Sums over the processes of numbers that each of them has.

    Args:
        values: of this process.
        device: of this process.
    """
    if world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


@contextmanager
def others_explained() -> Iterator[None]:
    """Say of an error that another process caused where to look for its reason.

    Raises:
        FedLoraError: another process is gone, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(word in str(error).lower() for word in _LOST):
            raise
        raise FedLoraError(
            f"process {rank()} of {world_size()} waited for another one, which has stopped or did not answer within "
            "process_timeout. If it stopped, its own message says why; if it was only slow, for instance while it read "
            f"its cases for the first time, raise process_timeout ({error})"
        ) from error


def _refuse_other_weights(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    digest = hashlib.blake2b(digest_size=32)
    hash_tensors(digest, tensors)
    own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8).to(device)
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    if other := [number for number, one in enumerate(found) if not one.equal(found[0])]:
        raise WeightsError(
            f"process {other[0]} has other frozen weights than process 0; give every process the same backbone file"
        )
