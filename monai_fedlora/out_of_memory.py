"""Telling that memory ran out from every other error, and saying which setting helps.

PyTorch says it by a class of its own on GPUs, by a plain ``RuntimeError`` for memory of the machine and for everything
inside TorchScript; NumPy and Python raise ``MemoryError``. Whoever catches errors of any kind asks here before blaming
a file.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from monai_fedlora.environment import CACHE_MEMORY, GPU_FEATURES
from monai_fedlora.errors import OutOfMemory

TRAINING = (
    "lower batch_size, and raise accumulation_steps by as much",
    "set mixed_precision to bf16",
    "let fewer sites compute at once",
    f"lower {GPU_FEATURES} where a GPU keeps features, and {CACHE_MEMORY} where the machine's memory does",
)
EVALUATING = ("lower batch_size", *TRAINING[1:])
"""What helps, the best first."""
_PROGRAMS = "close other programs, or take a machine with more memory"

_SAID = re.compile(
    "out of memory|(can't|cannot|unable to) allocate|not enough memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_FOR_EXPERTS = re.compile(r"\. (Including|Of the allocated|If reserved|Process \d+)\b.*", re.DOTALL)
_LONGEST = 300


@contextmanager
def memory_told(doing: str, *helps: str) -> Iterator[None]:
    """Raise ``OutOfMemory`` in place of whatever says inside that memory ran out; other errors pass.

    Args:
        doing: what is done inside, to be read behind "while".
        helps: what helps, the best first; none says what always does.
    """
    try:
        yield
    except Exception as error:
        tell_out_of_memory(error, doing, *helps)
        raise


def tell_out_of_memory(error: BaseException, doing: str, *helps: str) -> None:
    """Return where an error is another one.

    Args:
        error: that was caught.
        doing: as of `memory_told`.
        helps: as of `memory_told`.

    Raises:
        OutOfMemory: the error, or one that it was raised from, says that memory ran out.
    """
    found = shortage(error)
    if isinstance(found, OutOfMemory):
        raise found
    if found is not None:
        what = ", or ".join(helps or (_PROGRAMS,))
        raise OutOfMemory(f"out of memory while {doing} ({_in_short(found)}); {what}") from error


def shortage(error: BaseException | None) -> BaseException | None:
    """The error, or the one that it was raised from, which says that memory ran out; None where none does."""
    while error is not None:
        by_class = isinstance(error, (MemoryError, OutOfMemory)) or type(error).__name__ == "OutOfMemoryError"
        by_number = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if by_class or by_number or (isinstance(error, RuntimeError) and _SAID.search(str(error))):
            return error
        error = error.__cause__
    return None


def _in_short(error: BaseException) -> str:
    """What the error says of how much was asked for, in a line."""
    lines = [line for line in str(error).splitlines() if _SAID.search(line)] or [str(error)]
    said = _FOR_EXPERTS.sub("", " ".join(lines[-1].split())).rpartition("Error: ")[2]
    return said[:_LONGEST].rstrip(".") or type(error).__name__
