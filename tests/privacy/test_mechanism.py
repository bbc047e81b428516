from __future__ import annotations

import math

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.mechanism import Mechanism, sampling_of_round

GOOD = {"noise_multiplier": 1.1, "sample_rate": 0.01, "steps": 100}


@pytest.mark.parametrize(
    "bad",
    [
        *({"noise_multiplier": value} for value in (0, -1.0, math.inf, math.nan)),
        *({"sample_rate": value} for value in (0, -0.1, 1.01, math.nan)),
        *({"steps": value} for value in (0, -1, 1.5, True)),
    ],
)
def test_what_is_no_mechanism_is_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match="must"):
        Mechanism(**{**GOOD, **bad})


def test_every_patient_may_be_in_every_step() -> None:
    assert Mechanism(**{**GOOD, "sample_rate": 1}).sample_rate == 1


@pytest.mark.parametrize(
    ("patients", "batch_size", "epochs", "expected"),
    [(96, 16, 1, (1 / 6, 6)), (97, 16, 2, (16 / 97, 14)), (10, 16, 3, (1.0, 3))],
)
def test_a_round_has_as_many_steps_as_it_takes_to_draw_everybody_once_an_epoch(
    patients: int, batch_size: int, epochs: int, expected: tuple[float, int]
) -> None:
    assert sampling_of_round(patients=patients, batch_size=batch_size, epochs=epochs) == expected
