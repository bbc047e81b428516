"""Check that a bundle's configurations do nothing but what is needed."""

from __future__ import annotations

import configparser
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from monai_fedlora.exporting.check.allowed_targets import EARLIER_TARGETS, TRAINING_TARGETS
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.check.findings import Finding, first_problems
from monai_fedlora.exporting.check.inference import inference_problems
from monai_fedlora.exporting.check.layout import EXPORTED, kind_of
from monai_fedlora.exporting.check.metadata import METADATA_NAME
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.exporting.check.words import shortened

_TARGET = "_target_"
_SPECIAL = re.compile("_[a-z]+_")
_NAMES_OF_CODE = ("reader", "writer")  # MONAI looks the class up by name, also outside of its own modules
_LOGGING = {
    "handlers": re.compile(r"(console)?"),
    "class": re.compile("StreamHandler"),
    "args": re.compile(r"\((sys\.(stdout|stderr),)?\)"),
    "level": re.compile("NOTSET|DEBUG|INFO|WARNING|ERROR|CRITICAL"),
    "keys": re.compile(r"[a-z, ]*"),
    "qualname": re.compile(r"[a-z_.]+"),
    "propagate": re.compile("[01]"),
    "formatter": re.compile("[a-z]+"),
    "format": re.compile(r"[^\n]*"),
    "datefmt": re.compile(r"[^\n]*"),
}
"""The permitted keys and values of ``logging.conf``; Python evaluates ``class`` and ``args``."""


def check_configs(contents: Contents) -> Iterator[Finding]:
    """No configuration calls, evaluates or includes anything that is not permitted."""
    for name in contents.files:
        if name.startswith("configs/"):
            for problem in first_problems(_file_problems(contents, name)):
                yield Finding(rule="configuration", file=name, problem=problem)


def _file_problems(contents: Contents, name: str) -> Iterator[str]:
    if name.endswith(".conf"):
        yield from logging_problems(contents.read(name).decode("utf-8"))
    elif not name.endswith(".json"):
        yield "is no JSON file, so that it cannot be checked"
    elif name == METADATA_NAME or kind_of(contents) != EXPORTED:
        targets: Collection[str] = () if name == METADATA_NAME else TRAINING_TARGETS | EARLIER_TARGETS
        yield from config_problems(read_plain_json(contents.read(name)), targets=targets)
    else:
        metadata = read_plain_json(contents.read(METADATA_NAME)) if METADATA_NAME in contents.files else None
        yield from inference_problems(read_plain_json(contents.read(name)), metadata)


def config_problems(config: Any, *, targets: Collection[str]) -> Iterator[str]:
    """Problems of a configuration that must not have expressions.

    Args:
        config: the parsed file.
        targets: the targets that it may call.
    """
    if not isinstance(config, Mapping):
        yield "is not a JSON object"
        return
    for place, value in _walk(config, ""):
        if isinstance(value, Mapping):
            yield from _object_problems(place, value, targets)
        elif isinstance(value, str):
            if value.startswith("%"):
                yield f"{place} is a macro, which can read any file: {shortened(value)}"
            elif value.startswith("$"):
                yield f"{place} is an expression, of which this file has none: {shortened(value)}"


def logging_problems(text: str) -> Iterator[str]:
    """Problems of a ``logging.conf``."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        yield f"is no logging configuration ({' '.join(str(error).split())[:200]})"
        return
    if parser.defaults():
        yield "sets values for all sections"
    for section in parser.sections():
        for key, value in parser[section].items():
            if key not in _LOGGING or not _LOGGING[key].fullmatch(value):
                yield f"[{section}] {key} is {shortened(value)}, which no bundle needs"


def _object_problems(place: str, value: Mapping[str, Any], targets: Collection[str]) -> Iterator[str]:
    for key, part in value.items():
        name = key.rpartition("::")[2]  # an override may name a place inside of another object
        if name == _TARGET:
            if not isinstance(part, str) or part not in targets:
                yield f"{place} calls {shortened(part)}, which is not on the list of this kind of bundle"
        elif _SPECIAL.fullmatch(name):
            yield f"{place} uses {name}, which no bundle needs"
        elif "#" in key or "@" in key:
            yield f"{place} has the key {shortened(key)}, which MONAI rewrites"
        elif name in _NAMES_OF_CODE:
            yield f"{place} names a {name}, which no bundle of this kind needs"


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    yield place or "the configuration", value
    parts: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _walk(part, f"{place}::{key}" if place else str(key))
