"""The budget of a plan: how much what a site sends may tell about one of its patients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_fedlora.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """(epsilon, delta)-differential privacy of everything a site sends in an experiment, for each of its patients.

    Args:
        epsilon: above 0.
        delta: probability with which epsilon may be exceeded, above 0 and below 1 over the number of patients.
        clip: largest L2 norm of one patient's gradient of all shared parameters together, above 0.
        noise: standard deviation of the noise over ``clip``, above 0; None for the least with which all rounds stay
            within epsilon.
        spare_rounds: how many answers more than there are rounds stay within epsilon, at least 0: each round that is
            trained again, as after an answer was lost before it was stored, is charged again. With none (ours), the
            first of them ends what the site can take part in; each one costs a little more noise in all rounds.

    Raises:
        ConfigError: a value is out of range.
    """

    epsilon: float
    delta: float
    clip: float
    noise: float | None = None
    spare_rounds: int = 0

    def __post_init__(self) -> None:
        for name in ("epsilon", "clip", *(("noise",) if self.noise is not None else ())):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ConfigError(f"privacy: {name} is {value!r}; it must be a positive number{_WHY.get(name, '')}")
        if type(self.delta) not in (int, float) or not 0 < self.delta < 1:
            raise ConfigError(f"privacy: delta is {self.delta!r}; it must lie between 0 and 1, for example 1e-5")
        if type(self.spare_rounds) is not int or self.spare_rounds < 0:
            raise ConfigError(f"privacy: spare_rounds is {self.spare_rounds!r}; it must be a whole number, 0 for none")

    def charges(self, rounds: int) -> int:
        """How many answers of an experiment with so many rounds stay within epsilon."""
        return rounds + self.spare_rounds

    def check_patients(self, patients: int, *, site: str) -> None:
        """Refuse a delta with which a site could give away one patient's record as it is.

        Raises:
            ConfigError: delta is above 1 over the number of patients.
        """
        if self.delta * patients > 1:
            raise ConfigError(
                f"privacy: delta is {self.delta:g}, above one over the {patients} patients of {site}: publishing one "
                f"of them at random would satisfy it; choose at most {1 / patients:.1g}, better much less"
            )

    def to_json(self) -> dict[str, Any]:
        """As it stands in a plan; :meth:`from_json` is its inverse."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != _UNSAID.get(name)}

    @classmethod
    def from_json(cls, value: Any) -> PrivacySettings | None:
        """Read :meth:`to_json`'s form, or null for no budget.

        Raises:
            ConfigError: an entry is missing, unknown or out of range.
        """
        if value is None:
            return None
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, Mapping) or not {"epsilon", "delta", "clip"} <= set(value) <= known:
            raise ConfigError(
                f"privacy is {value!r:.80}; it has epsilon, delta, clip and, if you like, noise and spare_rounds"
            )
        return cls(**value)


_UNSAID = {"noise": None, "spare_rounds": 0}
_WHY = {
    "clip": ": with nothing left of the gradients nothing is learnt, and without a limit no noise hides a patient",
    "noise": ": without noise there is no budget to keep",
}
