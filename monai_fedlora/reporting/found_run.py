"""Find the files of a run, and read its record and the personal models that belong to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.data.origin import UNKNOWN, Origin, together
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.exporting.finished import trained_on
from monai_fedlora.exporting.kept_evidence import read_evidence
from monai_fedlora.exporting.leakage import Leakage, read_audit, read_run_audit
from monai_fedlora.exporting.personal_or_shared import discordant
from monai_fedlora.federated.run_record import FORMAT, RESULTS_NAME, as_it_is
from monai_fedlora.federated.site_state import FINAL_NAME
from monai_fedlora.files import load_tensors, read_json, sha256
from monai_fedlora.reporting.record import Answer, Record, answer, parse_record
from monai_fedlora.reporting.subspaces import Overlap, layer_overlaps

BINS = 15
"""Number of equal-width confidence bins, the same as for the calibration error of the record."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Test cases with about the same confidence of the predicted class.

    Attributes:
        cases: number of cases.
        confidence: mean confidence.
        accuracy: share of correct predictions.
    """

    cases: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Personal:
    """What is computed from a site's personal model.

    Attributes:
        overlaps: overlap of the column spaces and of the row spaces of shared and private update, by adapted layer.
        reliability: non-empty bins of the test split, by their index from 0 to :data:`BINS` - 1; empty where the run
            kept no predictions.
        leakage: result of the audit of the model; None where there was none.
        run_leakage: what the audit found that the run has told beside the model; None where it did not look.
        origin: origin of the site's own images; of unknown kind in runs of earlier versions.
        images: kind of all images that influenced the model.
        pairs: number of test cases that only the personal model classifies correctly, and that only the shared one
            does; None where the run kept no predictions of both.
    """

    overlaps: Mapping[str, tuple[Overlap, Overlap]]
    reliability: Mapping[int, Bin]
    leakage: Leakage | None = None
    run_leakage: Leakage | None = None
    origin: Origin = field(default_factory=Origin)
    images: str = UNKNOWN
    pairs: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A run's record with the personal models that belong to it.

    Attributes:
        record: the server's record, or one made of the records in the sites' models.
        personal: personal models by site.
        passed_over: by site, the reason why a model that was found is not used.
    """

    record: Record
    personal: Mapping[str, Personal] = field(default_factory=dict)
    passed_over: Mapping[str, str] = field(default_factory=dict)


def read_run(folder: Path) -> FoundRun:
    """Read a run.

    Args:
        folder: a simulation's workspace, a server's run folder with ``results.json``, or a folder of private state
            without one, such as a hospital's own.

    Raises:
        FedLoraError: there is nothing to report, the folder holds several runs, or the record is damaged or of another
            version.
    """
    if not folder.is_dir():
        raise FedLoraError(f"{folder} is no folder; give the workspace of monai-fedlora simulate")
    source = _results(folder)
    if source is None:
        return _of_sites(folder)
    value = read_json(source)
    record = parse_record(as_it_is(value, source.parent, folder) if isinstance(value, dict) else value, str(source))
    personal, passed_over = {}, {}
    for path in sorted(folder.rglob(FINAL_NAME)):
        try:
            tensors, plan, site, said = _final(path)
        except WeightsError as error:
            passed_over[path.parent.name] = str(error)
            continue
        if site not in record.sites or site in personal:
            continue
        if plan != record.plan or said.test != record.final.get(site, Answer()).test:
            passed_over[site] = "the model that lies there is not the one that this record ends with"
            continue
        passed_over.pop(site, None)
        personal[site] = _personal(path, tensors)
    return FoundRun(record=record, personal=personal, passed_over=passed_over)


def _results(folder: Path) -> Path | None:
    if (folder / RESULTS_NAME).is_file():
        return folder / RESULTS_NAME
    found = list({sha256(path): path for path in sorted(folder.rglob(RESULTS_NAME), reverse=True)}.values())
    if len(found) > 1:
        listing = "\n  ".join(str(path.parent) for path in sorted(found))
        raise FedLoraError(f"{folder} holds {len(found)} runs; give one of\n  {listing}")
    return found[0] if found else None


def _of_sites(folder: Path) -> FoundRun:
    """Make a record of the evaluations that are stored in the sites' personal models."""
    found = {path: _final(path) for path in sorted(folder.rglob(FINAL_NAME))}
    if not found:
        raise FedLoraError(
            f"{folder} holds neither {RESULTS_NAME} nor a site's {FINAL_NAME}; give the workspace of monai-fedlora "
            "simulate, or a site's private folder after the run's end"
        )
    plans = [plan for _, plan, _, _ in found.values()]
    sites = [site for _, _, site, _ in found.values()]
    if any(plan != plans[0] for plan in plans) or len(set(sites)) < len(sites):
        listing = "\n  ".join(str(path.parent) for path in found)
        raise FedLoraError(f"{folder} holds models of several runs; give one of\n  {listing}")
    value = {"format": FORMAT, "plan": plans[0], "status": "site", "rounds": []}
    record = parse_record(value, str(folder))
    final = {site: said for _, _, site, said in found.values()}
    return FoundRun(
        record=dataclasses.replace(record, final=final),
        personal={site: _personal(path, tensors) for path, (tensors, _, site, _) in found.items()},
    )


def _final(path: Path) -> tuple[dict[str, Any], Mapping[str, Any], str, Answer]:
    """Tensors by state-dict key, plan, site and the site's own evaluation."""
    stored, metadata = load_tensors(path)
    try:
        plan, said, site = json.loads(metadata["plan"]), json.loads(metadata["record"]), metadata["site"]
        if not isinstance(plan, dict):
            raise TypeError("its plan is no mapping")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is no site's final model ({error})") from error
    last = sorted(stored, key=lambda key: key.startswith("tuned/"))  # these are in place of the federation's
    return {key.partition("/")[2]: stored[key] for key in last}, plan, site, answer(said)


def _personal(path: Path, tensors: Mapping[str, Any]) -> Personal:
    factors = {key: value.double().numpy() for key, value in tensors.items() if ".lora_" in key}
    finite = all(np.isfinite(value).all() for value in factors.values())
    origin, shared = trained_on(path)
    return Personal(
        overlaps=layer_overlaps(factors) if finite else {},
        reliability=_reliability(path),
        leakage=read_audit(path),
        run_leakage=read_run_audit(path),
        origin=origin,
        images=together([origin.kind, *([] if shared is None else [shared])]),
        pairs=discordant(read_evidence(path)),
    )


def _reliability(final: Path) -> dict[int, Bin]:
    evidence = read_evidence(final)
    if "test" not in evidence.logits or "test" not in evidence.labels:
        return {}
    probabilities = evidence.logits["test"].double().softmax(dim=1).numpy()
    return reliability_bins(probabilities, evidence.labels["test"].numpy())


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray) -> dict[int, Bin]:
    """Non-empty bins of (N, C) probabilities and (N,) labels; a bin includes its upper edge, not its lower one."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="left") - 1, 0, BINS - 1)
    return {
        int(place): Bin(
            cases=int((places == place).sum()),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in np.unique(places)
    }
