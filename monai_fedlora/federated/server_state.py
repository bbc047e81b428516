"""What the server knows beside the shared tensors and keeps in their file, so that no crash can part them.

These are the moments of its optimiser, and the last round of every site whose answer it has accepted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from monai_fedlora.errors import WeightsError
from monai_fedlora.federated.limits import goes_on
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.server_optimizer import Moments
from monai_fedlora.files import load_tensors
from monai_fedlora.scope import Manifest

ACCEPTED = "accepted_rounds"
"""Entry of the metadata of stored shared tensors, see :func:`stored_accepted`."""
NEVER = -1
"""Last accepted round of a site that has had none."""
Accepted = Mapping[str, int | None]
"""Last accepted round by site, without those that have had none; None where nobody knows."""
_log = logging.getLogger(__name__)
_PREFIX = "server/"
_Value = TypeVar("_Value")


def with_prefix(moments: Moments) -> dict[str, np.ndarray]:
    """Moments by the names that they have in the file, which no state-dict key has."""
    return {f"{_PREFIX}{name}": value for name, value in moments.items()}


def without_moments(tensors: Mapping[str, _Value]) -> dict[str, _Value]:
    """What is in the file beside the moments: the shared tensors."""
    return {key: value for key, value in tensors.items() if not key.startswith(_PREFIX)}


def stored_moments(path: Path, manifest: Manifest, plan: Plan, *, first: int) -> dict[str, np.ndarray]:
    """The moments with which a plan goes on from stored shared tensors.

    Args:
        path: of the tensors.
        manifest: of the plan.
        plan: that goes on.
        first: the round with which it does.

    Returns:
        None of them where the file is of another plan or round, or was written without this optimiser.

    Raises:
        WeightsError: the file is damaged.
    """
    tensors, metadata = load_tensors(path)
    kept = any(key.startswith(_PREFIX) for key in tensors)
    if (
        plan.server_optimizer is None
        or not goes_on(metadata, plan, first)
        or _before(metadata) != plan.server_optimizer.to_json()
    ):
        if kept:
            _log.warning(
                "the moments of the server's optimiser in %s are left out: they are of another optimiser, round or "
                "plan, and this run goes on from the shared tensors alone",
                path,
            )
        return {}
    found = {key.removeprefix(_PREFIX): value.numpy() for key, value in tensors.items() if key.startswith(_PREFIX)}
    shapes = {
        f"{slot}/{key}": entry.shape
        for slot in plan.server_optimizer.slots
        for key, entry in manifest.down.entries.items()
    }
    fit = {name: value.shape for name, value in found.items()} == shapes
    if found and not (fit and all(value.dtype == np.float32 and np.isfinite(value).all() for value in found.values())):
        raise WeightsError(
            f"{path} holds moments of {plan.server_optimizer.name} that do not fit its shared tensors; it is damaged, "
            "take the file of another round"
        )
    return found


def stored_accepted(path: Path, plan: Plan, *, first: int) -> dict[str, int | None]:
    """The last accepted round of every site, with which a plan goes on from stored shared tensors.

    Args:
        path: of the tensors.
        plan: that goes on.
        first: the round with which it does.

    Returns:
        Nothing where the file is of another plan; None for all sites where an earlier version wrote it.

    Raises:
        WeightsError: the file is damaged.
    """
    metadata = load_tensors(path)[1]
    if not goes_on(metadata, plan, first):
        return {}
    if ACCEPTED not in metadata:
        return dict.fromkeys(plan.sites)
    try:
        found = dict(json.loads(metadata[ACCEPTED]))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} has damaged {ACCEPTED} in its metadata; take the file of another round") from error
    if not all(number is None or (type(number) is int and 0 <= number < first) for number in found.values()):
        raise WeightsError(f"{path} has {ACCEPTED} in its metadata that are no rounds; take the file of another round")
    return found


def _before(metadata: Mapping[str, str]) -> Any:
    """The optimiser of the plan that stored the file."""
    try:
        return json.loads(metadata["plan"]).get("server_optimizer")
    except (AttributeError, KeyError, ValueError):
        return None
