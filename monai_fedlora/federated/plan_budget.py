"""What a plan with a budget for privacy may say, and what the answers to it leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Method
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.site_report import IMAGES

SAID = ("round", "cases", "restored_rounds", IMAGES)
"""What a report still says under a budget: the cases are those that the plan declares, not those that the site has."""
WITHHELD = ("train_loss", "validation", "test", "seconds")
"""What it says otherwise, and was computed from the patients without noise."""

_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "accumulation_steps": (
        lambda value: value == 1,
        "and a noised step has one draw of patients; leave it at 1",
    ),
    "class_weights": (
        lambda value: value != "balanced",
        "which counts a site's patients without noise; give a number for each class, or null",
    ),
    "compiler": (lambda value: value == "off", "and gradients of single patients are not compiled; leave it off"),
}
SETTINGS: Mapping[str, Any] = {"accumulation_steps": 1, "class_weights": None, "compiler": "off"}
"""Settings of training that hold under a budget in place of a bundle's own."""


def check_budget(
    settings: PrivacySettings, *, method: Method, training: Mapping[str, Any], declared: Mapping[str, int]
) -> None:
    """Refuse a budget that nobody could keep.

    Args:
        settings: the budget.
        method: of the plan.
        training: its overrides of training settings.
        declared: patients of sites.

    Raises:
        ConfigError: the method has no view without private parts, delta is above one over a site's patients, or a
            setting reveals something of them.
    """
    if (why := method.why_not_noised) is not None:
        raise ConfigError(f"privacy: {method.name} cannot keep a budget: {why}")
    for site, patients in declared.items():
        settings.check_patients(patients, site=site)
    for name, (allowed, because) in _ALLOWED.items():
        if name in training and not allowed(training[name]):
            raise ConfigError(f"privacy: {name} is {training[name]!r}, {because}")
