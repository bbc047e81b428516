"""A checklist for publications on the model, filled in with what the run recorded.

It follows the topics of CLAIM (Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2020, doi
10.1148/ryai.2020200029) in words of our own, with the numbers of that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.exporting.intervals import metric_name
from monai_fedlora.exporting.model_card import VIEW_NAMES, format_metric, listed_settings
from monai_fedlora.rendering.documents import render


def claim_checklist(metadata: Mapping[str, Any]) -> str:
    """Return the Markdown text of ``docs/CLAIM.md``.

    Args:
        metadata: as from :func:`monai_fedlora.exporting.model_metadata.model_metadata`.
    """
    origin, data = metadata["provenance"], metadata["training_data"]
    formats = metadata["network_data_format"]
    return render(
        "monai_fedlora.exporting",
        "claim.md",
        metadata=metadata,
        answer=formats["outputs"]["pred"].get("format"),
        cine=formats["inputs"]["image"]["modality"] == "MR",
        called=", ".join(filter(None, (data["name"], data["source"]))),
        cases=_cases(metadata),
        settings={**origin["training_settings"], **origin["method"]["hyperparameters"]},
        results=_results(metadata),
        listed=listed_settings,
        metric_name=metric_name,
    )


def _cases(metadata: Mapping[str, Any]) -> str:
    origin = metadata["provenance"]
    first: Mapping[str, Any] = next(iter(metadata["eval_metrics"]["test"].values()), {})
    counts = {"training": origin["training_cases"], "validation": origin["validation_cases"], "test": first.get("n")}
    return ", ".join(f"{count} {split}" for split, count in counts.items() if count is not None)


def _results(metadata: Mapping[str, Any]) -> str:
    texts = []
    for view, metrics in metadata["eval_metrics"]["test"].items():
        values = {name: format_metric(entry) for name, entry in metrics.items() if isinstance(entry, Mapping)}
        shown = ", ".join(f"{metric_name(name)} {text}" for name, text in values.items() if text)
        texts.append(f"{VIEW_NAMES[view]}: {shown}")
    return ". ".join(texts)
