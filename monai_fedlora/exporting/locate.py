"""Find the files of a finished run, whichever way it was started."""

from __future__ import annotations

from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.federated.site_state import EARLIER, FINAL_NAME
from monai_fedlora.files import load_tensors, sha256

SHARED_NAME = "shared.safetensors"


def find_personal(run: Path, site: str) -> Path:
    """Return the final model of a site.

    Args:
        run: a simulation's workspace, a folder of private state, the site's own folder in it, or the file itself.
        site: whose model.

    Raises:
        ExportError: there is none, or several different ones; the message lists what was found.
    """
    owners = {path: load_tensors(path)[1].get("site") for path in _search(run, FINAL_NAME)}
    mine = [path for path, owner in owners.items() if owner == site]
    if not mine:
        raise ExportError(_nothing(run, site, owners))
    return _only(mine, f"models of {site}")


def personal_sites(run: Path) -> list[str]:
    """The sites whose final models lie in a run, in order.

    Raises:
        ExportError: the run does not exist.
        WeightsError: a file is damaged.
    """
    found = (load_tensors(path)[1].get("site") for path in _search(run, FINAL_NAME))
    return sorted({site for site in found if site})


def find_shared(run: Path) -> Path:
    """Return the server's last shared tensors.

    Args:
        run: a simulation's workspace, the server's run folder, or the file itself.

    Raises:
        ExportError: there is none, or several different ones; the message lists what was found.
    """
    found = _search(run, SHARED_NAME)
    if not found:
        raise ExportError(
            f"{run} holds no {SHARED_NAME}; the server's run folder has it (a site's private folder does not)"
        )
    return _only(found, "sets of shared tensors")


def _search(run: Path, name: str) -> list[Path]:
    if run.is_file():
        return [run]
    if not run.is_dir():
        raise ExportError(f"{run} does not exist; give the run's workspace or the site's private folder")
    if (run / name).is_file():
        return [run / name]
    return sorted(path for path in run.rglob(name) if not path.parent.name.startswith(EARLIER))


def _nothing(run: Path, site: str, owners: dict[Path, str | None]) -> str:
    others = sorted({owner for owner in owners.values() if owner})
    if others:
        return f"{run} holds the model of {', '.join(others)}, none of {site}; check --site and --run"
    if owners:
        return f"{next(iter(owners))} is no site's final model; give the {FINAL_NAME} of a finished run"
    if run.is_dir() and any(run.rglob("round-*.safetensors")):
        return f"{run} holds states of single rounds but no {FINAL_NAME}: the run was not finished"
    return f"{run} holds no {FINAL_NAME}; give the run's workspace or the site's private folder"


def _only(found: list[Path], what: str) -> Path:
    """The one file, counting identical copies once."""
    different = list({sha256(path): path for path in reversed(found)}.values())
    if len(different) > 1:
        listing = "\n  ".join(str(path) for path in sorted(different))
        raise ExportError(f"there are {len(different)} different {what}; point --run at one of\n  {listing}")
    return different[0]
