"""Export one finished model as a MONAI bundle that runs with MONAI alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.arrays import Arrays, OwnNetwork
from monai_fedlora.exporting.bundle_zip import pack
from monai_fedlora.exporting.calibration import calibrate
from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.exporting.claim import claim_checklist
from monai_fedlora.exporting.classifier import scripted_model, write_script
from monai_fedlora.exporting.exported_program import write_program
from monai_fedlora.exporting.finished import FinishedModel, backbone_name, find_backbone, read_exportable, rebuild
from monai_fedlora.exporting.folder import new_folder
from monai_fedlora.exporting.inference_config import inference_config
from monai_fedlora.exporting.kept_reference import keep_reference, kept_reference
from monai_fedlora.exporting.keys import SigningKey
from monai_fedlora.exporting.leakage import read_audit, read_run_audit
from monai_fedlora.exporting.leakage_card import card_entry
from monai_fedlora.exporting.licence import licence_text
from monai_fedlora.exporting.measured import measured_leakage, with_audit
from monai_fedlora.exporting.merged_weights import write_weights
from monai_fedlora.exporting.modalities import answer_of, modality_of
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.model_card import model_card
from monai_fedlora.exporting.model_metadata import model_metadata
from monai_fedlora.exporting.network import AssessingNetwork, ExportedNetwork
from monai_fedlora.exporting.onnx_file import write_onnx
from monai_fedlora.exporting.public_images import public_features, public_images
from monai_fedlora.exporting.public_reference import NO_PUBLIC, fit_public_reference
from monai_fedlora.exporting.reference import Place, check_patients, fit_reference
from monai_fedlora.exporting.signing import sign_bundle
from monai_fedlora.exporting.usage import ONNX, PROGRAM, SCRIPT, WEIGHTS, inference_command, model_files, usage_text
from monai_fedlora.exporting.written import check_models, check_passes
from monai_fedlora.files import make_folder, sha256, write_text
from monai_fedlora.out_of_memory import memory_told
from monai_fedlora.tasks.task import FEATURES, MEMBERSHIP, OUTPUTS


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written export.

    Attributes:
        folder: the folder, or the zip file if it was packed.
        metadata: content of its ``metadata.json``.
        usage: the command or code that runs it.
        digest: of a bundle, see `monai_fedlora.exporting.checksums.write_checksums`; None for PEFT folders.
    """

    folder: Path
    metadata: Mapping[str, Any] = field(repr=False)
    usage: str
    digest: str | None = None


@memory_told("exporting a model")
def export_bundle(
    *,
    run: Path,
    site: str,
    output: Path,
    backbone: str | None = None,
    program: bool = True,
    onnx: bool = False,
    packed: bool = False,
    statistics: bool = True,
    public: Path | None = None,
    on_public: Callable[[int, int], None] = lambda done, total: None,
    key: SigningKey | None = None,
    own: OwnNetwork | None = None,
) -> Exported:
    """Write a bundle: merged weights, models with the preprocessing inside, configuration, card and checksums.

    Before the bundle appears, these checks are made: every stored tensor belongs to the network; the merged network and
    every model file give the same logits as the adapted network; and the bundle passes
    :func:`monai_fedlora.exporting.check.checker.check_bundle`. The membership inference attacks that need no training
    are run, and their results written to metadata and card.

    Args:
        run: the run's workspace, the site's private folder in it, or the stored file.
        site: whose model; "shared" for the shared part alone.
        output: folder to create.
        backbone: source of the backbone; None takes the site's own setting, then the demo weights.
        program: also write the model as a program of `torch.export`, which holds the weights once more.
        onnx: also write the network as an ONNX file.
        packed: create a zip file of the folder instead, with its name and the ending ``.zip``.
        statistics: whether a personal model can measure the distance of an image from the site's patients, see
            :mod:`monai_fedlora.exporting.reference`, and a shared model that from ``public`` cases.
        public: folder of prepared sites whose cases are public. Together with phantoms they choose the directions of
            the distance; for a shared model the distance is measured from them.
        on_public: called with the number of public images done, and of all.
        key: signs the bundle, see :mod:`monai_fedlora.exporting.signing`; None leaves it unsigned.
        own: the user's own network, whose bundle holds the program in place of a script; None for one of the catalogue.

    Raises:
        ConfigError: ONNX is asked for and not installed.
        ExportError: the run has no such model, or a check failed; nothing is left behind.
        WeightsError: a file is damaged.
    """
    output = output.absolute()
    if packed:
        export = partial(export_bundle, run=run, site=site, backbone=backbone, program=program, onnx=onnx, own=own)
        return _packed(partial(export, statistics=statistics, public=public, on_public=on_public, key=key), output)
    with new_folder(output) as folder:
        model = read_exportable(run, site)
        modality: Modality
        if own is None:
            source, keys = find_backbone(model.plan, backbone), None
            modality, adapted = modality_of(model.plan), rebuild(model, source)
        else:
            source, keys = own.name, own.keys
            modality, adapted = Arrays(shape=own.shape), own.restored(model)
        plain = write_weights(model, adapted, modality.probe(), folder / WEIGHTS, own=keys)
        answer = answer_of(model.plan)
        calibration = calibrate(model.evidence) if OUTPUTS in model.plan.task_of.sections else None
        temperature = 1.0 if calibration is None else calibration.temperature
        reference: Place | str = "it was left out of this export"
        if statistics:
            reference = site_reference(model, plain, modality, public=public, on_public=on_public)
        finished: dict[str, Any] = {"temperature": temperature, "scale": model.plan.scale}
        network = ExportedNetwork(plain, **finished).eval()
        scripted = network
        if isinstance(reference, Place):
            scripted = AssessingNetwork(plain, **finished, reference=reference).eval()
        if not program and not modality.scripted:
            raise ExportError("the bundle of a network of one's own is the program; leave program=False out")
        files = model_files(modality, answer, program=program, onnx=onnx)
        metadata = model_metadata(
            model,
            name=output.name,
            modality=modality,
            backbone=source,
            packages=sorted({"fire", "pytorch-ignite", *modality.packages}),
            files_sha256={WEIGHTS: sha256(folder / WEIGHTS)},
            files=files,
            calibration=calibration,
            reference=reference,
        )
        if MEMBERSHIP in model.plan.task_of.sections:
            leakage = with_audit(measured_leakage(model.evidence, reference, metadata), read_audit(model.path))
            metadata["measured_leakage"] = card_entry(leakage, read_run_audit(model.path))
        else:
            metadata["measured_leakage"] = {"measured": False, "reason": answer.unmeasured_leakage}
        config = inference_config(answer.writing(modality), modality.reading())
        if modality.scripted:
            script = scripted_model(scripted, modality, answer.whole)
            write_script(script, folder / SCRIPT, metadata=metadata, config=config)
        if program:
            write_program(network, modality, folder / PROGRAM, metadata=metadata)
        if onnx:
            write_onnx(network, modality, folder / ONNX)
        for name, content in (("metadata", metadata), ("inference", config)):
            write_text(folder / "configs" / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        usage = usage_text(output.name, modality, answer, files)
        write_text(folder / "docs" / "README.md", model_card(metadata, usage=usage))
        write_text(folder / "docs" / "CLAIM.md", claim_checklist(metadata))
        write_text(folder / "LICENSE", licence_text(backbone_name(source)))
        check_models(folder, scripted, modality, answer)
        digest = write_checksums(folder)
        if key is not None:
            sign_bundle(folder, key)
        check_passes(folder, keys=[key.public] if key else [])
    return Exported(folder=output, metadata=metadata, usage=inference_command(output), digest=digest)


def site_reference(
    model: FinishedModel,
    network: nn.Module,
    modality: Modality,
    *,
    public: Path | None = None,
    on_public: Callable[[int, int], None] = lambda done, total: None,
) -> Place | str:
    """Where the site's patients (for a shared model, public cases) lie, to measure the distance of an image from them.

    A reference that an earlier export of the model made is used again.

    Args:
        model: the finished model.
        network: its merged network.
        modality: kind of its images.
        public: see :func:`export_bundle`.
        on_public: see :func:`export_bundle`.

    Returns:
        The reference, or the reason why there is none.
    """
    if FEATURES not in model.plan.task_of.sections:
        return (
            f"a run of {model.plan.task} keeps no features of its cases to measure a distance from, as no audit could "
            "tell what a place of theirs in the bundle reveals"
        )
    if not modality.foreign:
        return "there are no public images like those of a network of its makers' own"
    if model.site is None and public is None:
        return NO_PUBLIC
    images = public_images(modality.phantom, prepared=public)
    try:
        if model.site is None:
            features = public_features(network, images, modality, on_image=on_public)
            return fit_public_reference(features, images.cases, description=images.description)
        if (kept := kept_reference(model.path, images.description)) is not None:
            return kept
        check_patients(model.evidence)
        features = public_features(network, images, modality, on_image=on_public)
        drawn = fit_reference(model.evidence, features, description=images.description)
        return keep_reference(model.path, drawn)
    except ExportError as error:
        return str(error)


def _packed(export: Callable[..., Exported], output: Path) -> Exported:
    """Export to a hidden folder, and pack it as a zip file."""
    target = output if output.suffix == ".zip" else output.with_name(f"{output.name}.zip")
    if target.exists():
        raise ExportError(f"{target} exists; choose another output, or remove it")
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        exported = export(output=Path(scratch) / target.stem)
        pack(exported.folder, target)
    return replace(exported, folder=target, usage=inference_command(Path(target.stem)))
