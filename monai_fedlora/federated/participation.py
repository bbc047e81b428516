"""Who is asked in a round, how long the server waits for them, and with whose answers a round counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.reasons import said_of

TRIES = 3
"""How often a round is tried before the run ends (ours)."""
_FIRST = 10
"""How many times as long as for others the server waits in a first round, if nothing else is said (ours)."""


class TooFewAnswers(FedLoraError):
    """A round did not count in any attempt; what the rounds before it have learnt is stored."""

    def __init__(self, number: int, lacks: str, refused: Sequence[Mapping[str, Any]]) -> None:
        said = "; ".join(sorted({f"{entry['site']}: {said_of(entry)}" for entry in refused}))
        super().__init__(
            f"round {number} was tried {TRIES} times and does not count: {lacks} ({said or 'no site has answered'}). "
            "See to these sites, then go on: monai-fedlora job ... --start-from shared.safetensors --resume"
        )


class NotReady(FedLoraError):
    """Too few sites were ready before the first round, so that nobody has trained."""

    def __init__(self, reasons: Mapping[str, Any], more: str = "") -> None:
        said = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items()) if reason is not None)
        super().__init__(
            f"too few sites are ready, and nobody has trained: {said or 'no site is connected'}. See to these sites, "
            "and give the same job again; with monai-fedlora job --min-sites K it begins with K of them, and takes the "
            f"others in when they are ready{more and f'. {more[0].upper()}{more[1:]}'}"
        )


@dataclass(frozen=True, kw_only=True)
class Participation:
    """Settings of a federation that can do without some of its sites for a while.

    Attributes:
        min_sites: answers that have to be accepted, or a round does not count and is tried again; None begins the run
            with all sites, and lets a round count with one, or with as many as the rule of averaging takes.
        required_sites: of which each has to be among them.
        round_timeout: seconds after which the server goes on with the answers it has; None waits for every site that is
            connected.
        first_round_timeout: the same for the first round of a run, in which sites read their weights and compute what
            they keep; None for ten times ``round_timeout``.
        final_timeout: the same for the evaluation of the last model; None for that of the first round.
        sample: share of the sites that are asked in a round, above 0; those that are required are always asked, and
            never fewer than have to answer.
    """

    min_sites: int | None = None
    required_sites: tuple[str, ...] = ()
    round_timeout: int | None = None
    first_round_timeout: int | None = None
    final_timeout: int | None = None
    sample: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_sites", "round_timeout", "first_round_timeout", "final_timeout"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
        sites = self.required_sites
        if not isinstance(sites, tuple) or not all(isinstance(site, str) for site in sites):
            raise ConfigError(f"required_sites is {sites!r}; it must be a list of names")
        if type(self.sample) not in (int, float) or not 0 < self.sample <= 1:
            raise ConfigError(f"sample is {self.sample!r}; it must be a share above 0 and at most 1")

    def check(self, sites: Sequence[str]) -> None:
        """Refuse what no round of these sites can fulfil.

        Raises:
            ConfigError: more answers are needed than there are sites, or one of another site.
        """
        if self.least > len(sites):
            raise ConfigError(f"min_sites is {self.least}, and there are {len(sites)} sites; ask for fewer")
        if unknown := sorted(set(self.required_sites) - set(sites)):
            raise ConfigError(f"required_sites names {', '.join(unknown)}, which is not among the sites")

    @property
    def least(self) -> int:
        """Answers with which a round counts."""
        return self.min_sites or 1

    def begins_with(self, sites: Sequence[str]) -> int:
        """Sites that have to be connected before the run begins."""
        return self.min_sites or len(sites)

    def can_begin(self, reasons: Mapping[str, Any]) -> bool:
        """Whether enough sites are ready.

        Args:
            reasons: of every site that was asked, why it is not ready; None of one that is.
        """
        ready = {site for site, reason in reasons.items() if reason is None}
        return bool(ready) and len(ready) >= self.begins_with(tuple(reasons)) and ready >= {*self.required_sites}

    def asked(self, sites: Sequence[str], *, seed: int, number: int, attempt: int) -> tuple[str, ...]:
        """The sites that are asked in a round, in their order; another draw for each attempt.

        Args:
            sites: of the federation.
            seed: of the plan.
            number: of the round.
            attempt: counted from 0.
        """
        count = max(math.ceil(self.sample * len(sites) - 1e-9), self.least)
        others = [site for site in sites if site not in self.required_sites]
        drawn = np.random.default_rng([seed, number, attempt]).permutation(len(others))
        left = max(count - len(self.required_sites), 0)
        chosen = {*self.required_sites, *(others[place] for place in drawn[:left])}
        return tuple(site for site in sites if site in chosen)

    def lacks(self, accepted: Collection[str]) -> str:
        """Why a round with these answers does not count, in words; empty if it does."""
        if missing := [site for site in self.required_sites if site not in accepted]:
            return f"no answer of {', '.join(missing)} counted, without which no round does"
        if len(accepted) < self.least:
            return f"{len(accepted)} answers counted, of at least {self.least}"
        return ""

    def seconds(self, *, first: bool = False, final: bool = False) -> int:
        """How long the server waits for answers; 0 for as long as it takes."""
        usual = self.round_timeout or 0
        if final and self.final_timeout:
            return self.final_timeout
        return (self.first_round_timeout or _FIRST * usual) if first or final else usual

    def to_json(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults; :meth:`from_json` is the inverse."""
        default = Participation()
        pairs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found = {name: value for name, value in pairs.items() if value != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @classmethod
    def from_json(cls, value: Any) -> Participation:
        """Parse :meth:`to_json`'s form.

        Raises:
            ConfigError: an entry is unknown or out of range.
        """
        if not isinstance(value, Mapping):
            raise ConfigError(f"participation is {value!r:.80}; it must be a JSON object")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(value) - set(known)):
            raise ConfigError(f"unknown entries in participation: {', '.join(unknown)}; it has {', '.join(known)}")
        entries: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
        return cls(**entries)
