"""The whole audit: open the model, find members and other cases, run the attacks, and collect the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.auditing.lira import FEWEST_RUNS
from monai_fedlora.auditing.membership import find_outside, find_site, phantom_of
from monai_fedlora.auditing.model import OpenModel, observe, open_model
from monai_fedlora.auditing.run_audit import AuditedRun, audit_run
from monai_fedlora.auditing.shadows import SEED, lira, make_pool
from monai_fedlora.data.cases import Datalist
from monai_fedlora.errors import ConfigError, DataError, ExportError
from monai_fedlora.exporting.attacks import FEWEST_PATIENTS
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.finished import SHARED_SITE, FinishedModel, read_finished
from monai_fedlora.exporting.leakage import (
    AUDIT_NAME,
    OUTSIDE,
    RUN,
    TEST,
    TRAINING,
    VALIDATION,
    Cases,
    Leakage,
    measure,
    strongest_first,
)
from monai_fedlora.exporting.leakage_card import by_reason
from monai_fedlora.exporting.locate import personal_sites
from monai_fedlora.exporting.measured import shipped_numbers
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_state import FINAL_NAME
from monai_fedlora.files import sha256
from monai_fedlora.scratch import private_folder
from monai_fedlora.tasks.task import MEMBERSHIP

DEFAULT_SHADOWS = 8
"""Number of shadow runs by default (ours)."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    Attributes:
        leakage: the attacks on the model.
        run: those on what its run has told beside it; None for a bundle.
        facts: names and numbers of the model and the cases, for the JSON file.
        final: file of the site's model if a run was audited, else None.
    """

    leakage: Leakage
    facts: Mapping[str, Any]
    final: Path | None = None
    run: Leakage | None = None

    @property
    def kept(self) -> Path | None:
        """The file beside a run's model that report and export read the result from; None for a bundle."""
        return None if self.final is None else self.final.with_name(AUDIT_NAME)

    @property
    def not_measured(self) -> Mapping[str, Sequence[str]]:
        """The attacks that could not be measured, by reason."""
        return by_reason(self.leakage.not_measured)

    @property
    def run_not_measured(self) -> Mapping[str, Sequence[str]]:
        """The attacks on the run that could not be measured, by reason; none for a bundle."""
        return by_reason({} if self.run is None else self.run.not_measured)

    def too_much(self, limit: float) -> str | None:
        """Why the model exceeds a limit, None if it does not; an attack that could not be measured counts as exceeding.

        What the run has told beside the model is told already, and no gate takes it back.

        Args:
            limit: largest permitted upper limit of the AUC's interval, from 0.5 to 1.
        """
        if self.leakage.upper_bound > limit:
            return f"the upper limit {self.leakage.upper_bound:.2f} exceeds {limit:g}"
        missing = len(self.leakage.not_measured)
        return f"{missing} attacks could not be measured" if missing else None

    def to_json(self) -> dict[str, Any]:
        """Content of the JSON file, which holds aggregates only; `Leakage.from_json` reads the attacks back."""
        run = {} if self.run is None else {RUN: self.run.to_json()}
        return {**self.facts, **self.leakage.to_json(), "upper_bound": round(self.leakage.upper_bound, 3), **run}


def audit_model(
    source: Path,
    *,
    data: str | None = None,
    site: str | None = None,
    outside: str | None = None,
    shadows: int | None = None,
    leave_out: bool = False,
    invert: int = 0,
    backbone: str | None = None,
    say: Say = lambda text: None,
) -> Audit:
    """Run membership inference attacks against a model.

    For a run, the bundle that an export would make is audited, and shadow models are trained. For a bundle, only the
    attacks are run that need no training.

    Args:
        source: an exported bundle, or a run's workspace or private folder.
        data: prepared folder with the site's data; None as in :func:`monai_fedlora.data.site.site_data`.
        site: the site whose model is audited, or for a bundle whose cases are the members; None if there is only one.
        outside: see :func:`monai_fedlora.auditing.membership.find_outside`.
        shadows: number of shadow runs; None for :data:`DEFAULT_SHADOWS` of a run; 0 for none.
        leave_out, invert: see :func:`monai_fedlora.auditing.run_audit.audit_run`.
        backbone: source of the backbone of a run.
        say: called with a line of text on each step.

    Raises:
        ConfigError: the source is neither, or what takes a run is requested for a bundle.
        DataError: the data are not the model's, or too few.
        ExportError, WeightsError: a run cannot be exported, or a file is damaged.
    """
    if shadows is not None and (shadows < 0 or 0 < shadows < FEWEST_RUNS):
        raise ConfigError(f"--shadows is {shadows}; it takes {FEWEST_RUNS} runs or more, or 0 for none")
    if invert < 0 or 0 < invert < FEWEST_PATIENTS:
        raise ConfigError(f"--invert is {invert}; it takes {FEWEST_PATIENTS} images or more, or 0 for none")
    options: dict[str, Any] = {"data": data, "site": site, "outside": outside, "backbone": backbone, "say": say}
    if _is_bundle(source):
        if leave_out or invert:
            raise ConfigError(
                f"{source} is a bundle, and {'--leave-out' if leave_out else '--invert'} is about its run; give the "
                "run's workspace, or leave it out"
            )
        if shadows:
            raise ConfigError(
                f"{source} is a bundle, and shadow models are trained as its run was; give the run's workspace, or "
                "leave --shadows out"
            )
        return _audit(source, None, shadows=0, **options)[0]
    model = read_finished(source, _one_site(source, site))
    if MEMBERSHIP not in model.plan.task_of.sections:
        raise ConfigError(f"the audit attacks class probabilities, and {source} is a run of {model.plan.task}")
    runs = DEFAULT_SHADOWS if shadows is None else shadows
    with private_folder("monai-fedlora-audit-") as scratch:
        say("exporting the model as it would leave ...")
        output = scratch / "model"
        export_bundle(run=model.path, site=str(model.site), output=output, backbone=backbone, program=False)
        found, audited = _audit(output, model, shadows=runs, **options)
        attacked = AuditedRun(
            source_folder=source,
            model=model,
            opened=audited.opened,
            own=audited.own,
            outside=audited.others,
            data=data,
            backbone=backbone,
            say=say,
        )
        return dataclasses.replace(found, run=audit_run(attacked, leave_out=leave_out, invert=invert))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What an audit has opened and read."""

    opened: OpenModel
    own: Datalist
    others: Datalist | None


def _is_bundle(source: Path) -> bool:
    """Whether a source is a bundle: a folder with metadata, or any file but a final model.

    For a path that does not exist this is True, and opening it as a bundle gives the error.
    """
    if source.is_dir():
        return (source / "configs" / "metadata.json").is_file()
    return source.suffix != Path(FINAL_NAME).suffix


def _one_site(run: Path, site: str | None) -> str:
    if site == SHARED_SITE:
        raise ConfigError(
            "export the shared model, and audit its bundle with --site for each site whose cases are there"
        )
    sites = personal_sites(run)
    if site is None and len(sites) != 1:
        known = ", ".join(sites) if sites else "none"
        raise ConfigError(f"{run} is no bundle, and as a run it holds the models of {known}; choose one with --site")
    return site or sites[0]


def _audit(
    bundle: Path,
    model: FinishedModel | None,
    *,
    data: str | None,
    site: str | None,
    outside: str | None,
    shadows: int,
    backbone: str | None,
    say: Say,
) -> tuple[Audit, _Asked]:
    opened = open_model(bundle)
    origin = opened.metadata["provenance"]
    whose = site or origin["site"]
    if whose is None:
        raise ConfigError(f"{bundle} is a shared model; say with --site whose cases are to be told members")
    if origin["site"] not in (None, whose):
        raise ConfigError(f"{bundle} is the model of {origin['site']}, not of {whose}; check --site")
    own = find_site(opened.metadata, site=whose, data=data, phantom=phantom_of(origin["training_bundle"]))
    if model is not None:
        _check_split(model, own)
    others = find_outside(outside, own)
    said = _ask(opened, own, others, say)
    leakage = measure(said, shipped_numbers(opened.metadata, opened.tensors))
    if not leakage.attacks:
        raise DataError(
            f"no attack could be measured with the cases of {whose}: {next(iter(leakage.not_measured.values()))}. It "
            f"takes {FEWEST_PATIENTS} patients behind the model and {FEWEST_PATIENTS} others; give more with --outside"
        )
    if model is not None and shadows:
        temperature = float(opened.metadata["calibration"]["temperature"])
        leakage = _with_lira(leakage, model, own, others, said, temperature, shadows, backbone, say)
    facts = {
        "audited": opened.classifier.name if model is None else f"{origin['experiment']}, {whose}",
        "site": whose,
        "method": origin["method"]["name"],
        "backbone": origin["backbone"]["size"],
        "experiment": origin["experiment"],
        "model_sha256": opened.classifier.sha256,
        "final_sha256": None if model is None else sha256(model.path),
        "dataset": own.dataset,
        "outside": None if others is None else others.dataset,
        "patients": {group: len(cases.units.unique()) for group, cases in said.items()},
        "images": {group: len(cases.units) for group, cases in said.items()},
        **({} if model is None else run_facts(model.plan)),
        "shadow_runs": shadows,
        "shadow_seed": SEED if shadows else None,
        "software": __version__,
    }
    found = Audit(leakage=leakage, facts=facts, final=None if model is None else model.path)
    return found, _Asked(opened=opened, own=own, others=others)


def run_facts(plan: Plan) -> dict[str, Any]:
    """What of a plan bears on what its run tells."""
    budget = None if plan.privacy is None else {"epsilon": plan.privacy.epsilon, "delta": plan.privacy.delta}
    return {
        "sites": len(plan.sites),
        "rounds": plan.start_round + plan.rounds,
        "wire": plan.wire_dtype,
        "budget": budget,
    }


def _check_split(model: FinishedModel, own: Datalist) -> None:
    """Compare the labels with those that the run has kept; another split of equal size would give wrong members."""
    for split, labels in model.evidence.labels.items():
        if labels.tolist() != [case.label for case in own.cases(split)]:
            raise DataError(
                f"the datalist of {own.site} has other labels than the {split} split that {model.path} was made with: "
                "it was prepared anew, or is of other data; give the folder of the training with --data"
            )


def _ask(opened: OpenModel, own: Datalist, others: Datalist | None, say: Say) -> dict[str, Cases]:
    said = {}
    asked = [(group, own, group) for group in (TRAINING, VALIDATION, TEST)]
    asked += [] if others is None else [(OUTSIDE, others, TRAINING)]
    for group, datalist, split in asked:
        say(f"asking the model about {len(datalist.cases(split))} cases ({group}) ...")
        if (found := observe(opened, datalist, split)) is not None:
            said[group] = found
    return said


def _with_lira(
    leakage: Leakage,
    model: FinishedModel,
    own: Datalist,
    others: Datalist | None,
    said: dict[str, Cases],
    temperature: float,
    shadows: int,
    backbone: str | None,
    say: Say,
) -> Leakage:
    def told(run: int, kept: bool) -> None:
        say(f"shadow run {run + 1} of {shadows}" + (", kept from an earlier audit" if kept else ""))

    try:
        found = make_pool(own, others, said, temperature)
        attack = lira(model, found, own, runs=shadows, backbone=backbone, on_run=told)
    except (DataError, ExportError) as error:
        return dataclasses.replace(leakage, not_measured={**leakage.not_measured, "LiRA on weights": str(error)})
    return dataclasses.replace(leakage, attacks=strongest_first([*leakage.attacks, attack]))
