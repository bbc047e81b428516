"""A job in a provisioned federation, brought to its end; and the job that goes on with a run that stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from monai_fedlora.api.job_simulation import Simulated
from monai_fedlora.federated.continued import continued_job, find_stored
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import RESULTS_NAME, as_it_is, interruption_said
from monai_fedlora.federated.server_link import ServerLink
from monai_fedlora.federated.supervisor import Limits, Supervisor
from monai_fedlora.files import make_folder, read_json

__all__ = ["interruption", "resume", "run_supervised"]


def run_supervised(
    job: str | os.PathLike[str],
    *,
    startup_kit: str | os.PathLike[str],
    workspace: str | os.PathLike[str] | None = None,
    tries: int = 5,
    exclude_after: int | None = None,
    silence: float = 60.0,
    patience: float = 3600.0,
    say: Callable[[str], None] = print,
) -> Simulated:
    """Run a job in a provisioned federation, and go on from the last stored round whenever it ends before its time.

    Called again with the same folders, it goes on where it was ended itself.

    Args:
        job: its folder.
        startup_kit: of somebody who may submit jobs, as NVFlare's provisioning made it.
        workspace: folder of the run's record and shared tensors; None for the job's name and ``-run``, beside it.
        tries: jobs in a row that store no new round before it gives up.
        exclude_after: jobs that fail by a site before the site is left out; None never leaves one out.
        silence: seconds without a sign of life after which a site counts as gone.
        patience: seconds without anything new from the run after which its job is ended and gone on with.
        say: called with a line whenever something happens, and every half a minute while nothing does.

    Returns:
        The run; its ``lacks`` are empty if it did all that it should.

    Raises:
        ConfigError: there is no such job or kit, or a limit is out of range.
        Busy: another supervisor writes into the workspace.
        FedLoraError: so many jobs in a row brought no new round; the message says what to do.
    """
    folder = Path(job)
    place = folder.absolute().parent / f"{folder.absolute().name}-run" if workspace is None else Path(workspace)
    limits = Limits(tries=tries, exclude_after=exclude_after, silence=silence, patience=patience)
    with closing(ServerLink(Path(startup_kit))) as link:
        supervisor = Supervisor(job=folder, folder=place, link=link, limits=limits, say=say)
        make_folder(place)
        before = _interruption(place / RESULTS_NAME, place)
        with FolderLock(place):
            if before:
                say(f"the run in {place} {before}; it is gone on with")
            return Simulated(results=supervisor.run(), workspace=place)


def interruption(result: str | os.PathLike[str]) -> str:
    """What ended the run in a folder before its time, in words; empty where nothing did, or there is no record.

    Args:
        result: as of `resume`.
    """
    record = find_stored(Path(result)).parent / RESULTS_NAME
    return _interruption(record, record.parent, Path(result))


def _interruption(record: Path, *folders: Path) -> str:
    """The same of a record, whose run may have worked in these folders; a process that is killed writes nothing."""
    return interruption_said(as_it_is(read_json(record), *folders)) if record.is_file() else ""


def resume(
    result: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    without: Sequence[str] = (),
    custom_folder: bool = True,
) -> Plan:
    """Write the job that goes on where a run has stopped: the same experiment and settings, the rounds that are left.

    Args:
        result: folder of the run, or what NVFlare has downloaded of its job.
        output: job folder to create.
        without: sites that the job is not sent to.
        custom_folder: as of `monai_fedlora.write_job`.

    Returns:
        The job's plan.

    Raises:
        ConfigError: no round is stored there, or nothing is left to do; or ``output`` exists.
        WeightsError: what is stored is damaged.
    """
    return continued_job(find_stored(Path(result)), Path(output), without=without, custom_folder=custom_folder)
