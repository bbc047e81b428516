"""Membership from what the server saw of a site in all rounds, as figures that name no patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_fedlora.auditing.server_view import CONTROL, Server, scores
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import FEWEST_PATIENTS, judge
from monai_fedlora.exporting.leakage import TRAINING, Leakage, strongest_first
from monai_fedlora.federated.seen_rounds import SeenRound

ANSWERS = "answers"
MOST_NUMBERS = 2**28
"""Of all candidates' gradients that are held at once (ours): 1 GiB."""
NOT_KEPT = "the run kept no answers; simulate its job anew with --in-process --keep-answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Images of which the attacker asks whether the site trains on them.

    Attributes:
        images: (N, ...) as the network takes them.
        labels: (N,) classes.
        units: (N,) number of the patient.
        member: (N,) bool, the answer.
    """

    images: Tensor
    labels: Tensor
    units: Tensor
    member: Tensor

    def at(self, places: Tensor) -> Candidates:
        """Some of them, by place or by mask."""
        return Candidates(
            images=self.images[places],
            labels=self.labels[places],
            units=self.units[places],
            member=self.member[places],
        )

    def at_most(self, count: int) -> Candidates:
        """So many images at most, half of them members as far as there are, drawn without a look at them."""
        if len(self.labels) <= count:
            return self
        order = sorted(range(len(self.labels)), key=lambda place: hashlib.sha256(str(place).encode()).hexdigest())
        inside = [place for place in order if self.member[place]][: count // 2]
        outside = [place for place in order if not self.member[place]][: count - len(inside)]
        return self.at(torch.tensor(sorted([*inside, *outside])))


def answers_leakage(server: Server, asked: Candidates, seen: Mapping[int, SeenRound], site: str) -> Leakage:
    """Attack a site's answers.

    Args:
        server: with the candidates' images and classes.
        asked: the candidates.
        seen: the kept rounds by number.
        site: that answered.

    Returns:
        The attacks, or why there is none; a warning where the control tells members from others, so that the figures
        mix another difference with membership.
    """
    answered = [each for each in seen.values() if site in each.answers]
    if not answered:
        return nothing(NOT_KEPT if not seen else f"no answer of {site} was accepted in the rounds that were kept")
    target = f"{ANSWERS} of {len(answered)} rounds"
    found, missing, warnings = [], {}, []
    for name, values in scores(server, answered, site).items():
        try:
            attack = judge(
                name,
                target=target,
                members=(TRAINING,),
                member_scores=values[asked.member],
                member_units=asked.units[asked.member],
                other_scores=values[~asked.member],
                other_units=asked.units[~asked.member],
            )
        except ExportError as error:
            missing[f"{name} on {target}"] = str(error)
            continue
        if CONTROL not in name:
            found.append(attack)
        elif not attack.interval_95[0] <= 0.5 <= attack.interval_95[1]:
            warnings.append(
                f"the {name.partition(',')[0]} of the other sites' answers tells the members from the others too "
                f"(AUC {attack.auc:.2f}): they differ in more than membership, and the figures mix both"
            )
    return Leakage(attacks=strongest_first(found), not_measured=missing, warnings=tuple(warnings))


def nothing(why: str) -> Leakage:
    """No attack, and why."""
    return Leakage(attacks=(), not_measured={ANSWERS: why})


def most_candidates(numbers: int) -> int:
    """How many candidates' gradients of so many numbers each are held at once.

    Raises:
        ExportError: fewer than there have to be.
    """
    most = MOST_NUMBERS // max(numbers, 1)
    if most < 2 * FEWEST_PATIENTS:
        raise ExportError(
            f"a site trains and sends {numbers:,} numbers, and {2 * FEWEST_PATIENTS} candidates' gradients of these "
            f"are more than the {MOST_NUMBERS:,} numbers that the attack holds at once"
        )
    return most
