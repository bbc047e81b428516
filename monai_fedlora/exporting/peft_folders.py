"""Export a finished model's adapters as folders that PEFT reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from monai_fedlora.adapters.lora import PRIVATE, SHARED, lora_layers
from monai_fedlora.adapters.peft_folder import HEAD_NAME, save_peft_folder
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.calibration import calibrate
from monai_fedlora.exporting.finished import (
    FinishedModel,
    backbone_name,
    find_backbone,
    read_exportable,
    rebuild,
    untrained_network,
)
from monai_fedlora.exporting.folder import new_folder
from monai_fedlora.exporting.licence import licence_text
from monai_fedlora.exporting.modalities import answer_of, modality_of
from monai_fedlora.exporting.model_card import model_card
from monai_fedlora.exporting.model_metadata import model_metadata
from monai_fedlora.exporting.verify import assert_equal, exported_view, logits
from monai_fedlora.files import load_tensors, save_tensors, sha256, write_json, write_text
from monai_fedlora.networks.catalogue import Network
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.scope import Role
from monai_fedlora.tasks.task import OUTPUTS


def export_peft(*, run: Path, site: str, output: Path, backbone: str | None = None) -> Exported:
    """Write the adapters as PEFT folders ``shared`` and ``private``, with the head in the folder of its role.

    ``monai-fedlora job --start-from`` also reads ``shared``. Before the folder appears, PEFT loads the adapters onto
    the backbone, and the logits are compared.

    Args:
        run: the run's workspace, the site's private folder in it, or the stored file.
        site: whose model; "shared" for the shared part alone.
        output: folder to create.
        backbone: source of the backbone; None takes the site's own setting, then the demo weights.

    Raises:
        ExportError: the run has no such model, its task no export or its method no adapters, or the check failed;
            nothing is left behind.
        WeightsError: a file is damaged.
    """
    output = output.absolute()
    with new_folder(output) as folder:
        model = read_exportable(run, site)
        source = find_backbone(model.plan, backbone)
        network = rebuild(model, source)
        adapters = _write_adapters(network, model, folder)
        _check_scales(network, model, adapters)
        _check_written(network, model, folder, source, adapters)
        weights = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.safetensors"))}
        metadata = model_metadata(
            model,
            name=output.name,
            modality=modality_of(model.plan),
            backbone=source,
            packages=("peft",),
            files_sha256=weights,
            calibration=calibrate(model.evidence) if OUTPUTS in model.plan.task_of.sections else None,
            reference="PEFT folders hold adapters only",
        )
        usage = _usage(model, adapters, heads=sorted(path for path in weights if path.endswith(HEAD_NAME)))
        write_json(folder / "metadata.json", metadata)
        write_text(folder / "README.md", model_card(metadata, usage=usage))
        write_text(folder / "LICENSE", licence_text(backbone_name(source)))
    return Exported(folder=output, metadata=metadata, usage=usage)


def _write_adapters(network: Network, model: FinishedModel, folder: Path) -> list[str]:
    """Write one folder per adapter and the head's file; returns the adapters' names."""
    if model.tuned:
        raise ExportError(
            f"{model.site} has trained its model further after the last round, so that its {SHARED} adapter is no "
            "longer the federation's and no folder may be called so; export a bundle, or the shared model"
        )
    with torch.device("meta"):
        plain = untrained_network(model.plan).state_dict()
    heads = {key for key in plain if key.startswith(network.head_prefixes)}
    scope = model.plan.scope(network)
    roles = {SHARED: Role.SHARED} | ({PRIVATE: Role.PRIVATE} if model.site else {})
    adapters = []
    for name, role in roles.items():
        trained = scope.keys(role)
        rest = [key for key in trained if key not in heads]
        if unfit := [key for key in rest if f".lora_A.{name}." not in key and f".lora_B.{name}." not in key]:
            raise ExportError(
                f"{model.plan.method} trains more than adapters and a head ({unfit[0]}), which a PEFT folder cannot "
                "hold; export a bundle instead"
            )
        if rest:
            save_peft_folder(network, name, folder / name)
            adapters.append(name)
        head = {key: model.tensors[key].float() for key in trained if key in heads}
        if head:
            save_tensors(folder / name / HEAD_NAME, head, {"format": "pt"})
    if not adapters:
        raise ExportError(f"{model.plan.method} trains no adapter that PEFT knows; export a bundle instead")
    return adapters


def _check_scales(network: Network, model: FinishedModel, adapters: list[str]) -> None:
    """Refuse a method that scales an adapter by another factor than PEFT does (alpha / r)."""
    with exported_view(model, network):
        for layer in lora_layers(network).values():
            for name in adapters:
                if layer.scaling[name] != layer.lora_alpha[name] / layer.r[name]:
                    raise ExportError(
                        f"{model.plan.method} weighs its {name} adapter by another number than alpha / r, which a PEFT "
                        "folder cannot say; export a bundle instead"
                    )


def _check_written(network: Network, model: FinishedModel, folder: Path, backbone: str, adapters: list[str]) -> None:
    """Let PEFT load the written adapters onto a new backbone, and compare the logits."""
    from peft import PeftModel

    fresh = untrained_network(model.plan)
    load_backbone(fresh, backbone, sha256=model.plan.backbone_sha256)
    for path in folder.rglob(HEAD_NAME):
        with torch.no_grad():
            for key, value in load_tensors(path)[0].items():
                fresh.state_dict()[key].copy_(value)
    wrapped: Any = PeftModel.from_pretrained(fresh, str(folder / adapters[0]), adapter_name=adapters[0])
    for name in adapters[1:]:
        wrapped.load_adapter(str(folder / name), adapter_name=name)
    wrapped.base_model.set_adapter(adapters)
    wrapped.eval()
    image = modality_of(model.plan).probe()
    with exported_view(model, network):
        expected = logits(network, image)
    assert_equal(logits(wrapped, image), expected, "PEFT gives other logits with the written adapters")


def _usage(model: FinishedModel, adapters: list[str], *, heads: list[str]) -> str:
    plan, task = model.plan, model.plan.task_of
    outputs, masks = task.outputs(len(plan.classes)), ", masks=True" if task.gives_masks else ""
    lines = [
        "from peft import PeftModel",
        "from safetensors.torch import load_file",
        "",
        "from monai_fedlora.networks.catalogue import build_backbone",
        "from monai_fedlora.networks.weights import load_backbone",
        "",
        f'network = build_backbone("{plan.size}", out_chans={outputs}{masks})',
        f'load_backbone(network, BACKBONE_FILE, sha256="{plan.backbone_sha256}")',
        *(f'network.load_state_dict(load_file("{path}"), strict=False)' for path in heads),
        f'network = PeftModel.from_pretrained(network, "{adapters[0]}", adapter_name="{adapters[0]}")',
        *(f'network.load_adapter("{name}", adapter_name="{name}")' for name in adapters[1:]),
        *([f"network.base_model.set_adapter({adapters})"] if len(adapters) > 1 else []),
    ]
    start = (
        "",
        "A federation with the same backbone, method settings and classes starts from the shared part with",
        "",
        f"    monai-fedlora job {plan.method} --output JOB --start-from shared --bundle {plan.bundle} "
        f"--size {plan.size} --backbone BACKBONE_FILE",
    )
    return "\n".join(
        [
            "Load the adapters onto the backbone, here from inside this folder:",
            "",
            *(f"    {line}".rstrip() for line in lines),
            *(("", f"The network then gives {answer_of(plan).plain_logits}.") if plan.scale else ()),
            *(start if SHARED in adapters else ()),
        ]
    )
