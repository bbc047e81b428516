"""Get a bundle's outputs for single cases, as an attacker could who has nothing but the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.clinic.bundle import Classifier, open_with_files
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.errors import DataError, FedLoraError
from monai_fedlora.exporting.leakage import Cases
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.head_inputs import head_inputs, joined
from monai_fedlora.studies.study import CineFile, Study
from monai_fedlora.transforms.orientation import all_orders

_INSIDE = "network."
"""Prefix of the script's tensors behind its preprocessing; the weights of the network have it twice."""


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """An opened bundle.

    Attributes:
        classifier: the model.
        metadata: content of ``metadata.json``.
        network: the network as a Python module, for the inputs of its classification heads; None if it cannot be built.
        tensors: further tensors of the script, besides the network's weights, by name.
    """

    classifier: Classifier
    metadata: Mapping[str, Any]
    network: nn.Module | None
    tensors: Mapping[str, Tensor]


def open_model(bundle: Path) -> OpenModel:
    """Check and open a bundle; everything is read from the checked copy.

    Raises:
        ConfigError, ExportError, WeightsError: as of :func:`monai_fedlora.clinic.bundle.open_bundle`.
    """
    with open_with_files(bundle) as (classifier, contents):
        weights = torch.load(contents.path("models/model.pt"), weights_only=True, map_location="cpu")
    beside = {
        name.removeprefix(_INSIDE): value.cpu()
        for name, value in classifier.script.state_dict().items()
        if name.startswith(_INSIDE) and name.removeprefix(2 * _INSIDE) not in weights and value.is_floating_point()
    }
    network = _plain(classifier.metadata, weights)
    return OpenModel(classifier=classifier, metadata=classifier.metadata, network=network, tensors=beside)


def _plain(metadata: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module | None:
    """Build the network that the metadata describe, with the weights of ``model.pt``; None if this fails."""
    origin = metadata["provenance"]
    method = origin["method"]
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in method["hyperparameters"].items()}
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    with suppress(FedLoraError, RuntimeError, KeyError, TypeError):
        network = build_network(
            size=origin["backbone"]["size"],
            out_chans=len(channels),
            backbone=UNTRAINED,
            method=method["name"],
            method_args=settings,
        )
        merge_lora(network)
        network.load_state_dict(dict(weights), strict=True)
        return network.eval()
    return None


def observe(model: OpenModel, datalist: Datalist, split: str) -> Cases | None:
    """Outputs of a model for the cases of a split; None for an empty split.

    Raises:
        DataError: an image cannot be read, or the model refuses it; the message names the case.
    """
    cases = datalist.cases(split)
    if not cases:
        return None
    logits, features, distances = zip(*(_ask(model, case, datalist) for case in cases), strict=True)
    return Cases(
        logits=torch.cat(logits),
        labels=torch.tensor([case.label for case in cases]),
        units=torch.tensor(unit_numbers(cases)),
        features=None if features[0] is None else torch.cat(features),
        distances=None if distances[0] is None else torch.cat(distances),
    )


def inputs_of(model: OpenModel, datalist: Datalist, split: str) -> Tensor:
    """The cases of a split as the network takes them, (N, ...); of several orders of the axes the first.

    Raises:
        DataError: an image cannot be read, or the model refuses it; the message names the case.
    """
    return torch.cat([_prepared(model, case, datalist)[2][:1] for case in datalist.cases(split)])


def _ask(model: OpenModel, case: Case, datalist: Datalist) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Logits (1, C), inputs of the heads (1, D) and distance (1) of one case."""
    image, affine, prepared = _prepared(model, case, datalist)
    try:
        logits, distance = model.classifier.answer(image, affine)
    except (DataError, RuntimeError, torch.jit.Error) as error:
        raise _unusable(case, datalist, error) from error
    features = None
    if model.network is not None:
        with torch.no_grad(), head_inputs(model.network) as inputs:
            model.network(prepared)
        features = joined(inputs).mean(dim=0, keepdim=True) if inputs else None
    return logits.cpu(), features, None if distance is None else distance.cpu()


def _prepared(model: OpenModel, case: Case, datalist: Datalist) -> tuple[Any, Tensor | None, Tensor]:
    """The loaded image of a case, its affine, and what the network takes of it, (K, ...) for K orders of the axes."""
    classifier, study = model.classifier, Study(name=case.subject, files=_files(case, datalist))
    try:
        loaded = load_study(study, classifier)
        affine = None if loaded.image_affine is None else torch.from_numpy(loaded.image_affine)
        prepared = classifier.prepare(loaded.image, affine)[None]
        if classifier.takes_affine and loaded.orientation == "placeholder":
            prepared = all_orders(prepared[0])
    except (DataError, RuntimeError, torch.jit.Error) as error:
        raise _unusable(case, datalist, error) from error
    return loaded.image, affine, prepared


def _unusable(case: Case, datalist: Datalist, error: Exception) -> DataError:
    return DataError(f"case {case.subject} of {datalist.site} cannot be used: {error}")


def _files(case: Case, datalist: Datalist) -> FramePair | CineFile | Photograph:
    def path(file: str | None) -> Path:
        return datalist.image_root / str(file)

    if case.image is not None:
        return Photograph(path(case.image))
    if case.cine is None:
        return FramePair(path(case.ed), path(case.es))
    frames = None if case.ed_frame is None or case.es_frame is None else (case.ed_frame, case.es_frame)
    return CineFile(path(case.cine), frames)
