"""Origin of images: whether they are synthetic or real, and the name and source of their data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monai_fedlora.errors import ConfigError

SYNTHETIC, MIXED, REAL, UNKNOWN = "synthetic", "mixed", "real", "unknown"
KINDS = (SYNTHETIC, MIXED, REAL, UNKNOWN)
"""Kinds of images; reports send the index of a kind in this tuple."""
PUBLISHED = "published"
"""Kind of a backbone whose pre-training data are described by those who published it."""
PHANTOMS = "phantoms of monai-fedlora"
"""Source of the synthetic images of this package."""

_PHANTOM_SETS = re.compile(r"phantom-(dermoscopy-|fundus-)?[A-Za-z0-9][A-Za-z0-9_-]*")
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where images come from.

    Attributes:
        kind: one of :data:`KINDS`.
        name: name of the data set; None where unknown.
        source: who made or published it; None where unknown.

    Raises:
        ConfigError: the kind is unknown, or a text is empty, has several lines or more than 200 characters.
    """

    kind: str = UNKNOWN
    name: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind)
        for text in (self.name, self.source):
            if text is not None and not (isinstance(text, str) and text.strip() and text.isprintable()):
                raise ConfigError(f"the origin of images is called {text!r:.80}; it must be a line of text")
            if text is not None and len(text) > _LONGEST:
                raise ConfigError(f"the origin of images is called {text[:40]!r}..., in more than {_LONGEST} letters")

    def to_json(self) -> dict[str, str | None]:
        """Return ``kind``, ``name`` and ``source``."""
        return {"kind": self.kind, "name": self.name, "source": self.source}

    @classmethod
    def from_json(cls, value: Any) -> Origin:
        """Parse :meth:`to_json`'s form.

        Raises:
            ConfigError: an entry is missing, unknown or not valid.
        """
        if not isinstance(value, Mapping) or set(value) != {"kind", "name", "source"}:
            raise ConfigError("the origin of images has the entries kind, name and source")
        return cls(**value)


def check_kind(kind: Any) -> None:
    """Refuse a kind that is not one of :data:`KINDS`.

    Raises:
        ConfigError: it is not.
    """
    if kind not in KINDS:
        raise ConfigError(f"images are of the kind {kind!r:.40}; it is one of {', '.join(KINDS)}")


def together(kinds: Iterable[str]) -> str:
    """The kind of several kinds of images together: synthetic with others is mixed, real with unknown is unknown."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if found & {SYNTHETIC, MIXED}:
        return MIXED
    return UNKNOWN


def recognised(dataset: str) -> Origin:
    """The origin that follows from a data set's name alone: synthetic for the names of this package's phantoms."""
    if all(_PHANTOM_SETS.fullmatch(part) for part in dataset.split("+")):
        return Origin(kind=SYNTHETIC, name=dataset[:_LONGEST], source=PHANTOMS)
    return Origin()
