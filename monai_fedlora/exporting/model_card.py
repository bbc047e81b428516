"""The model card: the content of a bundle's metadata as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.exporting.intervals import COUNTED, COUNTS, metric_name
from monai_fedlora.exporting.leakage_card import by_reason
from monai_fedlora.exporting.personal_or_shared import KEY
from monai_fedlora.rendering.documents import render
from monai_fedlora.site_report import PERSONAL, SHARED

VIEW_NAMES = {PERSONAL: "personal model", SHARED: "shared model"}


def model_card(metadata: Mapping[str, Any], *, usage: str) -> str:
    """Return the Markdown text of a model card.

    Args:
        metadata: as from :func:`monai_fedlora.exporting.model_metadata.model_metadata`.
        usage: Markdown text on how to run the model.
    """
    own_or_shared = metadata.get(KEY)
    return filled(
        "card.md",
        metadata=metadata,
        usage=usage,
        own_or_shared=own_or_shared,
        shared_is_better=own_or_shared is not None and own_or_shared["better"] == SHARED,
        **_performance(metadata["eval_metrics"]["test"]),
    )


def filled(template: str, **values: Any) -> str:
    """A template of the card, filled with values."""
    tools = {
        "views": VIEW_NAMES,
        "metric_name": metric_name,
        "metric": format_metric,
        "listed": listed_settings,
        "by_reason": by_reason,
    }
    return render("monai_fedlora.exporting", template, **tools, **values)


def _performance(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of the metrics of all views, and of those with an interval."""
    entries = [(name, entry) for view in tests.values() for name, entry in view.items()]
    names = [
        name
        for name in dict.fromkeys(name for name, _ in entries)
        if name not in COUNTS and not name.startswith(COUNTED)
    ]
    certain = {name for name, entry in entries if isinstance(entry, Mapping) and entry.get("interval_95")}
    return {"metrics": names, "with_interval": [name for name in names if name in certain]}


def format_metric(entry: Mapping[str, Any] | None) -> str:
    """A metric with its interval: ``0.812 (0.655 to 0.907)``; empty if undefined."""
    if entry is None or entry["value"] is None:
        return ""
    if entry["interval_95"] is None:
        return f"{entry['value']:.3f}"
    low, high = entry["interval_95"]
    return f"{entry['value']:.3f} ({low:.3f} to {high:.3f})"


def listed_settings(settings: Mapping[str, Any]) -> str:
    """Settings as text, such as ``rank 4, targets q+v``."""
    lists = {name: value if isinstance(value, (list, tuple)) else [value] for name, value in settings.items()}
    return ", ".join(f"{name} {'+'.join(map(str, values))}" for name, values in lists.items())
