"""A checklist for reports on the model, filled in as far as the run knows.

It follows the topics of CLAIM (Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2020, doi
10.1148/ryai.2020200029) in words of our own, with the numbers of that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.export.card import VIEW_NAMES, format_metric, plain_setting

TO_FILL_IN = "*To be filled in by the site.*"

_TOPICS = {
    "Title and abstract": {1: "Kind of AI named in the title or abstract", 2: "Summary of the study"},
    "Introduction": {3: "Background and intended role", 4: "Aims and hypotheses"},
    "Study design": {5: "Prospective or retrospective", 6: "Goal of the study"},
    "Data": {
        7: "Sources",
        8: "Who was included and excluded, where and when",
        9: "Preprocessing",
        10: "Choice of subsets",
        11: "Definition of the data elements",
        12: "De-identification",
        13: "Missing data",
    },
    "Reference standard": {
        14: "Definition",
        15: "Reason for its choice",
        16: "Who annotated, and with what training",
        17: "Annotation tools",
        18: "Variability between and within readers",
    },
    "Data partitions": {19: "Sample size and its reason", 20: "How cases were assigned", 21: "Level of separation"},
    "Model": {22: "Architecture, inputs and outputs", 23: "Software", 24: "Initial values of the parameters"},
    "Training": {25: "Procedure and settings", 26: "Choice of the final model", 27: "Ensembles"},
    "Evaluation": {
        28: "Measures",
        29: "Uncertainty of the measures",
        30: "Robustness",
        31: "Explanations",
        32: "Test on cases from elsewhere",
    },
    "Results": {
        33: "Flow of cases",
        34: "Patients and disease in each partition",
        35: "Performance on all partitions",
        36: "Estimates with their precision",
        37: "Cases that were classified wrongly",
    },
    "Discussion": {38: "Limitations", 39: "Meaning for practice"},
    "Other": {40: "Registration", 41: "Protocol, code and model", 42: "Funding"},
}


def claim_checklist(metadata: Mapping[str, Any]) -> str:
    """Return the Markdown text of ``docs/CLAIM.md``.

    Args:
        metadata: as from :func:`monai_fedlora.export.metadata.model_metadata`.
    """
    known = _known(metadata)
    lines = [
        f"# Checklist for reports on {metadata['name']}",
        "",
        "The topics and numbers are those of CLAIM (Mongan et al., doi 10.1148/ryai.2020200029; updated by Tejani et "
        "al., doi 10.1148/ryai.240300), in other words. What the run recorded is filled in; it describes this model "
        "and replaces no report.",
    ]
    for section, topics in _TOPICS.items():
        lines += ["", f"## {section}", ""]
        lines += [f"{number}. **{topic}.** {known.get(number, TO_FILL_IN)}" for number, topic in topics.items()]
    return "\n".join(lines) + "\n"


def _known(metadata: Mapping[str, Any]) -> dict[int, str]:
    """What the metadata say, by the topic's number."""
    origin, method = metadata["provenance"], metadata["provenance"]["method"]
    settings = {**origin["training_settings"], **method["hyperparameters"]}
    task = metadata["task"][0].lower() + metadata["task"][1:]
    found = {
        1: f"Deep learning: {task}, fine-tuned from a foundation model in a federation. The wording of title and "
        f"abstract: {TO_FILL_IN}",
        3: f"{metadata['intended_use']} Clinical background: {TO_FILL_IN}",
        6: f"A model for research: {task}.",
        7: f"Cases of {_count(origin['participating_sites'], 'site')}; {_images(metadata['training_data'])}. Which, "
        f"and from when: {TO_FILL_IN}",
        9: metadata["preprocessing"],
        11: f"Classes: {metadata['label_classes']}. Their clinical definition: {TO_FILL_IN}",
        19: f"{_cases(metadata)} How that number came about: {TO_FILL_IN}",
        21: "The data lists keep every subject in one partition; the package refuses a list that does not.",
        22: f"{origin['backbone']['size']} ({metadata['references'][0]}). {method['summary']} ({method['source']}). "
        f"{metadata['description']}",
        23: ", ".join(f"{package} {number}" for package, number in origin["software"].items()) + ".",
        24: f"Backbone {origin['backbone']['file']}, SHA-256 {origin['backbone']['sha256']}; trained parts from seed "
        f"{origin['seed']}.",
        25: f"{_count(origin['rounds'], 'round')} of {_count(origin['local_epochs_per_round'], 'local epoch')} in "
        f"{_count(origin['participating_sites'], 'site')}; bundle "
        f"{origin['training_bundle']}"
        + "".join(f", {key} {plain_setting(value)}" for key, value in settings.items())
        + ".",
        26: f"The model after {_count(origin['rounds'], 'round')}; test results had no part in the choice.",
        27: "None.",
        28: "Balanced accuracy, sensitivity, specificity, area under the ROC curve, Matthews correlation, accuracy, "
        "expected calibration error.",
        29: "; ".join(
            f"{name.replace('_', ' ')}: {text}" for name, text in metadata["eval_metrics"]["intervals_95"].items()
        )
        + ".",
        32: f"The cases of the test split are of the training sites. Cases from elsewhere: {TO_FILL_IN}",
        36: _results(metadata),
        38: " ".join(metadata["limitations"]) + f" Further ones: {TO_FILL_IN}",
        41: f"Plan fingerprint {origin['plan_fingerprint']}; how to run the model: README.md beside this file. "
        f"Protocol, and access to code and data: {TO_FILL_IN}",
    }
    return {number: " ".join(text.split()) for number, text in found.items()}


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _images(said: Mapping[str, Any]) -> str:
    called = ", ".join(filter(None, (said["name"], said["source"])))
    return f"kind of the training images: {said['kind']}" + (f" (the site's own: {called})" if called else "")


def _cases(metadata: Mapping[str, Any]) -> str:
    origin = metadata["provenance"]
    first: Mapping[str, Any] = next(iter(metadata["eval_metrics"]["test"].values()), {})
    counts = {"training": origin["training_cases"], "validation": origin["validation_cases"], "test": first.get("n")}
    known = [f"{count} {split}" for split, count in counts.items() if count is not None]
    return f"Cases of this model: {', '.join(known)}." if known else ""


def _results(metadata: Mapping[str, Any]) -> str:
    views = metadata["eval_metrics"]["test"]
    texts = []
    for view, metrics in views.items():
        values = {name: format_metric(entry) for name, entry in metrics.items() if isinstance(entry, Mapping)}
        shown = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in values.items() if text)
        texts.append(f"{VIEW_NAMES[view]}: {shown}")
    return f"On the test split, with 95 % intervals. {'. '.join(texts)}." if texts else TO_FILL_IN
