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
from monai_fedlora.data.value_scale import HEART_VALUES, known_scales
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import jobs
from monai_fedlora.federated.changes import listed
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS, of_federation
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
from monai_fedlora.federated.installation import installed_versions
from monai_fedlora.federated.noised_rounds import NoisedRound
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_rule import AVERAGING, ROBUST_FROM, USUAL_ROBUST, stored_averaging, usual_rule
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS, check_names
from monai_fedlora.methods import get_method
from monai_fedlora.methods.choice import MethodChoice
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.networks.pinned import beside_backbone, find_backbone, pin_backbone
from monai_fedlora.networks.prompts import bundle_prompts, own_prompts
from monai_fedlora.resources import bundle_digest, bundle_setting, bundle_task
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import report_bits
from monai_fedlora.tasks.known import TASKS
from monai_fedlora.tasks.task import Task

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
        if (picture := _picture(plan)) is not None:
            notes.append(picture)
        if (rule := _rule(plan)) is not None:
            notes.append(rule)
        notes += [_noise(plan, site) for site in plan.sites if plan.privacy is not None]
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
    task: str | None = None,
    classes: Sequence[str] | None = None,
    values: Mapping[str, tuple[float, float] | None] | None = None,
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
    min_sites: int | None = None,
    required_sites: Sequence[str] = (),
    round_timeout: int | None = None,
    first_round_timeout: int | None = None,
    final_timeout: int | None = None,
    sample: float = 1.0,
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    allow_versions: bool = False,
    custom_folder: bool = True,
) -> WrittenJob:
    """Write the NVFlare job of a federation whose sites have their own data, for a network of the catalogue.

    Plug-in backbones and methods are of the catalogue too; each site has to have their package.

    Args:
        method: a name, or a choice of `monai_fedlora.method`.
        output: folder to create.
        sites: names of the sites, as NVFlare knows them.
        rounds: of local training and averaging; None for 5, and with ``resume`` for as many as were left. With
            ``resume`` 0 repeats the final evaluation alone.
        local_epochs: passes over a site's training cases in a round.
        task: "classification", "segmentation", "regression", or a plug-in's; None for the bundle's.
        classes: names of classes in label order, or of structures; None for the bundle's.
        values: of a regression, by name each number with its scale, a usual value and a usual distance from it, as the
            sites' data were prepared with; None takes the usual scale of a heart's, and in place of all lv_ef and
            lv_edv.
        bundle: training bundle.
        size: a backbone's name; None for the bundle's.
        backbone: its file, folder or hub id, which every site has to have; None for the demo weights.
        prompts: for methods that compare images with sentences: a JSON file, or what it holds, with ``templates``,
            ``class_texts`` or both; None for the bundle's.
        class_texts: what classes are called in the sentences; these win.
        settings: of the method, of training and of the federation, such as ``{"rank": 4, "batch_size": 8,
            "server_optimizer": "fedadam"}``.
        experiment: name that keys the sites' private state; None for the folder's name.
        seed: of every random choice.
        wire_dtype: how numbers travel: "float16", "float32" or "int8".
        top_k: share of each tensor's values that a site sends; the others wait.
        declared_cases: training cases of sites; an update that claims more is refused.
        max_share: largest share of a round's weight for a site that has declared none, from 0.5.
        update_bound: how many times as long as the median change of a round one may be.
        min_sites: answers that have to be accepted, or a round does not count and is tried again, three times at most;
            None begins with all sites, and lets a round count with one, or with as many as the rule of averaging takes.
        required_sites: of which each has to be among them.
        round_timeout: seconds for which the server waits for a round's answers; None waits for every connected site.
        first_round_timeout: the same for the first round; None for ten times as long.
        final_timeout: the same for the final evaluation; None for as long as in the first round.
        sample: share of the sites that are asked in a round.
        start_from: stored ``shared.safetensors``, or a PEFT adapter folder.
        resume: go on with the round after the one that ``start_from`` was stored in.
        accept_changes: go on with other settings than before; the plan says which.
        allow_versions: let sites with any versions of the packages, and any bundle of that name, take part, and record
            what they have; otherwise those of this installation are pinned, and a site with others refuses.
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
    others = {*TRAINING_SETTINGS, *FEDERATION_SETTINGS}
    own = {key: value for key, value in given.items() if key not in others}
    size = size or str(bundle_setting(bundle, "train", "size"))
    learnt = TASKS[task or bundle_task(bundle)]
    names, scale = _names(learnt, bundle=bundle, classes=classes, values=values)
    weights = find_backbone(size, backbone)
    members = tuple(one_or_more(sites))
    participation = Participation(
        min_sites=min_sites,
        required_sites=tuple(required_sites),
        round_timeout=round_timeout,
        first_round_timeout=first_round_timeout,
        final_timeout=final_timeout,
        sample=sample,
    )
    participation.check(members)
    method_of = get_method(name, own)
    if AVERAGING not in own and resume and start_from is not None and Path(start_from).is_file():
        own |= stored_averaging(Path(start_from))
    elif AVERAGING not in own:
        own |= usual_rule(method_of, sites=members, participation=participation, top_k=top_k)
    reads_text = method_of.reads_text
    words = bundle_prompts(bundle) if reads_text else None
    if prompts is not None or class_texts:
        file = prompts if prompts is None or isinstance(prompts, Mapping) else Path(prompts)
        words = own_prompts(bundle, names, file=file, class_texts=class_texts)
    plan = Plan(
        experiment=experiment or folder.name,
        bundle=bundle,
        method=name,
        method_args=own,
        sites=members,
        classes=names,
        rounds=_ROUNDS if rounds is None or (resume and rounds == 0) else rounds,
        local_epochs=local_epochs,
        size=size,
        backbone_sha256=pin_backbone(size, weights, texts=reads_text),
        seed=seed,
        wire_dtype=wire_dtype,
        top_k=top_k,
        declared_cases=dict(declared_cases or {}),
        max_share=max_share,
        update_bound=update_bound,
        training={
            **beside_backbone(size, weights, given),
            **{key: value for key, value in given.items() if key in TRAINING_SETTINGS},
        },
        prompts=words,
        task=learnt.name,
        scale=scale,
        participation=participation,
        bundle_sha256="" if allow_versions else bundle_digest(bundle),
        versions={} if allow_versions else installed_versions(),
        **of_federation(given),
    )
    if plan.declared_cases:
        check_steps(plan)
    if plan.privacy is not None:
        for site in plan.sites:
            _noised(plan, site)
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


def _names(
    task: Task,
    *,
    bundle: str,
    classes: Sequence[str] | None,
    values: Mapping[str, tuple[float, float] | None] | None,
) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    """Names of what is learnt, and of values their scale."""
    if task.scaled is None:
        if values:
            raise ConfigError(f"--value is of a regression, and {task.name} has {task.named}; name them with --classes")
        if classes is None and task.name != bundle_task(bundle):
            raise ConfigError(
                f"the bundle {bundle} is for {bundle_task(bundle)} and names no {task.named} of {task.name}; name "
                "them with --classes"
            )
        return tuple(one_or_more(classes or bundle_setting(bundle, "inference", "classes"))), ()
    if classes is not None:
        raise ConfigError(f"{task.name} has {task.named} and no classes: give --value NAME, and drop --classes")
    chosen = values or dict.fromkeys(HEART_VALUES)
    scales = known_scales(chosen)
    if unknown := [name for name in chosen if name not in scales]:
        raise ConfigError(
            f"--value {unknown[0]} needs the scale that the sites' data were prepared with, a usual value and a usual "
            f"distance from it, such as {unknown[0]}=50/15"
        )
    return tuple(chosen), tuple(scales[name] for name in chosen)


def _noised(plan: Plan, site: str) -> NoisedRound:
    """The noised round of a site; refuses a budget that the plan cannot keep to."""
    size = plan.training.get("batch_size") or bundle_setting(plan.bundle, "train", "batch_size")
    return NoisedRound.of(plan, site, batch_size=int(size))


def _noise(plan: Plan, site: str) -> str:
    """What the budget makes of a site's rounds, in words."""
    found, budget, rounds = _noised(plan, site), plan.privacy, plan.start_round + plan.rounds
    assert budget is not None
    spare = f" and {budget.spare_rounds} to spare" if budget.spare_rounds else ""
    return (
        f"{site}: epsilon {budget.epsilon:g} (delta {budget.delta:g}) for each patient, over {rounds} rounds{spare} of "
        f"{found.mechanism.steps} steps on {found.expected:g} of {plan.declared_cases[site]} patients on average, with "
        f"noise of {found.mechanism.noise_multiplier:g} times the length {budget.clip:g} of a clipped gradient"
    )


def _rule(plan: Plan) -> str | None:
    """How answers are combined, where the plan's method has that as a setting and it is not the usual mean."""
    rule = plan.method_args.get(AVERAGING)
    if rule is None:
        return None
    why = f", which is usual from {ROBUST_FROM} sites on and bears a minority that lies" if rule == USUAL_ROBUST else ""
    return f"answers are combined by {AVERAGING}={rule}{why}; --set {AVERAGING}=factors takes their mean"


def _picture(plan: Plan) -> str | None:
    """How photographs become the network's input, and who says so; None for cines."""
    chosen = architecture(plan.size)
    if chosen.mean is None or chosen.std is None:
        return None
    height, width = chosen.image_size
    mean, std = (plan.training.get(name) for name in ("image_mean", "image_std"))
    who = "as the files beside the weights or --set say" if mean or std else f"as {plan.size} has it"
    mean, std = (" ".join(f"{level:g}" for level in levels) for levels in (mean or chosen.mean, std or chosen.std))
    return (
        f"photographs become {height} x {width} pixels with levels in [0, 1], less the mean {mean} and divided by "
        f"{std}, {who}"
    )


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
