"""Real processes of one training, which start in a moment: a server that has imported everything forks them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.engines import distributed


def together(work: Callable[..., Any], *arguments: Any, processes: int = 2, timeout: float = 60) -> list[Any]:
    """Call a function of a module in several processes of one group; return what it returned in each.

    Args:
        work: called with the arguments in every process.
        timeout: of the group, in seconds; a test waits a little longer.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = begin(work, *arguments, processes=processes, timeout=timeout, folder=folder)
        codes = ended(started, within=timeout + 60)
        said = [(Path(folder) / f"{rank}.txt").read_text() for rank in range(processes)]
        assert codes == [0] * processes, "\n".join(said)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def begin(
    work: Callable[..., Any], *arguments: Any, processes: int = 2, timeout: float = 60, folder: str
) -> list[BaseProcess]:
    """Start what :func:`together` starts; processes leave results in ``<rank>.pt`` and words in ``<rank>.txt``."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.engines.several_trainings"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(processes):
        own = {key: str(value) for key, value in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()}
        started.append(server.Process(target=_process, args=(own, timeout, folder, work, arguments)))
        started[-1].start()
    return list(started)


def ended(started: list[BaseProcess], *, within: float) -> list[int | None]:
    """Exit codes, once all have ended; None for what had to be stopped."""
    until = time.monotonic() + within
    for process in started:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes


def _process(place: dict[str, str], timeout: float, folder: str, work: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(place)
    sys.stderr = open(Path(folder) / f"{place['RANK']}.txt", "w", buffering=1)  # noqa: SIM115  (until the process ends)
    torch.set_num_threads(1)
    distributed.start(timeout=timeout)
    with distributed.others_explained():
        result = work(*arguments)
    torch.save(result, Path(folder) / f"{place['RANK']}.pt")
    distributed.stop()
