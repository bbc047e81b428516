"""Shadow models for LiRA: the training of the run, repeated at this site alone on halves of the members and others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.auditing.lira import halves, lira_scores, scaled_confidence
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME
from monai_fedlora.data.pool import pool
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.errors import DataError, ExportError
from monai_fedlora.exporting.attacks import Attack, by_patient, judge
from monai_fedlora.exporting.finished import FinishedModel
from monai_fedlora.exporting.kept_evidence import read_evidence
from monai_fedlora.exporting.leakage import TRAINING, WEIGHTS, Cases
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.federated.site_state import FINAL_NAME
from monai_fedlora.files import load_tensors, save_tensors, sha256, write_json
from monai_fedlora.scratch import private_folder

SEED = 20221
"""Seed of the random halves (ours)."""

FOLDER = "shadows"
"""Folder beside a site's final model with the outputs of its shadow models. It never leaves the site."""

_OWN, _OTHER = "own", "other"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Images of members and of about as many other patients.

    Attributes:
        cases: one per image, with unique subjects and units and paths relative to ``root``.
        root: folder of the images.
        member: (N,) bool.
        units: (N,) number of the patient.
        target: (N,) output of the attacked model, see :func:`scaled_confidence`.
    """

    cases: tuple[Case, ...]
    root: Path
    member: Tensor
    units: Tensor
    target: Tensor


def make_pool(own: Datalist, outside: Datalist | None, said: dict[str, Cases], temperature: float) -> Pool:
    """Join the training cases with other cases, of at most as many patients.

    Args:
        own: the site's datalist, whose test cases are other cases.
        outside: further other cases.
        said: the model's outputs by group.
        temperature: that its logits were divided by.

    Raises:
        DataError: there are no other cases.
    """
    lists = [dataclasses.replace(own, site=_OWN)]
    if outside is not None:
        lists.append(dataclasses.replace(outside, site=_OTHER))
    joined = pool(lists)
    by_subject = {case.subject: case for _, case in joined.all_cases()}
    chosen: list[tuple[Case, bool, float]] = []
    groups = [(own, "training", True, "training", _OWN), (own, "test", False, "test", _OWN)]
    if outside is not None:
        groups.append((outside, "training", False, "outside", _OTHER))
    for datalist, split, member, group, prefix in groups:
        if group in said:
            values = scaled_confidence(said[group].logits * temperature, said[group].labels).tolist()
            cases = (by_subject[f"{prefix}.{case.subject}"] for case in datalist.cases(split))
            chosen += [(case, member, value) for case, value in zip(cases, values, strict=True)]
    members = {case.unit or case.subject for case, member, _ in chosen if member}
    others = list(dict.fromkeys(case.unit or case.subject for case, member, _ in chosen if not member))
    if not others:
        raise DataError("there are no cases that the model was not trained on; give some with --outside")
    kept = members | set(sorted(others, key=_rank)[: len(members)])
    rows = [row for row in chosen if (row[0].unit or row[0].subject) in kept]
    return Pool(
        cases=tuple(case for case, _, _ in rows),
        root=joined.image_root,
        member=torch.tensor([member for _, member, _ in rows]),
        units=torch.tensor(unit_numbers([case for case, _, _ in rows])),
        target=torch.tensor([value for _, _, value in rows], dtype=torch.float64),
    )


def lira(
    model: FinishedModel,
    found: Pool,
    own: Datalist,
    *,
    runs: int,
    backbone: str | None,
    on_run: Callable[[int, bool], None] = lambda run, kept: None,
) -> Attack:
    """Train the missing shadow models, and run the attack.

    A shadow model starts where the plan starts and trains as many epochs as the run did, but at this site alone,
    because the updates of the other sites are not kept. Its outputs are stored beside the site's final model, so that
    an interrupted audit can be continued.

    Args:
        model: the site's model.
        found: members and others.
        own: the site's datalist.
        runs: number of shadow models, at least 2.
        backbone: source of the backbone.
        on_run: called after each run with its number and whether it was stored by an earlier audit.

    Raises:
        ExportError: there are too few runs or patients.
    """
    plan = alone(model.plan, str(model.site))
    folder = model.path.parent / FOLDER / _digest(plan, found, model)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in (folder, folder.parent):
        each.chmod(0o700)
    said, masks = [], []
    for run in range(runs):
        masks.append(halves(_labels(found), run=run, seed=SEED))
        inside = masks[-1][found.units]
        path = folder / f"run-{run:05d}.safetensors"
        kept = path.is_file()
        if not kept:
            save_tensors(path, {"confidence": _train(plan, found, own, inside, backbone), "inside": inside})
        tensors = load_tensors(path)[0]
        if not torch.equal(tensors["inside"], inside) or tensors["confidence"].shape != inside.shape:
            raise ExportError(f"{path} is of another shadow run; remove {folder} to train them anew")
        said.append(by_patient(tensors["confidence"], found.units))
        on_run(run, kept)
    scores = lira_scores(by_patient(found.target, found.units), torch.stack(said), torch.stack(masks))
    member = by_patient(found.member.double(), found.units) > 0.5
    return judge(
        f"LiRA, {runs} shadow runs",
        target=WEIGHTS,
        members=(TRAINING,),
        member_scores=scores[member],
        member_units=torch.arange(int(member.sum())),
        other_scores=scores[~member],
        other_units=torch.arange(int((~member).sum())),
    )


def alone(plan: Plan, site: str) -> Plan:
    """The plan of a run in which one site trains alone, from the start and as long as in the federation."""
    return dataclasses.replace(
        plan,
        sites=(site,),
        method_args=dataclasses.asdict(plan.site_method(site)),
        rounds=plan.start_round + plan.rounds,
        start_round=0,
        declared_cases={},
    )


def _train(plan: Plan, found: Pool, own: Datalist, inside: Tensor, backbone: str | None) -> Tensor:
    """Train a model on the cases ``inside``; returns its scaled confidences (N,) for all cases."""
    site = plan.sites[0]
    with private_folder("monai-fedlora-shadow-") as scratch:
        even = found.units % 2 == 0
        places = {"training": inside, "validation": ~inside & even, "test": ~inside & ~even}
        splits = {
            split: tuple(case for case, chosen in zip(found.cases, place, strict=True) if chosen)
            for split, place in places.items()
        }
        listed: Any = {"site": site, "image_root": found.root, **splits}
        datalist = dataclasses.replace(own, **listed)
        write_json(scratch / "data" / site / FILE_NAME, datalist.to_json())
        run_in_process(
            plan,
            folder=scratch / "run",
            data_root=str(scratch / "data"),
            backbone=backbone,
            policy=lambda: NOTHING_LEAVES,
        )
        evidence = read_evidence(scratch / "run" / "private" / plan.experiment / site / FINAL_NAME)
    if evidence.missing:
        raise ExportError(f"a shadow run kept no predictions: {evidence.missing}")
    confidence = torch.zeros(len(inside), dtype=torch.float64)
    for split, place in places.items():
        if bool(place.any()):
            confidence[place] = scaled_confidence(evidence.logits[split], evidence.labels[split])
    return confidence


def _labels(found: Pool) -> Tensor:
    """(P,) class of each patient: that of the first image."""
    first: dict[int, int] = {}
    for unit, case in zip(found.units.tolist(), found.cases, strict=True):
        first.setdefault(unit, case.label)
    return torch.tensor([first[unit] for unit in sorted(first)])


def _rank(unit: str) -> str:
    return hashlib.sha256(f"{SEED}/{unit}".encode()).hexdigest()


def _digest(plan: Plan, found: Pool, model: FinishedModel) -> str:
    """Hash of everything that a shadow run depends on."""
    content = [
        plan.to_json(),
        SEED,
        sha256(model.path),
        [case.to_json() for case in found.cases],
        found.member.tolist(),
        [sha256(found.root / file) for case in found.cases for file in case.files()],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
