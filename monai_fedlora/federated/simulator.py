"""Run a job folder in NVFlare's simulator, with sensible threads and a live view."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from monai_fedlora.catalogues import trusting
from monai_fedlora.environment import BACKBONE, DATA, GPU_PROCESSES, LEDGER_COPY, POLICY, PRIVATE_DIR, THREADS
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import ENDED, RESULTS_NAME, mark_interrupted
from monai_fedlora.federated.site_policy import site_policy
from monai_fedlora.federated.workers import POOL, Pool
from monai_fedlora.federated.workspace import NVFLARE, PRODUCTS, SERVER_RUN, make_room
from monai_fedlora.files import for_the_owner, make_folder, read_json, write_bytes
from monai_fedlora.networks.weights_sources import HUB_PREFIX

_ERRORS = "private/errors.log"
_SIMULATOR = "nvflare.private.fed.app.simulator.simulator"
_TRACEBACK = "Traceback (most recent call last):"
_MEMORY_OF_SITE = 3 << 29  # ours; a process with a frozen network of base size takes 1 GB
_GPU_MEMORY_OF_SITE = 3 << 30  # ours; half a GB for CUDA itself, that network, and its steps
_STATISTICS = Path("pool_stats") / "simulator_cell_stats.json"


def default_threads(n_sites: int) -> int:
    """Sites that run at once: all of them, as far as there are 1.5 GB of free memory for each.

    Where there is a GPU, all compute on the first one, and each needs 3 GB of what is free there as well. Sites that
    run at once share the cores. One that has to wait for its turn keeps nothing in memory between its tasks.
    """
    import psutil
    import torch

    fit = psutil.virtual_memory().available // _MEMORY_OF_SITE
    if torch.cuda.is_available():
        fit = min(fit, torch.cuda.mem_get_info(0)[0] // _GPU_MEMORY_OF_SITE)
    return max(1, min(n_sites, fit))


def simulate(
    job: Path,
    *,
    workspace: Path,
    data: str | None = None,
    backbone: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    options: Sequence[str] = (),
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Mapping[str, Any]:
    """Run a job and return its results.

    Args:
        job: job folder.
        workspace: receives ``results.json``, the shared tensors, ``private/<experiment>/<site>`` and NVFlare's own
            workspace under ``nvflare``, which each run replaces.
        data: folder of prepared sites; None leaves ``MONAI_FEDLORA_DATA`` as it is.
        backbone: backbone file for all simulated sites; None leaves ``MONAI_FEDLORA_BACKBONE`` as it is.
        threads: sites that run at once; None chooses by :func:`default_threads`. Results do not depend on it,
            and more than there are sites are as good as one for each.
        overwrite: replace the results of another run, see :func:`make_room`.
        options: further ones of NVFlare's simulator, such as ``("-gpu", "0,1")``.
        on_progress: called with the results so far whenever they change. An exception from it, like an interrupt
            from the keyboard, ends the run; what the server has stored by then is left to resume from.

    Returns:
        The content of ``results.json``. Its status is "finished", or "incomplete" if the run came to its end without
        all that it should have done.

    Raises:
        ConfigError: the workspace holds the results of another run; or the job has no custom folder, without which
            the simulator does not take its classes.
        PolicyError: the job names a plug-in of a package that ``MONAI_FEDLORA_POLICY`` does not trust.
        Busy: another run writes into the workspace.
        FedLoraError: the folder is no job, or the run failed; the message names the log to read.
    """
    if (job / "meta.json").is_file() and not (job / "app" / "custom").is_dir():
        raise ConfigError(
            f"{job} has no custom folder (--allow-listed), and NVFlare's simulator has no allow-list for its classes; "
            "add --in-process, or write the same job without --allow-listed to try it"
        )
    policy = site_policy()  # of the simulated ends, which import plug-ins only if it allows them
    with trusting(policy.plugins, source=policy.source):
        plan = Plan.load(job / "app" / "config" / "plan.json")
        policy.check_plugins(plan)
    threads = min(threads or default_threads(len(plan.sites)), len(plan.sites))
    workspace = workspace.resolve()
    make_folder(workspace)
    with FolderLock(workspace) as lock:
        make_room(workspace, plan, overwrite=overwrite)
        shutil.rmtree(workspace / NVFLARE, ignore_errors=True)
        command = [sys.executable, "-m", _SIMULATOR, str(job.resolve()), "-w", str(workspace / NVFLARE)]
        clients = threads if _groups_of_gpus(options) > 1 else len(plan.sites)
        command += ["-t", str(clients), *options]
        with closing(Pool(places=threads, stays=threads == len(plan.sites))) as pool:
            told = {GPU_PROCESSES: str(_processes_of_a_gpu(threads, options)), POOL: pool.address}
            held = (lock.descriptor, pool.lifeline)  # if this process is killed, the simulator goes on, and so do these
            return _run(command, plan, workspace, held, told, data=data, backbone=backbone, on_progress=on_progress)


def _processes_of_a_gpu(threads: int, options: Sequence[str]) -> int:
    """Sites at once on each GPU; of several groups of GPUs NVFlare lets one site at a time compute on each."""
    return 1 if _groups_of_gpus(options) > 1 else threads


def _groups_of_gpus(options: Sequence[str]) -> int:
    given = {name: value for name, value in pairwise(options) if name in ("-gpu", "--gpu")}
    return sum(len(re.sub(r"\[[^]]*\]", "group", value).split(",")) for value in given.values())


def _run(
    command: Sequence[str],
    plan: Plan,
    workspace: Path,
    held: Collection[int],
    told: Mapping[str, str],
    *,
    data: str | None,
    backbone: str | None,
    on_progress: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    environment = {
        **told,
        **{name: value for name, value in os.environ.items() if name != LEDGER_COPY},
        PRIVATE_DIR: str(workspace / "private"),
        THREADS: os.environ.get(THREADS, "1"),
    }
    environment |= {
        key: _absolute(v) for key, v in ((DATA, data), (BACKBONE, backbone), (POLICY, os.environ.get(POLICY))) if v
    }
    log = workspace / "simulator.log"
    with open(log, "w", encoding="utf-8", opener=for_the_owner) as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            umask=0o077,
            pass_fds=tuple(held),
        )
        try:
            _follow(process, workspace / SERVER_RUN.parent, on_progress)
        finally:
            _stop(process)
            for name in PRODUCTS:
                if (workspace / SERVER_RUN / name).is_file():
                    write_bytes(workspace / name, (workspace / SERVER_RUN / name).read_bytes())
            mark_interrupted(workspace / RESULTS_NAME)
    results = read_json(workspace / RESULTS_NAME) if (workspace / RESULTS_NAME).is_file() else {}
    if not _ended(results):
        raise FedLoraError(_failure(log, workspace, plan, results))
    return results


def _absolute(source: str | Path) -> str:
    """A path that holds in any working directory; a hub id as it is."""
    return str(source) if str(source).startswith(HUB_PREFIX) else str(Path(source).resolve())


def _follow(process: subprocess.Popen, folder: Path, on_progress: Callable[[Mapping[str, Any]], None]) -> None:
    """Show results until the simulator has ended, or has nothing more to do but to sleep.

    Of the seconds that NVFlare takes to end, those count until the sites are gone and the server's statistics written.
    """
    results, statistics = folder / SERVER_RUN.name / RESULTS_NAME, folder / _STATISTICS
    seen = 0.0
    content: Mapping[str, Any] = {}
    while process.poll() is None and not (_ended(content) and _is_json(statistics)):
        time.sleep(0.2)
        if results.is_file() and results.stat().st_mtime > seen:
            seen, content = results.stat().st_mtime, read_json(results)
            on_progress(content)


def _is_json(path: Path) -> bool:
    """Whether a file is there and written to its end."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _ended(results: Mapping[str, Any]) -> bool:
    return results.get("status") in ENDED


def _stop(process: subprocess.Popen) -> None:
    """End the simulator and the sites' processes that still run; these have their own process groups."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        simulator = psutil.Process(process.pid)
        for member in (simulator, *simulator.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def last_error(workspace: Path) -> str:
    """The last error that a site has noted, and where all are; empty where there is none."""
    errors = workspace / _ERRORS
    if not errors.is_file():
        return ""
    lines = [line for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"the last error of a site was: {lines[-1] if lines else ''} (all in {errors})"


def _failure(log: Path, workspace: Path, plan: Plan, results: Mapping[str, Any]) -> str:
    parts = [f"the simulation did not finish; its log is {log}"]
    if said := last_error(workspace):
        parts.append(said)
    elif results.get("refused"):
        parts.append(f"last refusal: {results['refused'][-1]}")
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        logged = [line for line in lines if " ERROR " in line and not line.endswith(_TRACEBACK)]
        parts += [f"the first error in it: {line}" for line in logged[:1]]
    return "\n".join(parts)
