"""Read the tensors of a finished run, and load them into the network that they were trained in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.data.origin import UNKNOWN, Origin, check_kind
from monai_fedlora.environment import BACKBONE
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.kept_evidence import SHARED_MODEL, Evidence, no_evidence, read_evidence
from monai_fedlora.exporting.locate import find_personal, find_shared
from monai_fedlora.exporting.pooled import pooled_test
from monai_fedlora.federated.initial import stored_images
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import OWN_NETWORK, Plan
from monai_fedlora.federated.run_record import INCOMPLETE, RESULTS_NAME
from monai_fedlora.federated.server_state import without_moments
from monai_fedlora.federated.shortfalls import learnt
from monai_fedlora.federated.site_state import TRAINED_ON
from monai_fedlora.files import load_tensors, read_json
from monai_fedlora.networks.catalogue import Network, build_backbone, demo_weights, pinned_demo_weights
from monai_fedlora.networks.weights import HUB_PREFIX, backbone_sha256
from monai_fedlora.scope import Role
from monai_fedlora.site_report import PERSONAL, SHARED, current_views
from monai_fedlora.tasks.task import EXPORT

SHARED_SITE = "shared"
"""In place of a site's name: the shared model."""


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """The personal model of a site, or the shared model of a run.

    Attributes:
        path: the file it was read from.
        plan: the experiment.
        site: name of the site; None for the shared model.
        rounds: number of rounds trained.
        tensors: trained tensors by state-dict key; of a shared model the shared ones alone.
        tuned: shared parameters as the site has trained them further for itself after the last round, by state-dict
            key; its personal model has these in place of the federation's.
        cases: number of training cases of the site; None for the shared model.
        test: metrics of the test split by view ("personal", "shared").
        validation_cases: number of validation cases of the site; None if not recorded.
        evidence: outputs for the site's cases that the run has kept.
        origin: of the site's own images; unknown for the shared model, and for a run of an earlier version.
        shared_origin: kind of all images that trained the shared part, see :mod:`monai_fedlora.data.origin`; None if
            the method shares nothing that is trained.
    """

    path: Path
    plan: Plan
    site: str | None
    rounds: int
    tensors: Mapping[str, Tensor]
    cases: int | None
    test: Mapping[str, Mapping[str, Any]]
    validation_cases: int | None = None
    evidence: Evidence = field(default_factory=no_evidence)
    origin: Origin = field(default_factory=Origin)
    shared_origin: str | None = UNKNOWN
    tuned: Mapping[str, Tensor] = field(default_factory=dict)


def read_finished(run: Path, site: str) -> FinishedModel:
    """Find and read a site's model, or for :data:`SHARED_SITE` the shared one.

    Raises:
        ExportError: it is missing, ambiguous, of another site, or inconsistent.
        WeightsError: the file is damaged.
    """
    return read_shared(find_shared(run)) if site == SHARED_SITE else read_personal(find_personal(run, site), site)


def read_exportable(run: Path, site: str) -> FinishedModel:
    """As :func:`read_finished`, for an export.

    Raises:
        ExportError: as there, or the models of the run's task have no export.
        WeightsError: the file is damaged.
    """
    model = read_finished(run, site)
    if EXPORT not in model.plan.task_of.sections:
        raise ExportError(
            f"{run} is a run of {model.plan.task}, whose models cannot be exported; in Python, run.personal(site) "
            "gives the network itself"
        )
    return model


def read_personal(path: Path, site: str) -> FinishedModel:
    """Read a site's ``final.safetensors``.

    Raises:
        ExportError: the file is of another site, is no final model, or is inconsistent.
        WeightsError: the file is damaged.
    """
    stored, metadata = load_tensors(path)
    plan = _plan(path, metadata)
    if metadata.get("site") != site or site not in plan.sites:
        raise ExportError(f"{path} is the model of {metadata.get('site')!r}, not of {site!r}")
    try:
        record = json.loads(metadata["record"])
        rounds, cases, test = int(record["round"]), int(record["cases"]), dict(current_views(record.get("test", {})))
        validation = current_views(record.get("validation", {})).get(PERSONAL, {}).get("n")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path} has no record of a finished run ({error}); was the run finished?") from error
    untrained = record.get("restored_rounds", rounds) == 0 or (test and PERSONAL not in test)
    if untrained and not plan.epochs_after:
        raise ExportError(
            f"{site} has trained no round of {plan.experiment}, or has lost what it trained, so that it has no "
            "personal model; results.json says under 'refused' why, and --site shared exports the model of the others"
        )
    tensors: dict[str, Tensor] = {}
    tuned: dict[str, Tensor] = {}
    for key, value in stored.items():
        part, slash, name = key.partition("/")
        if part not in ("shared", "private", "tuned") or not slash:
            raise ExportError(f"{path} holds {key!r}, which belongs to no final model")
        (tuned if part == "tuned" else tensors)[name] = value
    origin, shared_origin = trained_on(path, metadata)
    return FinishedModel(
        path=path,
        plan=plan,
        site=site,
        rounds=rounds,
        tensors=tensors,
        cases=cases,
        test=test,
        validation_cases=validation,
        evidence=read_evidence(path),
        origin=origin,
        shared_origin=shared_origin,
        tuned=tuned,
    )


def trained_on(path: Path, metadata: Mapping[str, str] | None = None) -> tuple[Origin, str | None]:
    """Origin of the images that a site's model was trained on; unknown for a run of an earlier version.

    Args:
        path: of the model.
        metadata: of the file, if it was read already.

    Returns:
        The origin of the site's own images, and the kind of all images that trained the shared part (None if the method
        has none).

    Raises:
        ExportError: the entry is invalid.
        WeightsError: the file is damaged.
    """
    metadata = load_tensors(path)[1] if metadata is None else metadata
    if TRAINED_ON not in metadata:
        return Origin(), UNKNOWN
    try:
        said = json.loads(metadata[TRAINED_ON])
        if said["shared"] is not None:
            check_kind(said["shared"])
        return Origin.from_json(said["site"]), said["shared"]
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path} does not say what its model was trained on ({error}); it is damaged") from error


def read_shared(path: Path) -> FinishedModel:
    """Read the server's ``shared.safetensors``, with the sites' pooled test metrics if they are known.

    The metrics are taken from the ``results.json`` beside the file if it belongs to the same, finished run.

    Raises:
        ExportError: the file has no plan, or does not fit it; or the run ended without any site having trained.
        WeightsError: the file is damaged.
    """
    tensors, metadata = load_tensors(path)
    plan = _plan(path, metadata)
    if not metadata.get("round", "").isdigit():
        raise ExportError(f"{path} does not say after which round it was stored; give the server's shared tensors")
    rounds = int(metadata["round"]) + 1
    test = {}
    if (path.parent / RESULTS_NAME).is_file() and rounds == plan.start_round + plan.rounds:
        results = read_json(path.parent / RESULTS_NAME)
        _check_learnt(path, plan, results)
        pooled = pooled_test(results, plan)
        test = {SHARED: pooled} if pooled else {}
    return FinishedModel(
        path=path,
        plan=plan,
        site=None,
        rounds=rounds,
        tensors=without_moments(tensors),
        cases=None,
        test=test,
        evidence=no_evidence(SHARED_MODEL),
        shared_origin=stored_images(path, metadata),
    )


def _check_learnt(path: Path, plan: Plan, results: Any) -> None:
    """Refuse the initial tensors of a run in which no update of any site was accepted."""
    try:
        if results["status"] != INCOMPLETE or learnt(results):
            return
        same = Plan.from_json(results["plan"]).fingerprint == plan.fingerprint
    except (AttributeError, ConfigError, KeyError, TypeError):  # the results of something else
        return
    if same:
        raise ExportError(
            f"{path} holds what the run began with: no answer of any site counted, so that nobody has trained it; "
            f"{RESULTS_NAME} beside it says under 'refused' why"
        )


def _plan(path: Path, metadata: Mapping[str, str]) -> Plan:
    if "plan" not in metadata:
        raise ExportError(f"{path} carries no plan; it was not written by a federated run of this package")
    try:
        plan = Plan.from_json(json.loads(metadata["plan"]))
    except (ConfigError, ValueError) as error:
        raise ExportError(f"{path} carries a plan that this version cannot read: {error}") from error
    if metadata.get("fingerprint") != plan.fingerprint:
        raise ExportError(f"{path} contradicts its own plan: the file was altered or put together from two experiments")
    return plan


def find_backbone(plan: Plan, backbone: str | None) -> str:
    """The source of the plan's backbone: ``backbone``, else the site's own setting, else the demo weights.

    Raises:
        ExportError: there is none of these, or its SHA-256 is not the plan's.
        WeightsError: the file cannot be read.
    """
    if plan.size == OWN_NETWORK:
        raise ExportError(
            "this run's network came from a Python program, which alone can build it: export it there, with "
            "fl.federate(..., folder=..., resume=True).export(site, folder)"
        )
    chosen = backbone or os.environ.get(BACKBONE)
    source = chosen or pinned_demo_weights(plan.size, plan.backbone_sha256) or demo_weights(plan.size)
    if source is None:
        raise ExportError(
            f"there are no demo weights of size {plan.size}; give the backbone with --backbone or {BACKBONE}"
        )
    source = str(source)
    if source.startswith(HUB_PREFIX):
        return source
    found = backbone_sha256(source) if Path(source).exists() else "no file"
    if found != plan.backbone_sha256:
        which = "" if chosen else " (the demo weights, as no other file was given)"
        raise ExportError(
            f"{source}{which} is not the backbone this model was trained on: expected SHA-256 {plan.backbone_sha256}, "
            f"found {found}; give the right file with --backbone or {BACKBONE}"
        )
    return source


def untrained_network(plan: Plan) -> Network:
    """The plan's network of the catalogue as it is before a method is attached, randomly initialised."""
    task = plan.task_of
    return build_backbone(plan.size, out_chans=task.outputs(len(plan.classes)), masks=task.gives_masks)


def backbone_name(source: str) -> str:
    """A backbone's name for documents: without folders, and without characters that a configuration would interpret."""
    name = source if source.startswith(HUB_PREFIX) else Path(source).name
    return re.sub(r"[^A-Za-z0-9._:/-]", "_", name)


def rebuild(model: FinishedModel, backbone: str) -> Any:
    """Build the adapted network of a finished run, on the CPU and in evaluation mode.

    The network of a shared model also contains the private parts, untrained; use it in the context of
    :func:`monai_fedlora.exporting.verify.exported_view`.

    Args:
        model: the tensors and their plan.
        backbone: source of the backbone, see :func:`find_backbone`.

    Raises:
        ExportError: the tensors are not exactly the plan's, or not finite; or the method has no shared model.
    """
    return restored(model, Installed(backbone=backbone).network(model.plan, _method(model)))


def restored(model: FinishedModel, network: Any) -> Any:
    """Load a finished model's tensors into its adapted network, in place, and set it to evaluation mode.

    Args:
        model: the tensors and their plan.
        network: with the plan's method attached, or that method with the settings of the model's site.

    Raises:
        ExportError: see :func:`rebuild`.
    """
    plan, method = model.plan, _method(model)
    scope = plan.scope(network)
    expected = set(scope.manifest.down.entries)
    if model.site is not None:
        expected |= set(scope.keys(Role.PRIVATE))
    elif method.shared_only(network) is None:
        why = (
            "a part that it needs, such as the head, is private to each site" if expected else "its sites share nothing"
        )
        raise ExportError(f"{plan.method} has no shared model: {why}; export a site's own model instead")
    _fill(network, model.tensors, expected, model.path)
    method.begin_round(network, model.rounds)
    further = set(scope.keys(Role.SHARED)) if model.site is not None and plan.tunes_shared(scope) else set()
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    _fill(network, model.tuned, further & trained, model.path)
    return network.eval()


def _method(model: FinishedModel) -> Any:
    """The plan's method, with the settings of the model's site."""
    return model.plan.build_method() if model.site is None else model.plan.site_method(model.site)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], expected: set[str], path: Path) -> None:
    state = network.state_dict()
    problems = []
    if missing := expected - tensors.keys():
        problems.append(f"it lacks {_listed(missing)}")
    if unknown := tensors.keys() - expected:
        problems.append(f"{_listed(unknown)} {'is' if len(unknown) == 1 else 'are'} not part of the method's model")
    common = expected & tensors.keys()
    if wrong := {key for key in common if tensors[key].shape != state[key].shape}:
        problems.append(f"{_listed(wrong)} have another shape")
    elif damaged := {key for key in common if not torch.isfinite(tensors[key]).all()}:
        problems.append(f"{_listed(damaged)} hold NaN or infinite values")
    if problems:
        raise ExportError(f"{path} does not fit its own plan: {'; '.join(problems)}; it is of another run or damaged")
    with torch.no_grad():
        for key in expected:
            state[key].copy_(tensors[key])


def _listed(names: Iterable[str], limit: int = 4) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
