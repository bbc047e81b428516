"""A federation's job, written for its sites."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_fedlora.api.federation import CINE_BUNDLE
from monai_fedlora.api.method_choice import named
from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import jobs
from monai_fedlora.federated.changes import listed
from monai_fedlora.federated.initial import (
    build_shared,
    changes_since,
    check_resumable,
    check_steps,
    needs_backbone,
    rounds_left,
    start_origin,
    starting_point,
    stored_start,
)
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS, check_names
from monai_fedlora.methods import get_method
from monai_fedlora.methods.choice import MethodChoice
from monai_fedlora.networks.pinned import find_backbone, pin_backbone
from monai_fedlora.networks.prompts import bundle_prompts, own_prompts
from monai_fedlora.resources import bundle_setting, bundle_task
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import report_bits

__all__ = ["WrittenJob", "write_job"]

_ROUNDS = 5
_REPORTED_CASES = 1000
"""For which the notes say what a report can hold."""


@dataclass(frozen=True, kw_only=True)
class WrittenJob:
    """An NVFlare job folder.

    Attributes:
        folder: where it lies, for `monai_fedlora.simulate`, `monai_fedlora.recipe` and ``nvflare job submit``.
        plan: what its sites agree on.
        manifest: the names, shapes and types of what travels; nothing else can.
    """

    folder: Path
    plan: Plan
    manifest: Manifest

    @property
    def notes(self) -> list[str]:
        """What the run starts from, what travels in it, and what the limits on one site are, a line each."""
        plan, up, down = self.plan, self.manifest.up, self.manifest.down
        notes = []
        if plan.changed:
            notes.append(f"not as in the rounds before: {', '.join(plan.changed)}")
        if plan.start is not None:
            start = plan.start
            notes.append(f"starts from {start.name}, of {start.kind} images; every model of this run will say so")
        most = math.ceil(report_bits(form=plan.form, cases=_REPORTED_CASES) / 8)
        return [
            *notes,
            f"per site and round {len(up.entries)} tensors of {up.nbytes:,} bytes go up and {len(down.entries)} of "
            f"{down.nbytes:,} bytes come down; they are listed in {self.folder / 'app' / 'config' / 'manifest.json'}",
            f"the report beside them can say at most {most:,} bytes, for {_REPORTED_CASES:,} validation cases; a "
            f"change of more than {plan.update_bound:g} times the median length is clipped, and a site that has not "
            f"declared its cases has at most {plan.max_share:.0%} of the weight",
        ]


def write_job(
    method: str | MethodChoice,
    *,
    output: str | os.PathLike[str],
    sites: Sequence[str],
    rounds: int | None = None,
    local_epochs: int = 1,
    classes: Sequence[str] | None = None,
    bundle: str = CINE_BUNDLE,
    size: str | None = None,
    backbone: str | None = None,
    prompts: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    class_texts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    experiment: str | None = None,
    seed: int = 0,
    wire_dtype: str = "float16",
    top_k: float = 1.0,
    declared_cases: Mapping[str, int] | None = None,
    max_share: float = 0.75,
    update_bound: float = 5.0,
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    custom_folder: bool = True,
) -> WrittenJob:
    """Write the NVFlare job of a federation whose sites have their own data, for a network of the catalogue.

    Plug-in backbones and methods are of the catalogue too; each site has to have their package.

    Args:
        method: a name, or a choice of `monai_fedlora.method`.
        output: folder to create.
        sites: names of the sites, as NVFlare knows them.
        rounds: of local training and averaging; None for 5, and with ``resume`` for as many as were left.
        local_epochs: passes over a site's training cases in a round.
        classes: names in label order; None for the bundle's.
        bundle: training bundle.
        size: a backbone's name; None for the bundle's.
        backbone: its file, folder or hub id, which every site has to have; None for the demo weights.
        prompts: for methods that compare images with sentences: a JSON file, or what it holds, with ``templates``,
            ``class_texts`` or both; None for the bundle's.
        class_texts: what classes are called in the sentences; these win.
        settings: of the method and of training, such as ``{"rank": 4, "batch_size": 8}``.
        experiment: name that keys the sites' private state; None for the folder's name.
        seed: of every random choice.
        wire_dtype: how numbers travel: "float16", "float32" or "int8".
        top_k: share of each tensor's values that a site sends; the others wait.
        declared_cases: training cases of sites; an update that claims more is refused.
        max_share: largest share of a round's weight for a site that has declared none, from 0.5.
        update_bound: how many times as long as the median change of a round one may be.
        start_from: stored ``shared.safetensors``, or a PEFT adapter folder.
        resume: go on with the round after the one that ``start_from`` was stored in.
        accept_changes: go on with other settings than before; the plan says which.
        custom_folder: whether the job lets NVFlare load this package's classes; without it sites have to allow-list
            them.

    Returns:
        The job.

    Raises:
        ConfigError: a name is unknown (the nearest is given), a setting is out of range, or ``output`` exists.
        WeightsError: the backbone, or what the run starts from, cannot be used.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import monai_fedlora as fl
        >>> with tempfile.TemporaryDirectory() as place:
        ...     choice = fl.method("dual_lora", rank=4)
        ...     job = fl.write_job(choice, output=Path(place) / "job", sites=["north", "south"], rounds=3)
        ...     sorted(path.name for path in job.folder.iterdir())
        ['app', 'meta.json']
        >>> job.plan.rounds, job.plan.method_args, len(job.manifest.up.entries)
        (3, {'rank': 4}, 12)
    """
    if accept_changes and not resume:
        raise ConfigError("--accept-changes is of --resume, which goes on with a stored run; leave it out")
    folder = Path(output)
    name, given = named(method)
    given |= settings or {}
    check_names(given, [name])
    own = {key: value for key, value in given.items() if key not in TRAINING_SETTINGS}
    size = size or str(bundle_setting(bundle, "train", "size"))
    names = tuple(one_or_more(classes or bundle_setting(bundle, "inference", "classes")))
    weights = find_backbone(size, backbone)
    reads_text = get_method(name, own).reads_text
    words = bundle_prompts(bundle) if reads_text else None
    if prompts is not None or class_texts:
        file = prompts if prompts is None or isinstance(prompts, Mapping) else Path(prompts)
        words = own_prompts(bundle, names, file=file, class_texts=class_texts)
    plan = Plan(
        experiment=experiment or folder.name,
        bundle=bundle,
        method=name,
        method_args=own,
        sites=tuple(one_or_more(sites)),
        classes=names,
        rounds=_ROUNDS if rounds is None else rounds,
        local_epochs=local_epochs,
        size=size,
        backbone_sha256=pin_backbone(size, weights, texts=reads_text),
        seed=seed,
        wire_dtype=wire_dtype,
        top_k=top_k,
        declared_cases=dict(declared_cases or {}),
        max_share=max_share,
        update_bound=update_bound,
        training={key: value for key, value in given.items() if key in TRAINING_SETTINGS},
        prompts=words,
        task=bundle_task(bundle),
    )
    if plan.declared_cases:
        check_steps(plan)
    held = weights if needs_backbone(plan) else None
    manifest, _ = build_shared(plan, backbone=held)
    source = None if start_from is None else str(start_from)
    with starting_point(source, plan=plan, manifest=manifest, backbone=held) as (initial, stored_round):
        if not resume:
            plan = replace(plan, start=start_origin(source))
        elif initial is None or stored_round is None:
            raise ConfigError("--resume needs --start-from with a stored shared.safetensors, which knows its round")
        else:
            plan = _resumed(plan, initial, stored_round, rounds=rounds, accept_changes=accept_changes)
        jobs.write_job(plan, manifest, folder, initial=initial, custom_folder=custom_folder)
    return WrittenJob(folder=folder, plan=plan, manifest=manifest)


def _resumed(plan: Plan, initial: Path, stored_round: int, *, rounds: int | None, accept_changes: bool) -> Plan:
    """The plan that goes on where stored tensors were left."""
    check_resumable(initial, plan=plan)
    left = rounds_left(initial) if rounds is None else rounds
    plan = replace(plan, start=stored_start(initial), start_round=stored_round + 1, rounds=left)
    changes, accepted = changes_since(initial, plan=plan)
    if changes and not accept_changes:
        raise ConfigError(
            f"{initial} was stored with other settings than the job would have ({listed(changes)}); give the same ones "
            "to go on to the bits of a run that nobody disturbed, or add --accept-changes"
        )
    return replace(plan, changed=tuple(sorted({*accepted, *changes})))
