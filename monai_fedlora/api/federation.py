"""Running a federation inside one Python program."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_fedlora.api.finished_run import Run, finished_run
from monai_fedlora.api.site_data import SiteData
from monai_fedlora.data.cases import SPLITS, Datalist
from monai_fedlora.data.collected import Parts, collect
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.data.value_scale import common_scale
from monai_fedlora.engines.seeds import random_state_kept, seed_everything
from monai_fedlora.errors import ConfigError, DataError, nearest
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS, of_federation
from monai_fedlora.federated.in_memory import InMemory, SiteCases, weights_digest
from monai_fedlora.federated.materials import Installed, Source
from monai_fedlora.federated.plan import OWN_NETWORK, Plan
from monai_fedlora.federated.rounds import run_sites
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
from monai_fedlora.methods.base import Method
from monai_fedlora.methods.choice import MethodChoice, check_attached, tell_about_head
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.networks.pinned import beside_backbone, find_backbone, pin_backbone
from monai_fedlora.networks.prompts import own_prompts
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.scratch import private_folder
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.known import TASKS, task_of
from monai_fedlora.tasks.task import Task

__all__ = ["Run", "federate"]

CINE_BUNDLE = "cine_cmr_dual_lora_classification"
IMAGE_BUNDLE = "image_2d_fedopal_classification"
TEXT_BUNDLE = "image_2d_pfedst_classification"
_OF_DATA = ("augment", "style", "image_mean", "image_std")
"""Training settings that a network of one's own has no use for: its data say how they are prepared and augmented."""


def federate(
    network: Callable[[], nn.Module] | nn.Module | str,
    choice: MethodChoice,
    sites: Mapping[str, SiteData | str | os.PathLike[str]],
    *,
    rounds: int = 5,
    local_epochs: int = 1,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    backbone: str | None = None,
    bundle: str | None = None,
    prompts: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    experiment: str = "run",
    threads: int = 1,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
    wire_dtype: str = "float16",
    top_k: float = 1.0,
    update_bound: float = 5.0,
    **training: Any,
) -> Run:
    """Train a federation's sites one after the other in this process, by the code that federations run.

    Rounds, what may travel, the checks of what travels, averaging, metrics and records are those of a federation; only
    the messages of NVFlare are missing.

    Args:
        network: a function without arguments that makes the network, called for each site with the same seed; or a
            network, which is copied for each site; or the name of a catalogued backbone, for prepared folders alone.
            A network maps a batch of images (B, C, \\*spatial) to logits (B, classes), for segmentation
            (B, 1 + structures, \\*spatial), for regression to numbers (B, values); a tuple or an object that holds them
            will do.
        choice: of a method, see `monai_fedlora.method`.
        sites: by name, the cases of each, or the path of its prepared folder.
        rounds: of local training and averaging.
        local_epochs: passes over a site's training cases in a round.
        learning_rate: None takes the bundle's (for own networks 0.001).
        batch_size: None takes the bundle's (for own networks 32).
        seed: of every random choice: the same one gives the same bits on the same machine.
        classes: names in label order; None takes those of the sites, and for arrays "0", "1" and so on. They have to be
            named where the last of them has no case at any site.
        task: what is learnt: "classification", "segmentation" or "regression", with the names of structures or values
            as ``classes``; None takes that of prepared folders, and classification for arrays.
        backbone: of a catalogued network, the file, folder or hub id of its weights; None for its demonstration
            weights.
        bundle: whose training settings hold where nothing else is said; None for the one of the network's images.
        prompts: for methods that compare images with sentences: ``{"templates": ["a photo of {class}"],
            "class_texts": {"MEL": "melanoma"}}``, or a JSON file of it; either part may be left out, None takes the
            bundle's.
        folder: keeps the run, for the commands, for `monai_fedlora.site_report` and for going on after an
            interruption; it holds private state and is for its owner alone. None keeps nothing on the disk.
        resume: go on with the run that was interrupted in ``folder``, if its cases, network and settings were the
            same; begin where there is none.
        overwrite: replace the results of another run in ``folder``.
        experiment: name that keys private state in ``folder``.
        threads: that torch computes with on the CPU. The bits of the result depend on it.
        on_progress: called with the record so far whenever a site has answered.
        wire_dtype: how numbers travel: "float16", "float32" or "int8".
        top_k: share of each tensor's values that travels.
        update_bound: how many times as long as the median change of a round one may be.
        training: other training settings of the bundle, such as ``weight_decay=0.05``, ``warmup_epochs=0``,
            ``class_weights=None``, ``mixed_precision="bf16"`` or ``cache_features=False``; and of the federation:
            ``server_optimizer="fedadam"`` with ``server_learning_rate=0.01``, ``site_weights="equal"``, or
            ``fine_tune_epochs=2``.

    Returns:
        The finished run.

    Raises:
        ConfigError: the method does not fit the network, an argument is out of range, or ``folder`` holds another run.
        DataError: a site's cases cannot be used; the message names the site.
        WeightsError: the backbone cannot be used.

    Examples:
        >>> import torch
        >>> import monai_fedlora as fl
        >>> def network():
        ...     return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))
        >>> images, labels = torch.rand(16, 1, 4, 4), [0, 1] * 8
        >>> data = fl.SiteData(train=(images[:8], labels[:8]), test=(images[8:], labels[8:]))
        >>> sites = {"north": data, "south": data}
        >>> run = fl.federate(network, fl.method("fedit", targets="1", head="2", rank=2), sites, rounds=1)
        >>> len(run.records), run.personal("north")(images).shape
        (6, torch.Size([16, 2]))
    """
    if not isinstance(choice, MethodChoice):
        raise ConfigError(f"the method is a {type(choice).__name__}; give what fl.method(...) returns")
    if not isinstance(sites, Mapping) or not sites:
        what = "there is no site" if not sites else f"the sites are a {type(sites).__name__}, which has no names"
        raise ConfigError(f"{what}; give sites as a dictionary from names to fl.SiteData")
    given = {name: SiteData.of(value) for name, value in sites.items()}
    others = {name: value for name, value in training.items() if name in FEDERATION_SETTINGS}
    training = {name: value for name, value in training.items() if name not in others}
    if unknown := [name for name in training if name not in TRAINING_SETTINGS]:
        known = sorted({*inspect.getfullargspec(federate).kwonlyargs, *TRAINING_SETTINGS, *FEDERATION_SETTINGS})
        raise ConfigError(f"fl.federate has no setting {unknown[0]!r}{nearest(unknown[0], known)}")
    settings = {"learning_rate": learning_rate, "batch_size": batch_size}
    common: dict[str, Any] = {
        "experiment": experiment,
        "rounds": rounds,
        "local_epochs": local_epochs,
        "seed": seed,
        "sites": tuple(given),
        "training": {**{name: value for name, value in settings.items() if value is not None}, **training},
        "wire_dtype": wire_dtype,
        "top_k": top_k,
        "update_bound": update_bound,
        **of_federation(others),
    }
    with random_state_kept():
        if isinstance(network, str):
            plan, source, listed = _catalogued(
                network, choice, given, classes, task, backbone=backbone, bundle=bundle, prompts=prompts, **common
            )
        else:
            if backbone is not None:
                raise ConfigError("backbone is for a network of the catalogue; load the weights where you make yours")
            if prompts is not None:
                raise ConfigError("prompts are for a network of the catalogue that reads text, such as clip_base_16")
            plan, source, listed = _own(
                network, choice, given, classes, _task(task, given), bundle=bundle or IMAGE_BUNDLE, **common
            )
        options: dict[str, Any] = {"threads": threads, "on_progress": on_progress, "policy": lambda: NOTHING_LEAVES}
        if folder is None and (resume or overwrite):
            raise ConfigError("resume and overwrite are of a folder that keeps the run; give folder=")
        start = source.start(plan)
        with private_folder("monai-fedlora-run-") if folder is None else nullcontext(Path(folder)) as place:
            kept = folder is not None
            options["materials"] = _materials(source, listed) if kept else ""
            run_sites(start, source, folder=place, overwrite=overwrite, resume=resume, **options)
            return finished_run(place, source=source, listed=listed, manifest=start.manifest, kept=kept)


def _materials(source: Source, listed: Mapping[str, Datalist]) -> str:
    """Hash of what a run that goes on has to find as it was, beside its plan."""
    cases = [(site, found.classes, [found.cases(split) for split in SPLITS]) for site, found in sorted(listed.items())]
    digest = hashlib.sha256(repr(cases).encode())
    if isinstance(source, InMemory):
        digest.update(source.digest().encode())
    return digest.hexdigest()


def _task(name: str | None, given: Mapping[str, SiteData]) -> Task:
    """What is learnt: as given, or as the prepared folders have it."""
    found = {site: task_of(load_datalist(data.folder)).name for site, data in given.items() if data.folder is not None}
    if name is None:
        name = next(iter(found.values()), CLASSIFICATION.name)
    if differing := [site for site, task in found.items() if task != name]:
        raise ConfigError(f"the run is for {name}, and {differing[0]} is prepared for {found[differing[0]]}")
    return TASKS[name]


def _own(
    network: Callable[[], nn.Module] | nn.Module,
    choice: MethodChoice,
    given: Mapping[str, SiteData],
    classes: Sequence[str] | None,
    task: Task,
    *,
    training: Mapping[str, Any],
    **common: Any,
) -> tuple[Plan, Source, Mapping[str, Datalist]]:
    """The plan and the source of a network that is none of the catalogue."""
    if wrong := [name for name in _OF_DATA if name in training]:
        raise ConfigError(
            f"{wrong[0]} is for networks of the catalogue; give augmentation= and transform= of fl.SiteData"
        )
    read = {site: data.read(site, task.collected) for site, data in given.items()}
    image = _common_image({site: parts for site, (_, parts) in read.items()})
    make = _maker(network)

    def opened() -> tuple[Any, Method]:
        with random_state_kept():
            seed_everything(common["seed"])
            found = choice.open(make())
            if any(nn.parameter.is_lazy(tensor) for tensor in (*found[0].parameters(), *found[0].buffers())):
                _logits(found[0], image, task)
        return found

    first, method = opened()
    outputs = task.names_of_outputs(task.channels(tuple(_logits(first, image, task).shape), tuple(image.shape)))
    names = _class_names(classes, {site: said.classes for site, (said, _) in read.items()}, outputs, task)
    if task.collected.has_labels and classes is None and all(said.classes is None for said, _ in read.values()):
        _check_outputs(outputs, (parts for _, parts in read.values()))
    folders = {site: data.folder for site, data in given.items() if data.folder is not None}
    scale = common_scale({site: load_datalist(folder).scale for site, folder in folders.items()})
    if scale and len(given) > len(folders):
        raise ConfigError("prepared folders have their values on a scale, and arrays have none; prepare all sites")
    kind: dict[str, Any] = {} if task is CLASSIFICATION else {"kind": task.collected, "task": task.listed_as[0]}
    sites: dict[str, SiteCases] = {}
    for site, (said, parts) in read.items():
        dataset = said.folder.parent.name if said.folder else "memory"
        listed, items = collect(parts, site=site, classes=names, images=said.images, dataset=dataset, **kind)
        listed = dataclasses.replace(listed, scale=scale)
        sites[site] = SiteCases(listed=listed, items=items, augmentation=tuple(said.augmentation))
    plan = Plan(
        method=method.name,
        method_args=dataclasses.asdict(method),
        classes=names,
        size=OWN_NETWORK,
        task=task.name,
        scale=scale,
        backbone_sha256=weights_digest(first),
        declared_cases=_declared({site: cases.listed for site, cases in sites.items()}, common),
        training=dict(training),
        **common,
    )
    source = InMemory(opened=lambda: opened()[0], sites=sites)
    attached = source.network(plan, method)
    tell_about_head(attached)
    check_attached(attached, image[None])
    return plan, source, {site: cases.listed for site, cases in sites.items()}


def _declared(listed: Mapping[str, Datalist], common: Mapping[str, Any]) -> dict[str, int]:
    """What the plan declares of its sites: their training cases, and under a budget their patients."""
    if common.get("privacy") is None:
        return {site: len(found.training) for site, found in listed.items()}
    return {site: len(set(unit_numbers(found.training))) for site, found in listed.items()}


def _maker(network: Callable[[], nn.Module] | nn.Module) -> Callable[[], nn.Module]:
    """A function that gives the network as it begins."""
    if not isinstance(network, nn.Module) and not callable(network):
        raise ConfigError(
            f"the network is a {type(network).__name__}; give a function that makes it, a torch.nn.Module, or the name "
            "of a catalogued backbone"
        )

    def make() -> nn.Module:
        if isinstance(network, nn.Module):
            try:
                return copy.deepcopy(network)
            except Exception as error:
                tell_out_of_memory(error, "copying the network for a site")
                raise ConfigError(
                    f"the network cannot be copied for each site ({error}); give a function that makes it"
                ) from error
        return network()

    return make


def _logits(network: nn.Module, image: torch.Tensor, task: Task) -> torch.Tensor:
    """What a network makes of one image: logits (1, C, ...), checked."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
            logits: torch.Tensor = network(image[None].to(device))
    except ConfigError:
        raise
    except Exception as error:
        tell_out_of_memory(error, "trying the network on one image")
        raise ConfigError(
            f"the network does not take images of shape {tuple(image.shape)}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    if wrong := task.check_output(tuple(logits.shape), tuple(image.shape)):
        raise ConfigError(f"the network gives an output of shape {tuple(logits.shape)} for one image; {wrong}")
    if task.gives_logits and bool((logits >= 0).all()) and float((logits.sum(dim=1) - 1).abs().max()) < 1e-3:
        raise ConfigError(
            "the network gives probabilities: its outputs for an image are not negative and their sum is 1. The loss "
            "takes the softmax itself; leave it out of the network, so that it gives logits"
        )
    return logits


def _check_outputs(outputs: int, parts: Iterable[Parts]) -> None:
    """Refuse outputs that no case has for a label, where nothing says that there are such classes."""
    highest = max((item.entries["label"] for part in parts for items in part.values() for item in items), default=0)
    if highest + 1 < outputs:
        raise ConfigError(
            f"the network has {outputs} outputs, and no label is above {highest}: it may give features, or its head "
            f"be that of another task. Make it give {highest + 1} logits, or name all {outputs} with classes= where "
            "some have no case"
        )


def _common_image(parts: Mapping[str, Parts]) -> torch.Tensor:
    """The first training image, of the shape that all sites' images have."""
    first: tuple[str, torch.Tensor] | None = None
    for site, found in parts.items():
        if not found["training"]:
            raise DataError(f"{site} has no training case; give it some, or leave the site out")
        image = found["training"][0].image
        if first is not None and image.shape != first[1].shape:
            raise DataError(
                f"the images of {first[0]} have the shape {tuple(first[1].shape)}, and those of {site} "
                f"{tuple(image.shape)}; bring all to one, for example with transform="
            )
        first = first or (site, image)
    if first is None:
        raise ConfigError("there is no site")
    return first[1]


def _class_names(
    classes: Sequence[str] | None, said: Mapping[str, Sequence[str] | None], outputs: int, task: Task
) -> tuple[str, ...]:
    """Names of the classes, which all sites agree on."""
    found = {"the run": tuple(classes)} if classes is not None else {}
    found |= {site: tuple(names) for site, names in said.items() if names is not None}
    who, names = next(iter(found.items()), ("the network", tuple(map(str, range(outputs)))))
    if differing := [site for site, other in found.items() if other != names]:
        raise ConfigError(
            f"{who} has the {task.named} {list(names)}, and {differing[0]} {list(found[differing[0]])}; all sites need "
            "the same in the same order"
        )
    if len(names) != outputs:
        outputs_said = f"{outputs} outputs" if task.outputs(0) == 0 else f"outputs for {outputs}"
        raise ConfigError(f"{who} has {len(names)} {task.named}, and the network {outputs_said}; they must be as many")
    return names


def _catalogued(
    size: str,
    choice: MethodChoice,
    given: Mapping[str, SiteData],
    classes: Sequence[str] | None,
    task: str | None,
    *,
    backbone: str | None,
    bundle: str | None,
    prompts: Mapping[str, Any] | str | os.PathLike[str] | None,
    **common: Any,
) -> tuple[Plan, Source, Mapping[str, Datalist]]:
    """The plan and the source of a catalogued backbone with prepared folders."""
    modality = architecture(size).modality
    if choice.layers is not None:
        raise ConfigError(f"{size} knows its head and its blocks; leave their names out, and list targets by role")
    method = choice.method
    listed: dict[str, Datalist] = {}
    for site, data in given.items():
        if data.folder is None or data.transform or data.augmentation:
            raise ConfigError(
                f"{size} reads and augments images in its own way, for which {site} has to be a prepared folder "
                "without transforms: SiteData.prepared(folder). For arrays give a function that makes the network"
            )
        listed[site] = load_datalist(data.folder)
    chosen = _task(task, given)
    names = _class_names(
        classes,
        {site: found.classes for site, found in listed.items()},
        len(next(iter(listed.values())).classes),
        chosen,
    )
    images = TEXT_BUNDLE if method.reads_text else IMAGE_BUNDLE
    bundle = bundle or (CINE_BUNDLE if modality == "cine" else images)
    said = prompts if prompts is None or isinstance(prompts, Mapping) else Path(prompts)
    source = find_backbone(size, backbone)
    common["training"] = {**beside_backbone(size, source, common["training"]), **common["training"]}
    plan = Plan(
        bundle=bundle,
        method=method.name,
        method_args=dataclasses.asdict(method),
        classes=names,
        size=size,
        task=chosen.name,
        scale=common_scale({site: found.scale for site, found in listed.items()}),
        backbone_sha256=pin_backbone(size, source, texts=method.reads_text),
        declared_cases=_declared(listed, common),
        prompts=own_prompts(bundle, names, file=said) if method.reads_text or said is not None else None,
        **common,
    )
    folders = {site: data.folder for site, data in given.items() if data.folder is not None}
    return plan, Installed(backbone=source, datalists=folders), listed
