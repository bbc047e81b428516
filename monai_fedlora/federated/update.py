"""A site's answer to a round, the same object from the site to the server's sum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NewType

import numpy as np

from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import MetricsForm, Report


@dataclass(frozen=True)
class Update:
    """Shared tensors, and what the site says about the round.

    Attributes:
        tensors: by key, as they travel: see :class:`monai_fedlora.scope.Entry`.
        report: parsed.
    """

    tensors: Mapping[str, np.ndarray]
    report: Report

    @classmethod
    def read(cls, tensors: Any, report: Any, *, form: MetricsForm) -> Update:
        """Read what arrived of an update; the tensors are left for :meth:`opened`.

        Raises:
            PrivacyError: the report says what none may, see :class:`Report`.
        """
        return cls(tensors, Report.parse(report, form=form, splits=("validation",)))

    def opened(self, manifest: Manifest, sent: Mapping[str, np.ndarray]) -> Opened:
        """The same update with what its tensors stand for, see :meth:`monai_fedlora.scope.Manifest.open`.

        Raises:
            PrivacyError: they are not what the manifest declares.
        """
        return Opened(replace(self, tensors=manifest.open(self.tensors, sent)))


def payload_digest(payload: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of tensors with their keys, types and shapes."""
    digest = hashlib.sha256()
    for key, value in sorted(payload.items()):
        array = np.ascontiguousarray(value)
        digest.update(repr((key, array.dtype.str, value.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


Opened = NewType("Opened", Update)
"""An update whose tensors are the declared ones, finite, and decoded."""
