"""The folder of a run: whose results lie there, and making room for the next run's without losing any unasked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.failures import ERRORS_NAME
from monai_fedlora.federated.lock import LOCK_NAME
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import BEST_NAME, ENDED, LAST_NAME, RESULTS_NAME
from monai_fedlora.federated.seen_rounds import SeenRounds
from monai_fedlora.federated.site_state import SiteStore
from monai_fedlora.files import make_folder, read_json, write_bytes
from monai_fedlora.privacy.ledger import FOLDER as LEDGER

PRODUCTS = (RESULTS_NAME, LAST_NAME, BEST_NAME)
PRIVATE = "private"
NVFLARE = "nvflare"
SERVER_RUN = Path(NVFLARE) / "server" / "simulate_job"
"""Where NVFlare's simulator lets the server write, until the run's end."""
SITE_LOGS = (ERRORS_NAME, "site.log")
_FROM_PYTHON = "give resume=True to go on with it, another folder, or overwrite=True to begin anew"


def make_room(workspace: Path, plan: Plan, *, overwrite: bool = False, from_python: bool = False) -> None:
    """Make sure that a run can write into a folder, and that nothing which cost time goes lost.

    A run that goes on with the experiment whose results lie there sets these aside, as ``before-round-<k>``, and keeps
    the sites' private parts. What is left of a run that came to no result is replaced.

    Args:
        workspace: the folder; it exists.
        plan: of the run that is about to begin.
        overwrite: remove the other run's results, its sites' private parts and its logs; nothing else is touched.
        from_python: advise with the arguments of `monai_fedlora.federate` in place of the options of the commands.

    Raises:
        ConfigError: results of another run lie there, and ``overwrite`` is not set.
    """
    collect(workspace)
    results = _results(workspace)
    before = _plan(results)
    if plan.start_round and (before is None or before.fingerprint == plan.fingerprint):
        _set_aside(workspace, plan.start_round)
        return
    if not overwrite and (found := _worth(workspace, results)):
        raise ConfigError(f"{workspace} holds {found}; {_FROM_PYTHON if from_python else _advice(workspace, results)}")
    for name in PRODUCTS:
        (workspace / name).unlink(missing_ok=True)
    for name in SITE_LOGS:
        (workspace / PRIVATE / name).unlink(missing_ok=True)
    if before is not None:
        _remove_private(workspace, before)


def _remove_private(workspace: Path, plan: Plan) -> None:
    SeenRounds(private=workspace / PRIVATE, plan=plan).clear()
    for site in plan.sites:
        store = SiteStore(root=workspace / PRIVATE, plan=plan, site=site)
        store.clear()
        shutil.rmtree(store.folder / LEDGER, ignore_errors=True)
        with suppress(OSError):  # something of somebody else lies there
            (store.folder / LOCK_NAME).unlink(missing_ok=True)
            store.folder.rmdir()
    with suppress(OSError):
        (workspace / PRIVATE / plan.experiment).rmdir()


def collect(workspace: Path) -> None:
    """Bring results out of NVFlare's own workspace, where a simulation that was killed has left them."""
    for name in PRODUCTS:
        stored = workspace / SERVER_RUN / name
        if stored.is_file() and not (workspace / name).is_file():
            write_bytes(workspace / name, stored.read_bytes())


def _results(workspace: Path) -> Mapping[str, Any]:
    try:
        value = read_json(workspace / RESULTS_NAME)
    except FedLoraError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _plan(results: Mapping[str, Any]) -> Plan | None:
    try:
        return Plan.from_json(results.get("plan"))
    except ConfigError:
        return None


def _worth(workspace: Path, results: Mapping[str, Any]) -> str:
    """What would be lost, in words; empty where it is nothing."""
    status = results.get("status")
    if status in ENDED:
        return f"the results of a run ({status})"
    if (workspace / LAST_NAME).is_file():
        return f"{LAST_NAME} of a run that was interrupted"
    if any((workspace / PRIVATE).glob("*/*/*.safetensors")):
        return "private parts of the sites of another run"
    return ""


def _advice(workspace: Path, results: Mapping[str, Any]) -> str:
    name = str((results.get("plan") or {}).get("experiment", "NAME"))
    return (
        f"give another --workspace, or --overwrite to remove it. To go on with that run: monai-fedlora job ... "
        f"--experiment {name} --start-from {workspace / LAST_NAME} --resume, and simulate the new job here"
    )


def _set_aside(workspace: Path, round_number: int) -> None:
    names = [name for name in PRODUCTS if (workspace / name).is_file()]
    if not names:
        return
    folder, number = workspace / f"before-round-{round_number}", 1
    while folder.exists():
        number += 1
        folder = workspace / f"before-round-{round_number}.{number}"
    make_folder(folder)
    for name in names:
        (workspace / name).replace(folder / name)
