"""How far images can be made again from one step on a few of them, with and without a budget and eight bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_fedlora.auditing.answers import Candidates
from monai_fedlora.auditing.inversion import inverted, resemblance
from monai_fedlora.auditing.server_view import Server
from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import FEWEST_PATIENTS, Attack, judge
from monai_fedlora.exporting.leakage import TRAINING
from monai_fedlora.federated.seen_rounds import Payload

GRADIENT = "gradient of a small batch"
BATCHES = (1, 2, 4)
"""Images of a step that is tried (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a site makes of the gradients of a step before they leave.

    Attributes:
        clip: largest length of one patient's gradient; None without a budget.
        noise: standard deviation of the noise on their sum in units of ``clip``.
        encoding: of what travels; None for the values themselves.
    """

    clip: float | None = None
    noise: float = 0.0
    encoding: Encoding | None = None

    def of(self, gradients: Tensor, generator: torch.Generator) -> Tensor:
        """The mean gradient (P,) as it leaves, of single patients' gradients (n, P).

        Args:
            gradients: of the step's patients.
            generator: of the noise, which is none that a site would ever send.
        """
        total = gradients.sum(dim=0)
        if self.clip is not None:
            lengths = gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
            total = (gradients * (self.clip / lengths).clamp(max=1)).sum(dim=0)
            total = total + self.noise * self.clip * torch.randn(total.shape, generator=generator)
        mean = total / len(gradients)
        if self.encoding is None:
            return mean
        message = self.encoding.encode(mean.numpy())
        return torch.from_numpy(self.encoding.decode(message, tuple(mean.shape))).to(mean.dtype)


def reconstruction(
    server: Server,
    sent: Payload,
    asked: Candidates,
    *,
    batch: int,
    count: int,
    what: Sent,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda number: None,
) -> Attack:
    """Make images again from steps on ``batch`` of them, and ask how much more they resemble what they were made of.

    Args:
        server: with the candidates.
        sent: shared tensors at which a step is taken.
        asked: the candidates; the first members are reconstructed, one image of each patient, and the rest are the
            images that the attacker would take them for.
        batch: images of a step.
        count: images in all, a multiple of ``batch``.
        what: leaves the site.
        seed: of the search and of the noise.
        on_step: called with the number of each batch that is about to be tried, from 0.

    Returns:
        The attack: an image that was made again resembles its own original more than another patient's so often.

    Raises:
        ExportError: there are too few images.
    """
    first = {int(unit): place for place, unit in reversed(list(enumerate(asked.units)))}
    members = sorted(place for place in first.values() if asked.member[place])[:count]
    taken = {int(asked.units[place]) for place in members}
    others = sorted(place for unit, place in first.items() if unit not in taken)
    members = members[: len(members) // batch * batch]
    if len(members) < FEWEST_PATIENTS or len(others) < FEWEST_PATIENTS:
        raise ExportError(
            f"there are {len(members)} patients to reconstruct and {len(others)} to compare with, and it takes "
            f"{FEWEST_PATIENTS} of each"
        )
    gradients, generator = server.gradients(sent, torch.tensor(members)), torch.Generator().manual_seed(seed)
    own, away = [], []
    for number, start in enumerate(range(0, len(members), batch)):
        on_step(number)
        places = torch.tensor(members[start : start + batch])
        seen = what.of(gradients[start : start + batch], generator)
        found = inverted(
            server.gradient_of(sent, asked.labels[places]), seen, asked.images[places].shape, seed=seed + number
        )
        own.append(resemblance(found, asked.images[places]))
        away.append(resemblance(found, asked.images[torch.tensor(others)]))
    return judge(
        f"inversion, {batch} at once",
        target=GRADIENT,
        members=(TRAINING,),
        member_scores=torch.cat(own),
        member_units=torch.arange(len(members)),
        other_scores=torch.stack(away).mean(dim=0),
        other_units=torch.arange(len(others)),
    )
