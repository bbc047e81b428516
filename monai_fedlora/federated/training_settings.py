"""Which of a bundle's training settings a plan may change, and to what.

A site's own bundle refuses bad values too, but only once the job runs there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

from monai_fedlora.engines.compiling import COMPILERS
from monai_fedlora.engines.precision import Kept, Precision
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS
from monai_fedlora.methods import METHODS


class Kind(NamedTuple):
    """What a setting may be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _whole(least: int) -> Kind:
    return Kind(lambda value: type(value) is int and value >= least, f"a whole number of at least {least}")


def _one_of(words: tuple[str, ...]) -> Kind:
    return Kind(lambda value: value in words, f"one of {', '.join(words)}")


def _are_weights(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_number(part) and part > 0 for part in value)
    return value is None or value == "balanced"


def _are_levels(value: Any, *, positive: bool = False) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) == 3 and all(_number(part) and (part > 0 or not positive) for part in value)
    return value is None


_SWITCH = Kind(lambda value: type(value) is bool, "true or false")
_POSITIVE = Kind(lambda value: _number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = Kind(lambda value: _number(value) and value >= 0, "a number of at least 0")

TRAINING_SETTINGS: Mapping[str, Kind] = {
    "accumulation_steps": _whole(1),
    "augment": _SWITCH,
    "augmented_views": _whole(0),
    "batch_size": _whole(1),
    "cache_dtype": _one_of(get_args(Kept)),
    "cache_features": _SWITCH,
    "class_weights": Kind(_are_weights, "null, balanced, or a positive number for each class"),
    "compiler": _one_of(COMPILERS),
    "deterministic": _SWITCH,
    "image_mean": Kind(_are_levels, "null, or a number for each of red, green and blue"),
    "image_std": Kind(partial(_are_levels, positive=True), "null, or a number above 0 for each of red, green and blue"),
    "label_smoothing": Kind(lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "learning_rate": _POSITIVE,
    "max_grad_norm": Kind(lambda value: value is None or _POSITIVE.holds(value), "null or a number above 0"),
    "mixed_precision": _one_of(get_args(Precision)),
    "style": Kind(lambda value: value is None or isinstance(value, str), "null or a word"),
    "warmup_epochs": _whole(0),
    "weight_decay": _NOT_NEGATIVE,
}


def check_names(settings: Iterable[str], methods: Sequence[str]) -> None:
    """Check that training, the federation or one of the methods has each setting.

    Raises:
        ConfigError: a method is unknown, or neither has a setting (the nearest one is suggested).
    """
    own = {field.name for name in methods for field in dataclasses.fields(METHODS[name])}
    for setting in settings:
        if setting not in TRAINING_SETTINGS and setting not in FEDERATION_SETTINGS and setting not in own:
            known = [*sorted(own), *TRAINING_SETTINGS, *FEDERATION_SETTINGS]
            raise ConfigError(
                f"neither {' nor '.join(methods)} nor training has a setting {setting!r}{nearest(setting, known)}"
            )


def check_training(settings: Mapping[str, Any]) -> None:
    """Check overrides of training settings.

    Raises:
        ConfigError: one is not in :data:`TRAINING_SETTINGS`, or not of its kind.
    """
    if unknown := sorted(set(settings) - set(TRAINING_SETTINGS)):
        raise ConfigError(f"a plan cannot set {', '.join(unknown)}{nearest(unknown[0], list(TRAINING_SETTINGS))}")
    for name, value in settings.items():
        kind = TRAINING_SETTINGS[name]
        if not kind.holds(value):
            raise ConfigError(f"{name} is {value!r}; it must be {kind.words}")
