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
