"""Where a run's shared tensors start: from a seed, or from a stored file."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.data.origin import UNKNOWN, Origin, check_kind, together
from monai_fedlora.errors import ConfigError, FedLoraError, PrivacyError, WeightsError
from monai_fedlora.federated.changes import begins_budget, end_change, plan_changes
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.server_optimizer import Moments
from monai_fedlora.federated.server_state import with_prefix, without_moments
from monai_fedlora.files import load_tensors, read_json, save_tensors, sha256
from monai_fedlora.scope import Manifest, Role, Scope

IMAGES = "images"
"""Entry of the metadata of stored shared tensors: kind of all images that have moved them."""


def build_shared(plan: Plan, *, backbone: str | None = None) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Derive the manifest and the initial shared tensors of a plan.

    The backbone's file is needed only where the method shares something that comes from it: weights of the backbone,
    or the decoder of a network that gives masks.

    Args:
        plan: the experiment.
        backbone: path of the backbone file; None builds the architecture alone.

    Raises:
        WeightsError: the method shares what comes from the file, and none was given.
    """
    from monai_fedlora.methods.build import UNTRAINED, build_network

    network = build_network(
        size=plan.size,
        out_chans=plan.outputs,
        backbone=backbone or UNTRAINED,
        backbone_sha256=plan.backbone_sha256 if backbone else None,
        method=plan.method,
        method_args=plan.method_args,
        seed=plan.seed,
        masks=plan.task_of.gives_masks,
    )
    scope = plan.scope(network)
    if backbone is None and (shared := _shared_of_file(plan, network, scope)):
        raise WeightsError(f"{plan.method} averages the {shared}; its first round needs the backbone file")
    return scope.manifest, scope.initial_payload(network)


def build_manifest(plan: Plan) -> Manifest:
    """Derive what may travel from a plan alone, without weights."""
    return _names_alone(plan)[1].manifest


def needs_backbone(plan: Plan) -> bool:
    """Whether initial shared tensors come from the backbone file, so that the server needs it."""
    return _shared_of_file(plan, *_names_alone(plan)) is not None


def check_steps(plan: Plan) -> None:
    """Refuse a plan in which a site that declares its cases would never train a part of the method.

    Raises:
        ConfigError: a site's declared cases make fewer optimiser steps in all rounds, or after the last one, than the
            method has phases, or the bundle does not say its batch size.
    """
    from monai_fedlora.engines.method import check_phases
    from monai_fedlora.resources import bundle_setting

    phases = plan.build_method().phases(_names_alone(plan)[0])
    if not phases or plan.privacy is not None:
        return
    batch, accumulated = (
        plan.training[name] if name in plan.training else bundle_setting(plan.bundle, "train", name)
        for name in ("batch_size", "accumulation_steps")
    )
    for site, cases in plan.declared_cases.items():
        try:
            check_phases(
                phases,
                cases=cases,
                batch_size=batch,
                accumulation_steps=accumulated,
                epochs=plan.local_epochs,
                rounds=plan.start_round + plan.rounds,
                fine_tune_epochs=plan.fine_tune_epochs,
            )
        except ConfigError as error:
            raise ConfigError(f"{site} declares {cases} training cases, in batches of {batch}: {error}") from None


def _names_alone(plan: Plan) -> tuple[Any, Scope]:
    """The plan's network without values, and its scope."""
    from monai_fedlora.methods.build import UNTRAINED, build_network

    with torch.device("meta"):
        network = build_network(
            size=plan.size,
            out_chans=plan.outputs,
            backbone=UNTRAINED,
            method=plan.method,
            method_args=plan.method_args,
            masks=plan.task_of.gives_masks,
        )
    return network, plan.scope(network)


def _shared_of_file(plan: Plan, network: Any, scope: Scope) -> str | None:
    """What of the backbone file is among the shared tensors, in words; None for nothing."""
    shared = scope.keys(Role.SHARED)
    new = (*network.head_prefixes, PREFIX)
    if any("lora_" not in key and not key.startswith(new) for key in shared):
        return "backbone's own weights"
    if plan.task_of.gives_masks and any(key.startswith(network.head_prefixes) for key in shared):
        return "decoder, which the file may hold"
    return None


def save_shared(
    path: Path,
    payload: Mapping[str, np.ndarray],
    *,
    plan: Plan,
    round_number: int,
    moments: Moments = MappingProxyType({}),
    **extra: Any,
) -> None:
    """Store shared tensors after ``round_number`` with what is needed to resume from them."""
    metadata = {
        "plan": json.dumps(plan.to_json()),
        "fingerprint": plan.fingerprint,
        "round": str(round_number),
    }
    metadata |= {key: json.dumps(value) for key, value in extra.items()}
    everything = {**payload, **with_prefix(moments)}
    save_tensors(path, {key: torch.from_numpy(np.array(value)) for key, value in everything.items()}, metadata)


def stored_images(path: Path, metadata: Mapping[str, str]) -> str:
    """Kind of all images that have moved stored shared tensors; "unknown" for those of an earlier version.

    Raises:
        WeightsError: the metadata hold something else.
    """
    if IMAGES not in metadata:
        return UNKNOWN
    try:
        kind = json.loads(metadata[IMAGES])
        if kind is not None:
            check_kind(kind)
    except (ConfigError, ValueError) as error:
        raise WeightsError(f"{path} does not say what images its tensors come from ({error}); it is damaged") from error
    return UNKNOWN if kind is None else str(kind)


def start_origin(source: str | None) -> Origin | None:
    """What is known of the images behind what a run starts from, with the name of that.

    A PEFT folder is known by the export that it is part of, as long as its weights are those of the export.

    Args:
        source: as of :func:`starting_point`.

    Raises:
        WeightsError: stored tensors are damaged.
    """
    if source is None:
        return None
    path = Path(source)
    if path.is_dir():
        return _peft_origin(path)
    metadata = load_tensors(path)[1]
    try:
        plan, number = json.loads(metadata["plan"]), int(metadata["round"])
        name = f"shared part of {plan['experiment']} after {number + 1} rounds"
        before = Origin.from_json(plan["start"]).name if "start" in plan else None
    except (ConfigError, KeyError, TypeError, ValueError):
        name, before = path.name, None
    return Origin(
        kind=stored_images(path, metadata),
        name=_line(name),
        source=_line(f"which started from: {before}") if before else None,
    )


def stored_start(source: Path) -> Origin | None:
    """What the run that stored shared tensors had itself started from; None where that is its seed, or not known.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        plan = json.loads(load_tensors(source)[1]["plan"])
        return Origin.from_json(plan["start"]) if plan.get("start") is not None else None
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{source} does not say by which plan it was stored ({error})") from error


def _peft_origin(folder: Path) -> Origin:
    """What the export says that a PEFT folder of this package's lies in; only its name where none does."""
    weights = folder / "adapter_model.safetensors"
    for home, name in ((folder.parent, f"{folder.name}/{weights.name}"), (folder, weights.name)):
        try:
            said = read_json(home / "metadata.json")
            if said["provenance"]["files_sha256"][name] != sha256(weights):
                continue
            data = said["training_data"]
            kind = data["parts"]["shared"] or data["kind"]
            return Origin(kind=kind, name=_line(str(said["name"])), source=data["source"])
        except (ConfigError, FedLoraError, KeyError, OSError, TypeError, ValueError):
            continue
    return Origin(name=_line(folder.absolute().name))


def _line(text: str) -> str | None:
    """A text that an origin can hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200].strip() or None


def job_images(stored: Path, plan: Plan) -> str | None:
    """Kind of the images behind what a job starts from; None where its plan's seed draws that.

    Raises:
        WeightsError: the stored tensors are damaged.
    """
    if not stored.is_file():
        return None
    return together([stored_images(stored, load_tensors(stored)[1]), *([plan.start.kind] if plan.start else [])])


def load_shared(path: Path, *, manifest: Manifest) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read stored shared tensors and check them against the manifest.

    Raises:
        WeightsError: the file is damaged, or its tensors are not what the manifest declares.
    """
    tensors, metadata = load_tensors(path)
    payload = _cast(without_moments(tensors), manifest)
    _check_fit(path, payload, manifest)
    return payload, metadata


def _cast(tensors: Mapping[str, Tensor], manifest: Manifest) -> dict[str, np.ndarray]:
    """Bring stored tensors to the types they travel in; undeclared keys are left for the check to name."""
    payload = {}
    with np.errstate(over="ignore"):  # what overflows becomes infinity, which the check refuses
        for key, value in tensors.items():
            entry = manifest.down.entries.get(key)
            payload[key] = np.array(value.float().numpy(), dtype=entry.dtype if entry else None)
    return payload


def _check_fit(source: Path, payload: dict[str, np.ndarray], manifest: Manifest) -> None:
    try:
        manifest.down.check(payload)
    except PrivacyError as error:
        raise WeightsError(f"{source} does not fit this run: {error}") from error


def check_resumable(source: Path, *, plan: Plan) -> int:
    """Make sure that a run which goes on from ``source`` finds its sites' private state.

    Returns:
        The round after which the tensors were stored.

    Raises:
        ConfigError: the file is of another experiment, method, network or backbone than the plan, or of no round.
        WeightsError: the file is missing or damaged.
    """
    metadata = load_tensors(source)[1]
    if metadata.get("fingerprint") != plan.fingerprint:
        raise ConfigError(
            f"{source} was stored by another experiment than {plan.experiment!r} with {plan.method}; to go on where "
            "the sites' private parts are, give the same --experiment, method, settings, size, classes and backbone"
        )
    number = _stored_round(metadata)
    if number is None:
        raise ConfigError(f"{source} does not say after which round it was stored; it cannot be gone on from")
    return number


def changes_since(source: Path, *, plan: Plan) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a plan that goes on from ``source`` does otherwise than the run that stored it.

    Args:
        source: a file that :func:`check_resumable` has accepted.
        plan: the plan that goes on, with its ``start_round``.

    Returns:
        ``old -> new`` by the setting's name, and the names of those that were changed, and accepted, before.

    Raises:
        ConfigError: the plan begins a budget for privacy.
        WeightsError: the file is damaged.
    """
    try:
        before = json.loads(load_tensors(source)[1]["plan"])
        accepted = tuple(str(name) for name in before.get("changed", ()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{source} does not say by which plan it was stored ({error})") from error
    if begins_budget(before, plan):
        raise ConfigError(
            f"{source} was stored by a run without a budget for privacy, and sites do not go on with what they have "
            "trained without one; begin a new experiment from these tensors: --start-from without --resume"
        )
    return plan_changes(before, plan) | end_change(before, plan), accepted


def rounds_left(source: Path) -> int:
    """Rounds that the run which stored ``source`` had still to do.

    Raises:
        ConfigError: none, or the file does not say.
        WeightsError: the file is damaged.
    """
    metadata = load_tensors(source)[1]
    number = _stored_round(metadata)
    try:
        plan = json.loads(metadata["plan"])
        left = int(plan.get("start_round", 0)) + int(plan["rounds"]) - (-1 if number is None else number) - 1
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{source} does not say how many rounds were left ({error}); give --rounds") from error
    if left < 1:
        raise ConfigError(f"the run that stored {source} had come to its end; give --rounds for more")
    return left


def _stored_round(metadata: Mapping[str, str]) -> int | None:
    number = metadata.get("round", "")
    return int(number) if re.fullmatch("-1|[0-9]+", number) else None


@contextmanager
def starting_point(
    source: str | None, *, plan: Plan, manifest: Manifest, backbone: str | None = None
) -> Iterator[tuple[Path | None, int | None]]:
    """Turn what a user wants to start from into a file of shared tensors.

    Args:
        source: a stored ``shared.safetensors``, a PEFT LoRA folder (its ``head.safetensors`` is used where there is
            one, a fresh head otherwise), or None.
        plan: the new run.
        manifest: its manifest, which the source has to fit.
        backbone: path of the backbone file, for shared tensors that the folder does not hold.

    Yields:
        The file, and the round after which it was stored; None where unknown.

    Raises:
        WeightsError: the source is missing, damaged or does not fit.
    """
    if source is None:
        yield None, None
    elif Path(source).is_dir():
        payload = _from_peft(Path(source), plan=plan, manifest=manifest, backbone=backbone)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "shared.safetensors"
            save_shared(path, payload, plan=plan, round_number=-1)
            yield path, None
    else:
        _, metadata = load_shared(Path(source), manifest=manifest)
        yield Path(source), _stored_round(metadata)


def _from_peft(folder: Path, *, plan: Plan, manifest: Manifest, backbone: str | None) -> dict[str, np.ndarray]:
    from monai_fedlora.adapters.lora import SHARED
    from monai_fedlora.adapters.peft_folder import HEAD_NAME, load_peft_folder
    from monai_fedlora.methods.low_rank import LoraMethod

    method = plan.build_method()
    if not isinstance(method, LoraMethod):
        raise WeightsError(f"{folder} holds a LoRA, and {plan.method} has none to start from it")
    tensors = load_peft_folder(folder, SHARED, scale=method.alpha / method.rank)
    if (folder / HEAD_NAME).is_file():
        tensors |= load_tensors(folder / HEAD_NAME)[0]
    _, payload = build_shared(plan, backbone=backbone)
    if unknown := sorted(set(tensors) - set(payload)):
        raise WeightsError(f"{folder} adapts {unknown[0]!r}, which this plan does not share; check blocks and targets")
    payload |= _cast(tensors, manifest)
    _check_fit(folder, payload, manifest)
    return payload
