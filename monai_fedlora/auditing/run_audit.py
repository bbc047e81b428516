"""What a run tells: its server of a site's patients, its shared model of the sites, a small batch of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from monai_fedlora.auditing.answers import NOT_KEPT, Candidates, answers_leakage, most_candidates, nothing
from monai_fedlora.auditing.membership import phantom_of
from monai_fedlora.auditing.model import OpenModel, inputs_of
from monai_fedlora.auditing.server_view import Server
from monai_fedlora.auditing.site_inference import SHARED_MODEL, participation, without
from monai_fedlora.auditing.small_batches import BATCHES, GRADIENT, Sent, reconstruction
from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import site_data
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.errors import ConfigError, DataError, ExportError, FedLoraError
from monai_fedlora.exporting.attacks import by_patient
from monai_fedlora.exporting.finished import FinishedModel, read_shared
from monai_fedlora.exporting.leakage import TEST, TRAINING, Leakage, strongest_first
from monai_fedlora.exporting.locate import find_shared
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.noised_rounds import NoisedRound
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.seen_rounds import Payload, SeenRounds
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.resources import bundle_setting
from monai_fedlora.scratch import private_folder

Say = Callable[[str], None]
PARTICIPATION = "participation"
INVERSION = "inversion"


@dataclass(frozen=True, kw_only=True)
class AuditedRun:
    """A run, and what is at hand to attack it with.

    Attributes:
        source_folder: the run's workspace, or a site's private folder.
        model: of the site that is audited.
        opened: its bundle, which prepares images.
        own: the site's cases.
        outside: others of the same kind, if there are any.
        data: folder of prepared sites; None for what the environment names.
        backbone: source of the backbone.
        say: called with a line of text on each step.
    """

    source_folder: Path
    model: FinishedModel
    opened: OpenModel
    own: Datalist
    outside: Datalist | None
    data: str | None
    backbone: str | None
    say: Say

    @property
    def plan(self) -> Plan:
        """The experiment."""
        return self.model.plan

    @property
    def site(self) -> str:
        """The site that is audited."""
        return str(self.model.site)

    def network(self) -> Any:
        """The plan's network as the run begins, on the CPU."""
        source = Installed(data_root=self.data, backbone=self.backbone)
        return source.network(self.plan, self.plan.build_method())

    @cached_property
    def attacker(self) -> tuple[Server, Candidates]:
        """A server that holds the site's training cases and others, as many as it can compute with.

        Raises:
            ConfigError, DataError, ExportError: the network, or a case, cannot be used, or see :class:`Server`.
        """
        network, every = self.network(), self.candidates()
        numbers = Server(self.plan, network, every.images[:1], every.labels[:1]).numbers
        asked = every.at_most(most_candidates(numbers))
        return Server(self.plan, network, asked.images, asked.labels), asked

    def of_site(self, site: str) -> Candidates:
        """The test cases of one of the run's sites.

        Raises:
            DataError: they are not at hand, or there are none.
        """
        phantom = phantom_of(self.plan.bundle)
        listed = load_datalist(site_data(site, data_root=self.data, phantom=phantom))
        if listed.classes != self.own.classes or not listed.test:
            raise DataError(f"{site} has no test cases of the classes {', '.join(self.own.classes)} here")
        return Candidates(
            images=inputs_of(self.opened, listed, TEST),
            labels=torch.tensor([case.label for case in listed.test]),
            units=torch.tensor(unit_numbers(listed.test)),
            member=torch.zeros(len(listed.test), dtype=torch.bool),
        )

    def candidates(self) -> Candidates:
        """The training cases of the site, its test cases, and those from outside, whose codes are of other patients."""
        parts = [(self.own, TRAINING), (self.own, TEST)]
        parts += [] if self.outside is None else [(self.outside, TRAINING)]
        cases = [datalist.cases(split) for datalist, split in parts]
        own, others = [*cases[0], *cases[1]], [case for some in cases[2:] for case in some]
        units = unit_numbers(own)
        units += [len(own) + number for number in unit_numbers(others)]
        return Candidates(
            images=torch.cat([inputs_of(self.opened, *part) for part, some in zip(parts, cases, strict=True) if some]),
            labels=torch.tensor([case.label for case in (*own, *others)]),
            units=torch.tensor(units),
            member=torch.tensor([place < len(cases[0]) for place in range(len(units))]),
        )


def audit_run(run: AuditedRun, *, leave_out: bool = False, invert: int = 0) -> Leakage:
    """Attack what a run has told beside the site's model.

    Args:
        run: to attack.
        leave_out: also train the run without each of its sites, to measure whether the shared model tells who took
            part.
        invert: images to make again from steps on few of them; 0 for none.

    Returns:
        The attacks, and of each that was not made the reason.
    """
    found = [
        _membership(run),
        _site_inference(run)
        if leave_out
        else _not_asked(PARTICIPATION, SHARED_MODEL, "trains the run anew without each site", "--leave-out"),
        _inversion(run, invert) if invert else _not_asked(INVERSION, GRADIENT, "takes minutes", "--invert 8"),
    ]
    return Leakage(
        attacks=strongest_first(attack for each in found for attack in each.attacks),
        not_measured={name: why for each in found for name, why in each.not_measured.items()},
        warnings=tuple(text for each in found for text in each.warnings),
    )


def _not_asked(name: str, target: str, why: str, option: str) -> Leakage:
    return Leakage(
        attacks=(), not_measured={f"{name} on {target}": f"it was not asked for, as it {why}; give {option}"}
    )


def _failed(name: str, target: str, error: Exception) -> Leakage:
    return Leakage(attacks=(), not_measured={f"{name} on {target}": str(error)})


def _membership(run: AuditedRun) -> Leakage:
    """From what the server saw, if it was kept."""
    kept = SeenRounds(private=run.model.path.parents[2], plan=run.plan).load()
    if not kept:
        return nothing(NOT_KEPT)
    run.say(f"attacking what the server saw in {len(kept)} rounds ...")
    try:
        server, asked = run.attacker
        return answers_leakage(server, asked, kept, run.site)
    except (ConfigError, DataError, ExportError) as error:
        return nothing(str(error))


def _inversion(run: AuditedRun, count: int) -> Leakage:
    """Images from steps on few of them, at the shared tensors that the run has ended with."""
    try:
        sent, (server, asked) = _shared(run.source_folder), run.attacker
        what = _sent(run.plan, run.site)
    except (ConfigError, DataError, ExportError) as error:
        return _failed(INVERSION, GRADIENT, error)
    found, missing = [], {}
    for batch in BATCHES:
        run.say(f"making {count} images again from steps on {batch} ...")
        try:
            found.append(reconstruction(server, sent, asked, batch=batch, count=count, what=what))
        except ExportError as error:
            missing[f"{INVERSION}, {batch} at once on {GRADIENT}"] = str(error)
    return Leakage(attacks=strongest_first(found), not_measured=missing)


def _sent(plan: Plan, site: str) -> Sent:
    """What a site makes of a step's gradients: of single patients', where there is a budget."""
    if plan.privacy is None:
        return Sent(encoding=plan.encoding)
    size = plan.training.get("batch_size") or bundle_setting(plan.bundle, "train", "batch_size")
    noise = NoisedRound.of(plan, site, batch_size=int(size)).mechanism.noise_multiplier
    return Sent(clip=plan.privacy.clip, noise=noise, encoding=plan.encoding)


def _site_inference(run: AuditedRun) -> Leakage:
    """From shared models of the run with and without each of its sites."""
    plan = run.plan
    try:
        cases = [run.of_site(site) for site in plan.sites]
        plans = [without(plan, site) for site in plan.sites]
        server = Server(
            plan, run.network(), torch.cat([one.images for one in cases]), torch.cat([one.labels for one in cases])
        )
        losses = [_losses(server, _shared(run.source_folder), cases)]
        for site, other in zip(plan.sites, plans, strict=True):
            run.say(f"training the run without {site} ...")
            with private_folder("monai-fedlora-left-out-") as scratch:
                run_in_process(
                    other,
                    folder=scratch,
                    data_root=run.data,
                    backbone=run.backbone,
                    policy=lambda: NOTHING_LEAVES,
                )
                losses.append(_losses(server, _shared(scratch), cases))
    except FedLoraError as error:
        return _failed(PARTICIPATION, SHARED_MODEL, error)
    inside = torch.tensor([[True] * len(plan.sites), *([one in other.sites for one in plan.sites] for other in plans)])
    try:
        return Leakage(attacks=(participation(torch.stack(losses), inside, plan.sites),))
    except ExportError as error:
        return _failed(PARTICIPATION, SHARED_MODEL, error)


def _losses(server: Server, sent: Payload, cases: Sequence[Candidates]) -> Tensor:
    """(S,) mean loss over the patients of each site."""
    each = cross_entropy(server.logits(sent).double(), server.labels, reduction="none")
    parts = each.split([len(one.labels) for one in cases])
    return torch.stack([by_patient(part, one.units).mean() for part, one in zip(parts, cases, strict=True)])


def _shared(folder: Path) -> Payload:
    """The shared tensors that a run has ended with."""
    return {key: value.numpy() for key, value in read_shared(find_shared(folder)).tensors.items()}
