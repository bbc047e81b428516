"""Several processes of one site: start, stop, wrap, and who may write files."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fedlora.errors import ConfigError


def rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def start() -> None:
    """Join the process group that ``torchrun`` announced, with nccl on GPUs and gloo on CPUs.

    Raises:
        ConfigError: the command was not started through torchrun.
    """
    if dist.is_initialized():
        return
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "multi_gpu_train.json needs one process per GPU; start it with "
            "'python -m torch.distributed.run --standalone --nproc_per_node=<GPUs> -m monai.bundle run ...'"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(process_device())
    dist.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the process group, if there is one, when all processes have come to the end.

    A process that left while another one still talks to it could end the other's communication threads by force.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def process_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def data_parallel(network: nn.Module, *, device: torch.device) -> nn.Module:
    """Wrap ``network`` so that gradients are averaged over the processes; one of which nothing trains stays as it is.

    The wrapped forward pass talks to the other processes. Evaluation, where they may have different numbers of
    batches, must use :func:`unwrap`.
    """
    device_ids = [device] if device.type == "cuda" else None
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network.to(device)
    return DistributedDataParallel(network.to(device), device_ids=device_ids)


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside :func:`data_parallel`, or ``network`` itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network
