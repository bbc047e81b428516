"""What an answer costs: so many steps of a Gaussian mechanism on a random part of the patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_fedlora.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Steps of DP-SGD (Abadi et al., CCS 2016, algorithm 1), about adding or removing one patient.

    In every step each patient takes part with the same probability, independently of the others (Poisson sampling). The
    sum of the patients' gradients, each clipped to an L2 norm of C, gets Gaussian noise with a standard deviation of
    ``noise_multiplier`` times C in every coordinate. C itself does not matter to what it costs.

    Attributes:
        noise_multiplier: above 0.
        sample_rate: probability, above 0 and at most 1.
        steps: at least 1.

    Raises:
        ConfigError: a value is out of range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise ConfigError(f"the noise multiplier is {self.noise_multiplier}; it must be a positive number")
        if not 0 < self.sample_rate <= 1:
            raise ConfigError(f"the sample rate is {self.sample_rate}; it must lie above 0 and be at most 1")
        if type(self.steps) is not int or self.steps < 1:
            raise ConfigError(f"there are {self.steps!r} noised steps; it must be a whole number of at least 1")


def sampling_of_round(*, patients: int, batch_size: int, epochs: int) -> tuple[float, int]:
    """Sample rate and number of steps of a round, from numbers that everybody may know.

    Args:
        patients: who train at the site, as it is declared.
        batch_size: patients in a step on average, unless there are fewer.
        epochs: of as many steps as it takes to have as many draws as patients.
    """
    return min(1.0, batch_size / patients), epochs * math.ceil(patients / batch_size)
