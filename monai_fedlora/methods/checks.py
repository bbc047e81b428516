"""Checks of methods' settings, which raise ConfigError with messages of one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora.errors import ConfigError, nearest


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise ConfigError for a word that is not one of the allowed ones."""
    if value not in known:
        raise ConfigError(f"{name} is {value!r}{nearest(str(value), known)}")


def check_weight(name: str, value: Any) -> None:
    """Raise ConfigError for anything but a finite number of at least 0."""
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise ConfigError(f"{name} is {value!r}; it must be a number of at least 0, and 0 turns the term off")


def check_fraction(name: str, value: Any) -> None:
    """Raise ConfigError for anything but a number above 0 and below 1."""
    if type(value) not in (int, float) or not 0 < value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0 and below 1")


def check_whole(name: str, value: Any, *, least: int = 0) -> None:
    """Raise ConfigError for anything but a whole number of at least ``least``."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def check_head(network: Any, who: str) -> None:
    """Refuse a network of which no part is called its head; ``who`` needs one."""
    if not network.head_prefixes:
        raise ConfigError(
            f"{who} needs to know the network's classification head, and none is named; give the dotted name of the "
            'module that makes the logits, for example head="classifier"'
        )
