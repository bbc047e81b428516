from __future__ import annotations

import math

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.privacy_settings import PrivacySettings

GOOD = {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0}


@pytest.mark.parametrize("noise", [None, 1.25])
def test_what_is_written_is_read_again(noise: float | None) -> None:
    settings = PrivacySettings(**GOOD, noise=noise)
    assert PrivacySettings.from_json(settings.to_json()) == settings
    assert ("noise" in settings.to_json()) == (noise is not None)
    assert PrivacySettings.from_json(None) is None


@pytest.mark.parametrize("spare", [0, 3])
def test_rounds_to_spare_are_charges_more_and_stand_in_no_plan_without_them(spare: int) -> None:
    settings = PrivacySettings(**GOOD, spare_rounds=spare)
    assert settings.charges(10) == 10 + spare
    assert PrivacySettings.from_json(settings.to_json()) == settings
    assert ("spare_rounds" in settings.to_json()) == (spare > 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("spare_rounds", value) for value in (-1, 1.0, True, "1", None)),
        *((name, value) for name in ("epsilon", "clip", "noise") for value in (0, -1.0, math.inf, math.nan, "1", True)),
        *(("delta", value) for value in (0, 1, -1e-5, math.nan, "1e-5")),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"privacy: {name} is"):
        PrivacySettings(**{**GOOD, name: value})


@pytest.mark.parametrize("value", [{}, {**GOOD, "seed": 1}, {"epsilon": 1.0, "delta": 1e-5}, [8, 1e-5, 1], "8"])
def test_other_entries_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="it has epsilon, delta, clip"):
        PrivacySettings.from_json(value)


def test_delta_is_at_most_one_over_the_patients() -> None:
    settings = PrivacySettings(**{**GOOD, "delta": 0.01})
    settings.check_patients(100, site="north")
    with pytest.raises(ConfigError, match="above one over the 101 patients of north"):
        settings.check_patients(101, site="north")
