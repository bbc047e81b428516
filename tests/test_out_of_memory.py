"""What memory that ran out says, in all the ways in which it does, becomes one error that names what helps."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.errors import DataError, FedLoraError, OutOfMemory
from monai_fedlora.out_of_memory import memory_told, shortage, tell_out_of_memory

ON_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1.00 GiB is "
    "free. Including non-PyTorch memory, this process has 9.00 GiB memory in use. Of the allocated memory 8.00 GiB is "
    "allocated by PyTorch, and 0.50 GiB is reserved by PyTorch but unallocated. See documentation for Memory Management"
)
IN_SCRIPT = (
    "The following operation failed in the TorchScript interpreter.\n"
    "Traceback of TorchScript (most recent call last):\n"
    f"RuntimeError: {ON_GPU}\n"
)
ON_HOST = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@torch.jit.script
def _grown(x: torch.Tensor) -> torch.Tensor:
    return x.expand(1 << 30, 1 << 20).contiguous()


def raised(make: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        make()
    return caught.value


def test_what_the_libraries_raise_themselves_is_known() -> None:
    x = torch.zeros(1)
    makers = (lambda: torch.empty(1 << 60), lambda: np.empty(1 << 50), lambda: bytearray(1 << 62), lambda: _grown(x))
    for make in makers:
        assert shortage(raised(make)) is not None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(ON_GPU),
        RuntimeError(IN_SCRIPT),
        RuntimeError(ON_HOST),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_it_is_told_with_what_helps_even_from_inside_another_error(error: BaseException) -> None:
    said = r"^out of memory while training \(.+\); less, or later$"
    with pytest.raises(OutOfMemory, match=said) as caught, memory_told("training", "less", "later"):
        try:
            raise error
        except BaseException as inner:
            raise RuntimeError("applying transform <...>") from inner
    assert len(str(caught.value)) < 350
    assert isinstance(caught.value, FedLoraError)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), DataError("out of memory.nii.gz is blank")]
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    tell_out_of_memory(error, "reading")
    with pytest.raises(type(error)) as caught, memory_told("reading"):
        raise error
    assert caught.value is error


def test_the_innermost_says_what_was_done() -> None:
    with pytest.raises(OutOfMemory, match="while computing features"), memory_told("training"):
        try:
            with memory_told("computing features"):
                raise torch.OutOfMemoryError(ON_GPU)
        except OutOfMemory as error:
            raise RuntimeError("an engine failed") from error


def test_how_much_was_asked_for_is_kept_and_the_rest_cut() -> None:
    for error in (torch.OutOfMemoryError(ON_GPU), RuntimeError(IN_SCRIPT)):
        with pytest.raises(OutOfMemory) as caught:
            tell_out_of_memory(error, "training")
        assert "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has" in str(caught.value)
        assert "Including" not in str(caught.value)
        assert str(caught.value).endswith("close other programs, or take a machine with more memory")
