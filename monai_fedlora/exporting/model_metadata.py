"""The metadata of an exported model, in the format of MONAI bundles."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.exporting.calibration import Calibration
from monai_fedlora.exporting.finished import FinishedModel, backbone_name
from monai_fedlora.exporting.intervals import BOOTSTRAP, METHODS, with_intervals
from monai_fedlora.exporting.modalities import answer_of
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.personal_or_shared import KEY, personal_or_shared
from monai_fedlora.exporting.reference import Place, Reference, unavailable
from monai_fedlora.exporting.trained_on import training_data
from monai_fedlora.federated.plan import BY_CASES
from monai_fedlora.site_report import VIEWS
from monai_fedlora.tasks.task import CONFUSION

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
LIMITATIONS = (
    "Devices, protocols, hospitals and patient groups that were not among the training cases can lower its accuracy.",
    "Test metrics come from held-out cases of the training sites, not from an independent hospital; mind the width of "
    "their intervals.",
    "A trained model can reveal facts about its training cases; share this folder only as you would share such data.",
)
_SOFTWARE = ("monai", "torch", "numpy", "nvflare", "peft", "pytorch-ignite")


def model_metadata(
    model: FinishedModel,
    *,
    name: str,
    modality: Modality,
    backbone: str,
    packages: Sequence[str],
    files_sha256: Mapping[str, str],
    calibration: Calibration | None,
    reference: Place | str,
    files: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the content of ``metadata.json``.

    It names no folder of this machine, no patient, and no site except the model's own.

    Args:
        model: the finished model.
        name: of the exported folder.
        modality: kind of its images.
        backbone: source of the backbone.
        packages: packages for running it, besides MONAI.
        files_sha256: SHA-256 of the weights files by path.
        calibration: of its probabilities; None for a model that gives none.
        reference: for the detection of unusual images, or why there is none.
        files: input and output of each model file.
    """
    plan = model.plan
    answer = answer_of(plan)
    whose = f"of {model.site}" if model.site else "shared by all sites, for a hospital that was not one of them"
    metadata = {
        "schema": SCHEMA,
        "name": name,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported after {model.rounds} rounds of {plan.experiment}"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {package: _version(package) for package in packages},
        "supported_apps": {},
        "task": f"{answer.kind} of {modality.subject} {answer.task}",
        "description": (
            f"The model {whose}, {modality.start} in a federation of {len(plan.sites)} sites with "
            f"{plan.method}. {modality.processing.format(does=answer.verb)} {answer.returned}"
        ),
        "authors": f"{model.site or plan.experiment}, with monai-fedlora {__version__}",
        "copyright": "held by whoever trained the model; terms of the backbone and of the software: see LICENSE",
        "intended_use": f"Research on {modality.subject}. Not a medical device, not for clinical use, not for "
        "diagnosis.",
        "limitations": [
            *answer.limitations,
            *modality.limitations,
            *LIMITATIONS,
            *_further_limitations(calibration, reference),
            *_outside_the_budget(model),
        ],
        "data_source": "cases of the participating sites; not part of this bundle",
        "training_data": training_data(model, backbone=backbone),
        "data_type": modality.data_type,
        "image_classes": modality.image_classes,
        "preprocessing": modality.input_text,
        **answer.labels(),
        "references": [*modality.references, plan.build_method().source],
        "eval_metrics": {
            "test": {view: with_intervals(model.test[view]) for view in VIEWS if view in model.test},
            "intervals_95": METHODS if CONFUSION in plan.task_of.sections else {plan.task_of.key: BOOTSTRAP},
        },
        KEY: personal_or_shared(model),
        **({} if calibration is None else {"calibration": calibration.to_json()}),
        "out_of_distribution": unavailable(reference) if isinstance(reference, str) else reference.to_json(),
        "model_files": dict(files or {}),
        "provenance": provenance(model, backbone=backbone) | {"files_sha256": dict(files_sha256)},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "num_channels": modality.channels,
                    "dtype": "float32",
                    "is_patch_data": False,
                    "network_image_size": list(modality.image_size),
                    **modality.input_format(),
                }
            },
            **answer.formats(modality),
        },
    }
    return json.loads(json.dumps(metadata))


def _further_limitations(calibration: Calibration | None, reference: Place | str) -> list[str]:
    found = []
    if calibration is not None and calibration.reason is None:
        found = [
            "The probabilities were calibrated on the site's own validation cases; elsewhere, or after a change of the "
            "scanner or of the patients, they can be too sure or not sure enough."
        ]
    elif calibration is not None:
        found = [
            f"The probabilities were not calibrated after training ({calibration.reason}); see the expected "
            "calibration error (ece) where it is given."
        ]
    if isinstance(reference, Reference):
        found.append(
            "The distance from the site's patients tells some images that the model was not made for; one within the "
            "threshold can still be wrong or of another kind."
        )
    elif isinstance(reference, Place):
        found.append(
            "The distance from public cases tells some images that the model was not made for; one within the "
            "threshold can still be wrong or of another kind, and one beyond it like the training cases."
        )
    return found


def _outside_the_budget(model: FinishedModel) -> list[str]:
    """What of a model that was trained under a privacy budget the budget does not cover."""
    if (budget := model.plan.privacy) is None:
        return []
    said = (
        "What each site sent in training is differentially private for each of its patients (epsilon "
        f"{budget.epsilon:g}, delta {budget.delta:g})"
    )
    if model.site is None and model.plan.start is not None:
        return [
            f"{said}. The weights began from tensors of an earlier training, for which this says nothing, and all "
            "other numbers in this folder, such as test metrics, are outside."
        ]
    if model.site is None:
        return [f"{said}, and so are the weights. All other numbers in this folder, such as test metrics, are outside."]
    return [
        f"{said}. This model is outside of that promise: what the site has made its own was trained on its patients "
        "without noise, and its test metrics are theirs."
    ]


def provenance(model: FinishedModel, *, backbone: str) -> dict[str, Any]:
    """Backbone, method, federation and software of a model. Other sites are counted, not named."""
    plan = model.plan
    method = plan.build_method()
    return {
        "not_for_clinical_use": True,
        "kind": "personal" if model.site else "shared",
        "site": model.site,
        "experiment": plan.experiment,
        "participating_sites": len(plan.sites),
        "rounds": model.rounds,
        "local_epochs_per_round": plan.local_epochs,
        **({"fine_tune_epochs": plan.fine_tune_epochs} if model.site and plan.fine_tune_epochs else {}),
        **({"site_weights": plan.site_weights} if plan.site_weights != BY_CASES else {}),
        **({"server_optimizer": plan.server_optimizer.to_json()} if plan.server_optimizer else {}),
        "seed": plan.seed,
        "training_cases": model.cases,
        "validation_cases": model.validation_cases,
        "training_bundle": plan.bundle,
        "training_settings": dict(plan.training),
        "wire_dtype": plan.wire_dtype,
        "top_k": plan.top_k,
        "method": {
            "name": plan.method,
            "summary": method.summary,
            "source": method.source,
            "hyperparameters": dataclasses.asdict(method),
        },
        "backbone": {"file": backbone_name(backbone), "sha256": plan.backbone_sha256, "size": plan.size},
        "plan_fingerprint": plan.fingerprint,
        "licence": {
            "software": "Apache-2.0",
            "weights": "terms of the backbone and of the institutions whose cases were trained on; see LICENSE",
        },
        "exported": datetime.now(timezone.utc).date().isoformat(),
        "software": {
            "monai-fedlora": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _SOFTWARE},
            **plan.plugins,
        },
    }


def headline(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The test metrics of ``metadata.json`` by view, each with ``value`` and ``interval_95``."""
    return {
        view: {name: entry for name, entry in metrics.items() if isinstance(entry, Mapping)}
        for view, metrics in metadata["eval_metrics"]["test"].items()
    }


def _version(package: str) -> str:
    """Installed version without a local part such as ``+cpu``."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"
