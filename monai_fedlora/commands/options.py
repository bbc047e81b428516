"""Options that several commands read in the same way."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError

DEFAULT_BUNDLE = "cine_cmr_dual_lora_classification"
DEFAULT_SITES = "site-1,site-2,site-3,site-4"


def add_signature_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--require-signature`` to a command that opens a bundle."""
    parser.add_argument(
        "--require-signature",
        action="append",
        default=[],
        type=Path,
        metavar="PUBKEY",
        help="the bundle must be signed with this public key (PEM), or with another one if it is given several times",
    )


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add what puts the classes into words, for methods that compare images with texts."""
    parser.add_argument(
        "--class-text",
        action="append",
        default=[],
        metavar="CLASS=TEXT",
        help="what a class is called in the sentences that images are compared with, such as GLA='glaucoma'; may be "
        "repeated (default: the bundle's text of it)",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='JSON with "templates", sentences that hold {class}, and "class_texts", a text for each class or {} for '
        "the names themselves; either may be left out (default: the bundle's)",
    )


def add_budget_options(parser: argparse.ArgumentParser) -> None:
    """Add a budget for privacy: short forms of the settings that begin with ``dp_``."""
    for name, metavar, what in (
        ("epsilon", "E", "with noise, so that all that a site sends of one patient is E-differentially private"),
        ("delta", "D", "but for a probability of D, far below one over the patients of the smallest site"),
        ("clip", "C", "largest length of one patient's gradient, above which it is scaled down"),
        ("noise", "S", "noise, in multiples of C (default: the least that keeps to E)"),
    ):
        parser.add_argument(f"--dp-{name}", type=float, metavar=metavar, help=what)
    parser.add_argument(
        "--dp-spare-rounds",
        type=int,
        metavar="N",
        help="noise for N rounds more, which a site may train again within E, as after a crash before its answer was "
        "stored (default: 0, with which the first of them ends its part)",
    )


def budget_settings(args: argparse.Namespace) -> dict[str, float | int]:
    """What of a budget was given, by the setting's name."""
    given = {
        f"dp_{name}": getattr(args, f"dp_{name}") for name in ("epsilon", "delta", "clip", "noise", "spare_rounds")
    }
    return {name: value for name, value in given.items() if value is not None}


def add_value_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--value``, which names a number of a regression with its scale.

    Args:
        parser: of the command.
        what: the number is, in its words.
    """
    parser.add_argument(
        "--value",
        type=parse_value,
        action="append",
        metavar="NAME=USUAL/DISTANCE",
        help=f"{what}, with a usual value and a usual distance from it that all sites share, such as "
        "ejection_fraction=50/15; may be given several times (default: lv_ef and lv_edv)",
    )


def parse_value(text: str) -> tuple[str, tuple[float, float] | None]:
    """Turn ``NAME`` or ``NAME=USUAL/DISTANCE`` into a value and its scale; None for the usual one."""
    name, given, scale = text.partition("=")
    if not given:
        return name.strip(), None
    try:
        usual, distance = map(float, scale.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name, or one with two numbers like lv_ef=55/15") from None
    return name.strip(), (usual, distance)


def parse_class_texts(items: Sequence[str]) -> dict[str, str]:
    """Turn ``CLASS=TEXT`` into texts by class.

    Raises:
        ConfigError: one has no equals sign.
    """
    texts = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--class-text {item}: write CLASS=TEXT")
        texts[name] = text
    return texts


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` texts into settings: a value is JSON, else a list at commas, else a word.

    Each part of a list is again JSON or a word: ``2,8`` is what ``[2,8]`` is, and ``2,`` a list of one.

    Raises:
        ConfigError: one has no equals sign.
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write NAME=VALUE")
        value = _value(text)
        if value is text and "," in text:
            settings[name] = [_value(part) for part in text.removesuffix(",").split(",")]
        else:
            settings[name] = value
    return settings


def _value(text: str) -> Any:
    """What a text says as JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_budget(text: str) -> dict[str, float] | None:
    """Read ``EPSILON,DELTA``, or ``none``.

    Raises:
        ConfigError: it is neither.
    """
    if text == "none":
        return None
    try:
        epsilon, delta = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--budget {text}: give epsilon and delta, such as 8,1e-5, or none") from None
    return {"epsilon": epsilon, "delta": delta}
