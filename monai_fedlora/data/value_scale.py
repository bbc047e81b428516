"""The scale of a regression's values: what a network gives for each is the value less a usual one, by a usual distance.

A head starts at small outputs and learns fastest where its targets are small numbers of about the same size, and so
targets are standardised. The mean and the deviation of a site's patients would do that best, but they are statistics of
private data, and a head that sites share must mean the same at each of them. The scale is therefore chosen by whoever
runs the study, from the literature or in round numbers; it stands in every site's datalist and in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from monai_fedlora.errors import ConfigError

Scale = Sequence[tuple[float, float]]
"""For each value a usual number and the usual distance from it, in the value's unit."""
HEART_SCALES = {
    "lv_edv": (150.0, 50.0),
    "lv_esv": (70.0, 50.0),
    "lv_sv": (80.0, 25.0),
    "lv_ef": (55.0, 15.0),
    "lv_mass": (120.0, 40.0),
    "rv_edv": (150.0, 50.0),
    "rv_esv": (75.0, 40.0),
    "rv_sv": (80.0, 25.0),
    "rv_ef": (50.0, 12.0),
}
"""Round numbers (ours) for adult hearts, by the name of a number of :mod:`monai_fedlora.measures.heart_function`."""
HEART_VALUES = ("lv_ef", "lv_edv")
"""What a regression of hearts learns where nothing else is said: ejection fraction in %, end-diastolic volume in mL."""


def known_scales(values: Mapping[str, tuple[float, float] | None]) -> dict[str, tuple[float, float]]:
    """The scale of every value that has one, as chosen or as is usual for hearts.

    Args:
        values: by name the chosen scale; None for the usual one.
    """
    chosen = {name: scale or HEART_SCALES.get(name) for name, scale in values.items()}
    return {name: scale for name, scale in chosen.items() if scale is not None}


def check_scale(scale: Scale, names: Sequence[str]) -> None:
    """Refuse a scale that does not fit the values; an empty one fits all.

    Args:
        scale: see :data:`Scale`.
        names: of the values.

    Raises:
        ConfigError: there are not as many pairs as values, a number is not finite, or a distance is not above 0.
    """
    if not scale:
        return
    if len(scale) != len(names):
        raise ConfigError(f"there are {len(scale)} scales for {len(names)} values; give one for each, or none")
    for name, (centre, spread) in zip(names, scale, strict=True):
        if not math.isfinite(centre) or not math.isfinite(spread) or spread <= 0:
            raise ConfigError(
                f"the scale of {name} is {centre:g}/{spread:g}; give a usual value and a distance above 0: 55/15"
            )


def common_scale(scales: Mapping[str, tuple[tuple[float, float], ...]]) -> tuple[tuple[float, float], ...]:
    """The scale that all sites have.

    Args:
        scales: by site; empty for a site whose values are as they are.

    Raises:
        ConfigError: two sites have different ones.
    """
    first = next(iter(scales), None)
    if first is None:
        return ()
    if differing := [site for site, scale in scales.items() if scale != scales[first]]:
        said = [[list(pair) for pair in scales[site]] or "none" for site in (first, differing[0])]
        raise ConfigError(
            f"the values of {first} have the scale {said[0]}, and those of {differing[0]} {said[1]}; prepare all sites "
            "with the same --value"
        )
    return scales[first]
