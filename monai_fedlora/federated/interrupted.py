"""Going on with a run that was interrupted, in the folder where it lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.changes import listed
from monai_fedlora.federated.initial import changes_since, check_resumable, load_shared, stored_images
from monai_fedlora.federated.limits import stored_lengths
from monai_fedlora.federated.run_record import ENDED, LAST_NAME, RESULTS_NAME
from monai_fedlora.federated.start import Start
from monai_fedlora.files import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interrupted:
    """What a run has left.

    Attributes:
        start: of its next round; of its first where no round has ended.
        results: the record of the rounds that have ended, or of the whole run.
        ended: whether there is nothing left to do.
    """

    start: Start
    results: Mapping[str, Any]
    ended: bool


def interrupted(folder: Path, start: Start) -> Interrupted | None:
    """Look for the same run in a folder.

    Args:
        folder: of the run.
        start: of the run, with its plan.

    Returns:
        What it has left; None where nothing lies there.

    Raises:
        ConfigError: what lies there is of another experiment or of other settings.
        WeightsError: stored tensors are damaged.
    """
    try:
        results = read_json(folder / RESULTS_NAME)
    except FedLoraError:
        return None
    stored, plan = folder / LAST_NAME, start.plan
    if not stored.is_file():
        same = results.get("plan") == plan.to_json()
        return Interrupted(start=start, results={}, ended=False) if same else None
    number = check_resumable(stored, plan=plan)
    if changes := changes_since(stored, plan=plan)[0]:
        raise ConfigError(
            f"{folder} holds a run with other settings ({listed(changes)}); give the same ones to go on with it, "
            "another folder, or overwrite=True to begin anew"
        )
    shared, metadata = load_shared(stored, manifest=start.manifest)
    images = stored_images(stored, metadata)
    after = dataclasses.replace(
        start, shared=shared, earlier=stored_lengths(stored, plan), images=images, first=number + 1
    )
    return Interrupted(start=after, results=results, ended=results["status"] in ENDED)
