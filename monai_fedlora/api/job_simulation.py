"""A job folder, run on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.environment import THREADS
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import rounds, simulator
from monai_fedlora.resources import job_template_path

__all__ = ["simulate"]


def simulate(
    job: str | os.PathLike[str],
    *,
    workspace: str | os.PathLike[str],
    data: str | None = None,
    backbone: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    in_process: bool = False,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Mapping[str, Any]:
    """Run a job folder in NVFlare's simulator, or without NVFlare in this process.

    Args:
        job: its folder, or the name of a shipped one.
        workspace: folder for everything the run writes; it holds private state.
        data: folder of prepared sites (default: ``MONAI_FEDLORA_DATA``, then generated phantoms).
        backbone: backbone file (default: ``MONAI_FEDLORA_BACKBONE``, then the demo weights).
        overwrite: remove what another run has left in the workspace, and nothing else.
        threads: sites that run at once in the simulator; None for all, within reason.
        in_process: one site after the other in this process, with one frozen backbone for all.
        on_progress: called with the results so far whenever they change.

    Returns:
        The record of the run, as in ``results.json``; ``results["lacks"]`` is empty if it did all that it should.

    Raises:
        ConfigError: there is no such job, the workspace holds another run, or ``threads`` stands beside ``in_process``.
        FedLoraError: the run failed; the message names the log to read.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.simulate("no_such_job", workspace="runs/trial")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: ...no_such_job...
    """
    if in_process and threads is not None:
        raise ConfigError("threads are of NVFlare's simulator; leave them out with in_process")
    folder = Path(job)
    folder = folder if folder.is_dir() else job_template_path(folder.name)
    if in_process:
        return rounds.run_in_process(
            folder,
            folder=Path(workspace),
            data_root=data,
            backbone=backbone,
            threads=int(os.environ.get(THREADS, "1")),
            overwrite=overwrite,
            record_failures=True,
            on_progress=on_progress,
        )
    return simulator.simulate(
        folder,
        workspace=Path(workspace),
        data=data,
        backbone=backbone,
        threads=threads,
        overwrite=overwrite,
        on_progress=on_progress,
    )
