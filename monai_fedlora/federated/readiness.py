"""What a site says about itself before anybody trains: a few declared fields, and no text of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.installation import is_versions
from monai_fedlora.federated.reasons import REASONS
from monai_fedlora.site_report import MOST_CASES

FEWEST_CASES = 5
"""Training cases below which a site does not say how many it has, as with patients in summaries (ours)."""
_BUNDLE = re.compile(r"[0-9a-f]{8}")
_MOST_MEGABYTES = 10**9


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """A site's answer to whether it could train now.

    Attributes:
        codes: of :data:`monai_fedlora.federated.reasons.REASONS`, why it is not ready; none where it is.
        versions: of its packages, see :func:`monai_fedlora.federated.installation.installed_versions`.
        bundle: the first eight digits of its bundle's digest; None if it has none.
        cases: training cases; None if they are few, or the site is not ready.
        free_mb, needed_mb: megabytes on the disk of its private folder that are free, and that a run takes there, both
            to two significant digits.
    """

    codes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    bundle: str | None = None
    cases: int | None = None
    free_mb: int | None = None
    needed_mb: int | None = None

    @classmethod
    def parse(cls, value: Any) -> Readiness:
        """Read :meth:`to_json`'s form, or refuse it as a whole.

        Raises:
            PrivacyError: an entry is undeclared, or is not of its declared form.
        """
        if not isinstance(value, Mapping):
            raise PrivacyError(f"a site's readiness is a {type(value).__name__}, not a mapping")
        if others := set(value) - set(_FORMS):
            raise PrivacyError(f"undeclared entries of a site's readiness: {', '.join(sorted(map(repr, others)))}")
        for name, entry in value.items():
            if not _FORMS[name](entry):
                raise PrivacyError(f"entry {name!r} of a site's readiness is not of its form")
        if "codes" not in value:
            raise PrivacyError("a site's readiness says nothing of its codes")
        entries: dict[str, Any] = {**value, "codes": tuple(value["codes"])}
        found = cls(**entries)
        if found.codes and found.cases is not None:
            raise PrivacyError("a site that is not ready does not say how many cases it has")
        return found

    def to_json(self) -> dict[str, Any]:
        """The entries that say something, in a fixed order, so that the order says nothing."""
        value = {**vars(self), "codes": sorted(self.codes), "versions": dict(sorted(self.versions.items()))}
        return {name: value[name] for name in _FORMS if value[name] is not None}


def told_cases(cases: int) -> int | None:
    """A number of training cases as it leaves a site before it has sent anything else."""
    return cases if cases >= FEWEST_CASES else None


def told_megabytes(nbytes: float) -> int:
    """A number of bytes in megabytes, to two significant digits, rounded up."""
    megabytes = math.ceil(nbytes / 1e6)
    unit = 10 ** max(len(str(megabytes)) - 2, 0)
    return min(-(-megabytes // unit) * unit, _MOST_MEGABYTES)


def _is_codes(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(isinstance(code, str) and code in REASONS for code in value)
        and list(value) == sorted(set(value))
    )


def _is_bundle(value: Any) -> bool:
    return isinstance(value, str) and _BUNDLE.fullmatch(value) is not None


def _is_cases(value: Any) -> bool:
    return type(value) is int and FEWEST_CASES <= value <= MOST_CASES


def _is_megabytes(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_MEGABYTES and value == told_megabytes(value * 1e6)


_FORMS = {
    "codes": _is_codes,
    "versions": is_versions,
    "bundle": _is_bundle,
    "cases": _is_cases,
    "free_mb": _is_megabytes,
    "needed_mb": _is_megabytes,
}
