"""The model card: what a bundle's metadata says, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.data.origin import MIXED, REAL, SYNTHETIC, UNKNOWN
from monai_fedlora.export.finished import SHARED_SITE
from monai_fedlora.export.leakage import leakage_lines
from monai_fedlora.export.personal_or_shared import KEY
from monai_fedlora.report import PERSONAL, SHARED

VIEW_NAMES = {PERSONAL: "personal model", SHARED: "shared model"}


def model_card(metadata: Mapping[str, Any], *, usage: str) -> str:
    """Return the Markdown text of a model card.

    Args:
        metadata: as from :func:`monai_fedlora.export.metadata.model_metadata`.
        usage: Markdown text on how to run the model.
    """
    origin = metadata["provenance"]
    settings = ", ".join(f"{key} {plain_setting(value)}" for key, value in origin["method"]["hyperparameters"].items())
    training = ", ".join(f"{key} {plain_setting(value)}" for key, value in origin["training_settings"].items())
    cases = "" if origin["training_cases"] is None else f", {origin['training_cases']} training cases at this site"
    facts = {
        "Kind": f"{origin['kind']} model" + (f" of {origin['site']}" if origin["site"] else ""),
        "Classes": metadata["label_classes"],
        "Federation": f"experiment {origin['experiment']}, {origin['participating_sites']} sites, {origin['rounds']} "
        f"rounds of {origin['local_epochs_per_round']} epochs{cases}",
        "Method": f"{origin['method']['name']}: {origin['method']['summary']} ({origin['method']['source']})",
        "Hyper-parameters": settings or "none",
        "Training settings": f"bundle {origin['training_bundle']}, seed {origin['seed']}"
        + (f", {training}" if training else ""),
        "Backbone": f"{origin['backbone']['file']} (size {origin['backbone']['size']}), SHA-256 "
        f"`{origin['backbone']['sha256']}`",
        "Plan fingerprint": f"`{origin['plan_fingerprint']}`",
        "Licence": f"software {origin['licence']['software']}; weights: {origin['licence']['weights']}",
        "Software": ", ".join(f"{package} {number}" for package, number in origin["software"].items()),
        "Exported": origin["exported"],
    }
    lines = [
        f"# {metadata['name']}",
        "",
        metadata["description"],
        "",
        f"**{metadata['intended_use']}**",
        "",
        "## Training images",
        "",
        *training_lines(metadata["training_data"]),
        "",
        "## Performance",
        "",
        *performance(metadata),
        *own_or_shared_lines(metadata.get(KEY)),
        "",
        "## Calibration",
        "",
        *calibration_lines(metadata["calibration"]),
        "",
        "## Unusual images",
        "",
        *distance_lines(metadata["out_of_distribution"]),
        "",
        "## Measured leakage",
        "",
        *leakage_lines(metadata.get("measured_leakage")),
        "",
        "## Use",
        "",
        usage.strip(),
        "",
        "## Input",
        "",
        metadata["preprocessing"],
        "",
        "## Origin",
        "",
        *(f"- {label}: {text}" for label, text in facts.items()),
        "",
        "## Limitations",
        "",
        *(f"- {text}" for text in metadata["limitations"]),
        "",
        "## References",
        "",
        *(f"- {text}" for text in metadata["references"]),
    ]
    return "\n".join(lines) + "\n"


def training_lines(said: Mapping[str, Any]) -> list[str]:
    """Markdown lines: what images the model was trained on, and what follows from that."""
    called = ", ".join(filter(None, (said["name"], said["source"])))
    lines = [f"**{_TRAINED[said['kind']]}**"]
    if called:
        lines += ["", f"The site's own data set: {called}."]
    parts = said.get("parts", {})
    facts = {
        "The site's own images": parts.get("site"),
        "All images that moved the shared part, as its sites say": parts.get("shared"),
    }
    lines += ["", *(f"- {label}: {kind}" for label, kind in facts.items() if kind)]
    if start := parts.get("start"):
        lines.append(f"- The shared part started from: {start['name'] or 'stored tensors'} ({start['kind']} images)")
    backbone = said["backbone"]
    pretrained = {
        "synthetic": "synthetic images of this package's phantoms, which by itself is no reason to doubt an answer",
        "published": "what its publishers say",
    }.get(backbone["kind"], "images that this bundle does not know")
    return [*lines, f"- The frozen backbone {backbone['name']} was pre-trained on {pretrained}"]


def own_or_shared_lines(entry: Mapping[str, Any] | None) -> list[str]:
    """Markdown lines: whether the shared model does better on the site's own test cases; nothing for a shared one."""
    if entry is None:
        return []
    said = f"{entry['said'][0].upper()}{entry['said'][1:]}."
    if entry["better"] != SHARED:
        return ["", said]
    return ["", f"**{said}** The shared one is exported with `--site {SHARED_SITE}` in place of the site's name."]


_TRAINED = {
    SYNTHETIC: "Trained on synthetic images alone. Its answers mean nothing for real patients.",
    MIXED: "Trained on synthetic images among others. Its answers may mean nothing for real patients.",
    REAL: "Trained on real images.",
    UNKNOWN: "Whether it was trained on real or on synthetic images is not known.",
}


def performance(metadata: Mapping[str, Any]) -> list[str]:
    """Markdown lines: the test metrics with intervals, and the confusion matrices."""
    views = metadata["eval_metrics"]["test"]
    if not views:
        return ["No test metrics were recorded."]
    first = next(iter(views.values()))
    labels = [VIEW_NAMES[view] for view in views]
    names = list(dict.fromkeys(name for view in views.values() for name in view))
    scope = "the site's own test split" if metadata["provenance"]["site"] else "the test splits of all sites, pooled"
    lines = [
        f"On {scope}, {first.get('n', '?')} cases; in brackets 95 % intervals.",
        "",
        f"| metric | {' | '.join(labels)} |",
        f"| --- |{' --- |' * len(labels)}",
    ]
    for name in names:
        if name not in ("n", "confusion_matrix"):
            cells = [format_metric(view.get(name)) for view in views.values()]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    methods = metadata["eval_metrics"]["intervals_95"]
    shown = [name for name in names if any((view.get(name) or {}).get("interval_95") for view in _metrics_only(views))]
    if shown:
        lines += ["", "Intervals: " + "; ".join(f"{name.replace('_', ' ')}: {methods[name]}" for name in shown) + "."]
    for view, metrics in views.items():
        if metrics.get("confusion_matrix"):
            rows = "; ".join(str(row) for row in metrics["confusion_matrix"])
            lines += ["", f"Confusion matrix, {VIEW_NAMES[view]} (rows true, columns predicted): {rows}."]
    return lines


def calibration_lines(calibration: Mapping[str, Any]) -> list[str]:
    """Markdown lines: the temperature, or why there is none, and the calibration error before and after."""
    if calibration["fitted"]:
        text = (
            f"The logits are divided by the temperature {calibration['temperature']:.4g}, fitted to the site's "
            f"validation cases ({calibration['method']})."
        )
    else:
        text = f"Nothing was fitted: {calibration['reason']}. The temperature is 1."
    lines = [text]
    splits = {split: calibration[split] for split in ("validation", "test") if split in calibration}
    if splits:
        lines += [
            "",
            "| split | cases | ece before | ece after | negative log-likelihood before | after |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
    for split, values in splits.items():
        numbers = [values[name][when] for name in ("ece", "nll") for when in ("before", "after")]
        lines.append(f"| {split} | {values['n']} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    return lines


def distance_lines(reference: Mapping[str, Any]) -> list[str]:
    """Markdown lines: how the model tells unusual images, or why it does not."""
    if not reference["available"]:
        return [f"The model does not tell: {reference['reason']}."]
    if "public_cases" in reference:
        return [
            f"`{reference['file']}` has a second method: {reference['call']}. A distance above "
            f"{reference['threshold']:.4g} is larger than that of about {100 * reference['quantile']:.0f} % of "
            f"{reference['public_cases']} public cases, which are not the model's training cases. It is the "
            f"{reference['method']}. It was found without any site's patients, from {reference['directions_from']}."
        ]
    noise = reference["noise"]
    return [
        f"`{reference['file']}` has a second method: {reference['call']}. A distance above "
        f"{reference['threshold']:.4g} is larger than that of about {100 * reference['quantile']:.0f} % of the site's "
        f"{reference['patients']} training and validation patients. It is the {reference['method']}. The directions "
        f"were chosen without patients, from {reference['directions_from']}.",
        "",
        f"Mean and threshold are in this bundle with noise (standard deviation {noise['deviation']:g} in each "
        f"direction, where images of one device spread by about 1): together they are ({noise['epsilon']:g}, "
        f"{noise['delta']:g})-differentially private for {noise['unit']}. The weights carry no such guarantee.",
    ]


def format_metric(entry: Mapping[str, Any] | None) -> str:
    """``0.812 (0.655 to 0.907)``; empty where the metric is undefined."""
    if entry is None or entry["value"] is None:
        return ""
    if entry["interval_95"] is None:
        return f"{entry['value']:.3f}"
    low, high = entry["interval_95"]
    return f"{entry['value']:.3f} ({low:.3f} to {high:.3f})"


def _metrics_only(views: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in view.items() if isinstance(v, Mapping)} for view in views.values()]


def plain_setting(value: Any) -> str:
    """A setting as a person would write it."""
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
