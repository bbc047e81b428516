"""Summary of the model for the page, from the bundle's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.compared import KEY, compared
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.opened_model import OpenedModel
from monai_fedlora.clinic.outlining import Outliner
from monai_fedlora.clinic.overlay import scale
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.exporting.intervals import metric_name
from monai_fedlora.serve.names import accepted_suffixes
from monai_fedlora.site_report import PERSONAL, SHARED
from monai_fedlora.studies.study import CINE

_LONGEST = 300
_METRICS = ("balanced_accuracy", "accuracy", "sensitivity", "specificity", "auroc", "ece")
_MEASURED = ("dice", "mean_absolute_error", "bias", "agreement_low", "agreement_high")
"""Beginnings of the metrics of models that measure."""
_KINDS = {"personal": "the site's own", "shared": "shared by all sites"}


def describe_models(classifier: Classifier | Measurer | None, outliner: Outliner | None) -> dict[str, Any]:
    """The content of ``/api/model``, without the entries that depend on the server's settings.

    Args:
        classifier: the model of the class or of the numbers; None for outlines alone, which are then described in its
            place. ``gives`` says what is answered where that is no class.
        outliner: the model of the outlines, in the entry ``outlines``; None for a class alone.
    """
    shown = outliner if classifier is None else classifier
    assert shown is not None
    described = _describe(shown) | {
        "classes": list(classifier.classes) if isinstance(classifier, Classifier) else [],
        "gives": classifier.gives
        if isinstance(classifier, Measurer)
        else "This model draws outlines, and gives no class.",
    }
    return described if outliner is None else described | {"outlines": _describe(outliner)}


def _describe(classifier: OpenedModel | Outliner) -> dict[str, Any]:
    metadata = classifier.metadata
    return {
        "name": classifier.name,
        "version": classifier.version,
        "sha256": classifier.sha256,
        "modality": "cine" if classifier.modality == CINE else "photograph",
        "notice": NOT_FOR_CLINICAL_USE,
        "trained_on": {**classifier.trust.origin.to_json(), "summary": classifier.trust.origin.summary},
        "limits": [str(sentence) for sentence in metadata.get("limitations", [])],
        "intended_use": str(metadata.get("intended_use", "")),
        "accepts": list(accepted_suffixes(classifier.modality)),
        "overlay": scale(),
        "card": model_card(metadata) | {"Training images": classifier.trust.origin.summary},
        "blind": list(classifier.trust.blind),
        "origin_doubts": classifier.trust.origin.doubts(),
        "warnings": model_warnings(metadata),
    }


def model_card(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Facts about a model for a reader, as label and text, as far as the metadata have them."""
    origin = _mapping(metadata, "provenance")
    method, backbone = _mapping(origin, "method"), _mapping(origin, "backbone")
    entries = {
        "Task": metadata.get("task"),
        "Site": origin.get("site"),
        "Kind": _KINDS.get(str(origin.get("kind"))),
        "Method": _joined(method.get("name"), method.get("summary")),
        "Participating sites": origin.get("participating_sites"),
        "Rounds": origin.get("rounds"),
        "Training cases": origin.get("training_cases"),
        "Validation cases": origin.get("validation_cases"),
        "Backbone": _joined(backbone.get("file"), backbone.get("size")),
        **_test_entries(metadata, personal=origin.get("kind") == "personal"),
        "Beside the shared model": _mapping(metadata, KEY).get("said"),
        "Calibration": _calibration(_mapping(metadata, "calibration")),
        "Exported": origin.get("exported"),
    }
    return {label: str(text)[:_LONGEST] for label, text in entries.items() if text not in (None, "")}


def model_warnings(metadata: Mapping[str, Any]) -> list[str]:
    """Warnings that are shown before any answer: the shared model did better than this personal one."""
    found = compared(metadata)
    return [found.sentence] if found is not None and found.warns else []


def _test_entries(metadata: Mapping[str, Any], *, personal: bool) -> dict[str, str]:
    """Test metrics of the exported model: the personal or the shared one."""
    views = _mapping(_mapping(metadata, "eval_metrics"), "test")
    metrics = _mapping(views, PERSONAL if personal and PERSONAL in views else SHARED)
    entries = {"Test cases": str(metrics["n"])} if "n" in metrics else {}
    for key in (*_METRICS, *(name for name in metrics if name.startswith(_MEASURED))):
        entry = _mapping(metrics, key)
        if not isinstance(entry.get("value"), int | float):
            continue
        text = f"{entry['value']:.2f}"
        if isinstance(bounds := entry.get("interval_95"), list) and len(bounds) == 2:
            text += f" (95 % interval {bounds[0]:.2f} to {bounds[1]:.2f})"
        entries[f"Test {metric_name(key)}"] = text
    return entries


def _calibration(entry: Mapping[str, Any]) -> str | None:
    if not entry:
        return None
    if not entry.get("fitted"):
        return _joined("not calibrated", entry.get("reason"))
    cases = _mapping(entry, "validation").get("n")
    return f"temperature {float(entry['temperature']):.2f}, fitted on {cases} validation cases"


def _joined(first: Any, second: Any) -> str | None:
    parts = [str(part) for part in (first, second) if part]
    return ": ".join(parts) or None


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}
