"""Going on with a run that was interrupted, in the folder where it lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.changes import fine_tune_change, listed
from monai_fedlora.federated.initial import changes_since, check_resumable, load_shared, stored_images
from monai_fedlora.federated.limits import stored_lengths
from monai_fedlora.federated.run_record import ENDED, LAST_NAME, RESULTS_NAME
from monai_fedlora.federated.server_state import stored_accepted, stored_moments
from monai_fedlora.federated.start import Start
from monai_fedlora.federated.workspace import PRIVATE
from monai_fedlora.files import read_json

MATERIALS = Path(PRIVATE) / "materials.sha256"
"""Where a run's folder keeps the hash of the data and of the network's code: from few values they could be guessed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interrupted:
    """What a run has left.

    Attributes:
        start: of its next round; of its first where no round has ended.
        results: the record as the run has left it.
        ended: whether there is nothing left to do.
    """

    start: Start
    results: Mapping[str, Any]
    ended: bool


def interrupted(folder: Path, start: Start, materials: str = "") -> Interrupted | None:
    """Look for the same run in a folder.

    Args:
        folder: of the run.
        start: of the run, with its plan.
        materials: hash of its data and its network's code, see :data:`MATERIALS`; empty to leave it unchecked.

    Returns:
        What it has left; None where nothing lies there.

    Raises:
        ConfigError: what lies there is of another experiment or of other settings, data or code.
        WeightsError: stored tensors are damaged.
    """
    try:
        results = read_json(folder / RESULTS_NAME)
    except FedLoraError:
        return None
    stored, plan = folder / LAST_NAME, start.plan
    if not stored.is_file():
        if results.get("plan") != plan.to_json():
            return None
        _check_materials(folder, materials)
        return Interrupted(start=start, results=results, ended=False)
    number = check_resumable(stored, plan=plan)
    changes, ended = changes_since(stored, plan=plan)[0], results["status"] in ENDED
    if ended:
        changes |= fine_tune_change(results["plan"], plan)
    if changes:
        raise ConfigError(
            f"{folder} holds a run with other settings ({listed(changes)}); give the same ones to go on with it, "
            "another folder, or overwrite=True to begin anew"
        )
    _check_materials(folder, materials)
    shared, metadata = load_shared(stored, manifest=start.manifest)
    images = stored_images(stored, metadata)
    after = dataclasses.replace(
        start,
        shared=shared,
        earlier=stored_lengths(stored, plan, first=number + 1),
        moments=stored_moments(stored, start.manifest, plan, first=number + 1),
        accepted=stored_accepted(stored, plan, first=number + 1),
        images=images,
        first=number + 1,
    )
    return Interrupted(start=after, results=results, ended=ended)


def _check_materials(folder: Path, materials: str) -> None:
    kept = folder / MATERIALS
    if materials and (not kept.is_file() or kept.read_text(encoding="utf-8") != materials):
        raise ConfigError(
            f"{folder} holds a run of other cases, or of a network with other code; give the same ones to go on with "
            "it, another folder, or overwrite=True to begin anew"
        )
