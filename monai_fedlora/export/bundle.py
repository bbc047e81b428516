"""A MONAI bundle of one finished model that runs with MONAI alone."""

from __future__ import annotations

import copy
import io
import json
import math
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.errors import ExportError
from monai_fedlora.export.card import model_card
from monai_fedlora.export.check.checker import check_bundle
from monai_fedlora.export.checksums import write_checksums
from monai_fedlora.export.classifier import copy_without_call_stacks, eager_classifier, scripted_classifier
from monai_fedlora.export.finished import FinishedModel, backbone_name, find_backbone, read_finished, rebuild
from monai_fedlora.export.folder import new_folder
from monai_fedlora.export.inference import PREDICTIONS_NAME, inference_config
from monai_fedlora.export.licence import licence_text
from monai_fedlora.export.metadata import model_metadata
from monai_fedlora.export.modalities import modality_of
from monai_fedlora.export.modality import Modality
from monai_fedlora.export.verify import assert_equal, exported_view, logits
from monai_fedlora.files import atomic_path, sha256, write_text
from monai_fedlora.networks.catalogue import build_backbone


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written export.

    Attributes:
        folder: where it lies.
        metadata: its description.
        usage: the command or code that runs it.
        digest: of a bundle, see :func:`monai_fedlora.export.checksums.write_checksums`; None for PEFT folders.
    """

    folder: Path
    metadata: Mapping[str, Any]
    usage: str
    digest: str | None = None


def export_bundle(*, run: Path, site: str, output: Path, backbone: str | None = None) -> Exported:
    """Write a bundle: merged weights, a TorchScript module with the preprocessing inside, configuration and card.

    Before the folder appears it is checked that every tensor had its place, that merged and adapted network,
    TorchScript and Python, and the files read back agree in their logits, and that the bundle passes
    :func:`monai_fedlora.export.check.checker.check_bundle`.

    Args:
        run: the run's workspace, the site's private folder in it, or the stored file.
        site: whose model; "shared" for the shared part alone.
        output: folder to create.
        backbone: source of the backbone; None takes the site's own setting, then the demo weights.

    Raises:
        ExportError: the run has no such model, or a check failed; nothing is left behind.
        WeightsError: a file is damaged.
    """
    output = output.absolute()
    with new_folder(output) as folder:
        model = read_finished(run, site)
        source = find_backbone(model.plan, backbone)
        modality = modality_of(model.plan)
        weights = folder / "models" / "model.pt"
        plain = write_weights(model, source, modality.probe(), weights)
        metadata = model_metadata(
            model,
            name=output.name,
            backbone=source,
            packages=sorted({"fire", "pytorch-ignite", *modality.packages}),
            files_sha256={"models/model.pt": sha256(weights)},
        )
        config = inference_config(model.plan.classes, modality.reading())
        _write_script(plain, modality, folder / "models" / "model.ts", metadata=metadata, config=config)
        for name, content in (("metadata", metadata), ("inference", config)):
            write_text(folder / "configs" / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_text(folder / "docs" / "README.md", model_card(metadata, usage=_usage_text(output.name, modality)))
        write_text(folder / "LICENSE", licence_text(backbone_name(source)))
        _check_written(folder, plain, modality)
        digest = write_checksums(folder)
        _check_passes(folder)
    return Exported(folder=output, metadata=metadata, usage=inference_command(output), digest=digest)


def inference_command(folder: Path) -> str:
    """The command line that classifies a folder of studies."""
    root = shlex.quote(str(folder))
    config = shlex.quote(str(folder / "configs" / "inference.json"))
    return (
        f"python -m monai.bundle run --config_file {config} --bundle_root {root} "
        "--dataset_dir STUDIES --output_dir PREDICTIONS"
    )


def write_weights(model: FinishedModel, backbone: str, image: Tensor, path: Path) -> nn.Module:
    """Fold the adapters into the weights, for a shared model only the shared ones, and save them.

    Args:
        model: the finished model.
        backbone: source of the backbone.
        image: a batch of the network's input, to compare with.
        path: file to write.

    Returns:
        A plain network that has read the file back and computes what the adapted one did: a backbone with its head, and
        the network beside it where the method trains one.
    """
    network = rebuild(model, backbone)
    with exported_view(model, network):
        expected = logits(network, image)
        merge_lora(network)
    state = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
    _check_merged(model, network)
    plain = _without_values(network)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)
    plain.load_state_dict(torch.load(path, weights_only=True), strict=True)
    plain.eval()
    assert_equal(logits(plain, image), expected, "the merged weights give other logits than the adapters")
    return plain


def _check_merged(model: FinishedModel, network: nn.Module) -> None:
    """Refuse a network that has more than its backbone, its head and a network beside it."""
    backbone = build_backbone(model.plan.size, out_chans=len(model.plan.classes))
    own = (PREFIX, *backbone.head_prefixes)
    different = network.state_dict().keys() ^ backbone.state_dict().keys()
    if wrong := sorted(key for key in different if not key.startswith(own)):
        raise ExportError(
            f"{model.plan.method} cannot be merged into its backbone: {', '.join(wrong[:4])} would be left over or "
            "missing"
        )


def _without_values(network: nn.Module) -> nn.Module:
    """A copy of a network in which every number has yet to be read."""
    empty = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.fill_(math.nan)
    return empty


def _write_script(
    plain: nn.Module, modality: Modality, path: Path, *, metadata: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    from monai.data import save_net_with_metadata

    script, buffer = scripted_classifier(plain, modality), io.BytesIO()
    with _quiet():
        save_net_with_metadata(
            script,
            buffer,
            include_config_vals=False,
            meta_values=metadata,
            more_extra_files={"inference.json": json.dumps(config).encode()},
        )
    with atomic_path(path) as temporary:
        copy_without_call_stacks(buffer, temporary)


def _check_written(folder: Path, plain: nn.Module, modality: Modality) -> None:
    """Load the bundle as a consumer does and compare it with the plain network on two image sizes."""
    from monai.bundle import load

    with _quiet():
        loaded: Any = load(
            folder.name, bundle_dir=folder.parent, load_ts_module=True, device="cpu", config_files=("inference.json",)
        )
    script, metadata, extra = loaded
    for name, found in (("metadata", metadata), ("inference", json.loads(extra["inference.json"]))):
        if found != json.loads((folder / "configs" / f"{name}.json").read_text(encoding="utf-8")):
            raise ExportError(f"model.ts carries another {name}.json than the bundle; nothing was written")
    eager = eager_classifier(plain, modality)
    for image in modality.raw_probes():
        assert_equal(logits(script, image), logits(eager, image), "the TorchScript module gives other logits")


def _check_passes(folder: Path) -> None:
    """Refuse to hand out what ``monai-fedlora check`` would refuse to take."""
    if findings := check_bundle(folder).findings:
        problems = "; ".join(f"{finding.file} {finding.problem}" for finding in findings[:3])
        raise ExportError(f"the bundle does not pass its own check: {problems}; nothing was written")


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript's deprecation notices and MONAI's remark that a bundle can run code say nothing about an export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _usage_text(name: str, modality: Modality) -> str:
    needs = ", ".join(f"`{package}`" for package in ("torch", "monai", "pytorch-ignite", *modality.packages))
    return f"""\
Needs Python with {needs} and `fire`; nothing else of what it was trained with.
{modality.folder_text}, and run from anywhere, with `{name}` standing for the path of this folder:

    python -m monai.bundle run --config_file {name}/configs/inference.json --bundle_root {name} \\
        --dataset_dir STUDIES --output_dir PREDICTIONS

`PREDICTIONS/{PREDICTIONS_NAME}` then has one row per study with the probability of each class. If any study cannot
be read or lacks one of its files, the run fails and no table is written; the last study named in the output is the
one to look at.

In a program, `models/model.ts` takes {modality.tensor_text} and returns logits:

    network, metadata, _ = monai.bundle.load("{name}", bundle_dir="...", load_ts_module=True)

`models/model.pt` holds the same weights as a plain state dictionary of the network.
"""
