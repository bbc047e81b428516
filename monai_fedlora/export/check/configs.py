"""Whether a configuration does only what a bundle's configuration has to do."""

from __future__ import annotations

import configparser
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.export.check.contents import Contents
from monai_fedlora.export.check.expressions import objection
from monai_fedlora.export.check.findings import Finding
from monai_fedlora.export.check.layout import EXPORTED, kind_of
from monai_fedlora.export.check.metadata import METADATA_NAME
from monai_fedlora.export.check.plain_json import read_plain_json
from monai_fedlora.export.check.targets import (
    EXPORTED_PLACES,
    EXPORTED_TARGETS,
    EXPORTED_WRITERS,
    TRAINING_TARGETS,
)

_TARGET = "_target_"
_SPECIAL = re.compile("_[a-z]+_")
_CLASS_NAME = re.compile("[A-Za-z]+")
_NAMES_OF_CLASSES = ("reader", "writer")
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
"""The keys of a ``logging.conf`` with what each may say; Python evaluates ``class`` and ``args``."""


def check_configs(contents: Contents) -> Iterator[Finding]:
    """No configuration calls, evaluates or includes anything that it should not."""
    exported = kind_of(contents) == EXPORTED
    targets: Collection[str] = EXPORTED_TARGETS if exported else TRAINING_TARGETS
    for name in contents.files:
        if not name.startswith("configs/"):
            continue
        try:
            if name.endswith(".json"):
                problems = list(
                    config_problems(
                        read_plain_json(contents.read(name)),
                        targets=() if name == METADATA_NAME else targets,
                        expressions=exported and name != METADATA_NAME,
                    )
                )
                if exported and name != METADATA_NAME:
                    problems += place_problems(read_plain_json(contents.read(name)))
            elif name.endswith(".conf"):
                problems = list(logging_problems(contents.read(name).decode("utf-8")))
            else:
                problems = ["is no JSON file, so that it cannot be checked"]
        except (ExportError, UnicodeDecodeError) as error:
            problems = [str(error)]
        for problem in problems:
            yield Finding(rule="configuration", file=name, problem=problem)


def config_problems(config: Any, *, targets: Collection[str], expressions: bool) -> Iterator[str]:
    """What a configuration has that it should not.

    Args:
        config: the parsed file.
        targets: what it may call; a mapping also names the arguments that it may give.
        expressions: whether it may evaluate harmless expressions.
    """
    if not isinstance(config, Mapping):
        yield "is not a JSON object"
        return
    for place, value in _walk(config, ""):
        if isinstance(value, Mapping):
            yield from _object_problems(place, value, targets)
        elif isinstance(value, str):
            if value.startswith("%"):
                yield f"{place} is a macro, which can read any file: {_short(value)}"
            elif value.startswith("$") and not expressions:
                yield f"{place} is an expression, of which this file has none: {_short(value)}"
            elif value.startswith("$") and (reason := objection(value[1:])):
                yield f"{place} is an expression that {reason}: {_short(value)}"


def place_problems(config: Any) -> Iterator[str]:
    """Where an exported configuration would write or read by itself, if that is not where every export does."""
    for place, expected in EXPORTED_PLACES.items():
        value = config
        for key in place.split("::"):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value != expected:
            yield f"{place} is {_short(value)}, not {expected!r}"


def logging_problems(text: str) -> Iterator[str]:
    """What a ``logging.conf`` has that it should not."""
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
                yield f"[{section}] {key} is {_short(value)}, which no bundle needs"


def _object_problems(place: str, value: Mapping[str, Any], targets: Collection[str]) -> Iterator[str]:
    if isinstance(targets, Mapping) and (arguments := targets.get(str(value.get(_TARGET)))) is not None:
        for key in value.keys() - arguments - {_TARGET}:
            yield f"{place} gives {_short(key)} to {value[_TARGET]}, which no export does"
        if value[_TARGET] in EXPORTED_WRITERS and place != EXPORTED_WRITERS[value[_TARGET]]:
            yield f"{place} writes a file; only {EXPORTED_WRITERS[value[_TARGET]]} may"
    for key, part in value.items():
        name = key.rpartition("::")[2]  # an override may name a place inside of another object
        if name == _TARGET:
            if not isinstance(part, str) or part not in targets:
                yield f"{place} calls {_short(part)}, which is not on the list of this kind of bundle"
        elif _SPECIAL.fullmatch(name):
            yield f"{place} uses {name}, which no bundle needs"
        elif "#" in key or "@" in key or ("::" in key and isinstance(targets, Mapping)):
            yield f"{place} has the key {_short(key)}, which MONAI rewrites"
        elif name in _NAMES_OF_CLASSES and not (isinstance(part, str) and _CLASS_NAME.fullmatch(part)):
            yield f"{place} names {_short(part)} as its {name}, which is no plain class of MONAI"


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    yield place or "the configuration", value
    parts: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _walk(part, f"{place}::{key}" if place else str(key))


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
