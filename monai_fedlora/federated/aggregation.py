"""Weighted averaging of shared tensors, with every refusal a server can make without seeing private data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import PrivacyError
from monai_fedlora.scope import Manifest, check_report

Payload = Mapping[str, np.ndarray]


class Refusal(PrivacyError):
    """An update that is left out of its round; the message says why and holds no values."""


@dataclass(frozen=True)
class Contribution:
    """One accepted update."""

    payload: Payload
    report: Mapping[str, Any]


class SharedAverage:
    """Federated averaging over the manifest's keys (McMahan et al., AISTATS 2017, algorithm 1).

    theta <- sum_k n_k / n theta_k, summed in float64 in the order of the sites' names, so that the result does
    not depend on who answers first.

    Args:
        manifest: the tensors that may arrive.
        sites: members of the federation; an update from anybody else is refused.
        declared_cases: announced case counts; a site without one is held to its first accepted count.
        max_update_rms: largest accepted root-mean-square change per parameter.
    """

    def __init__(
        self,
        *,
        manifest: Manifest,
        sites: tuple[str, ...],
        declared_cases: Mapping[str, int] | None = None,
        max_update_rms: float = 1.0,
    ) -> None:
        self.manifest = manifest
        self.sites = sites
        self.max_update_rms = max_update_rms
        self.contributions: dict[str, Contribution] = {}
        self._declared = dict(declared_cases or {})
        self._round = -1
        self._reference: Payload = {}

    def begin(self, round_number: int, reference: Payload) -> None:
        """Open a round.

        Args:
            round_number: the only round whose updates are accepted.
            reference: what was sent to the sites; kept when no update is accepted.
        """
        self.manifest.check(reference)
        self._round, self._reference, self.contributions = round_number, reference, {}

    def accept(self, site: str, payload: Any, report: Any) -> None:
        """Check one update and keep it.

        Raises:
            Refusal: unknown or repeated site, wrong round, undeclared or malformed tensors or report, more
                cases than declared, or a change that is too large.
        """
        try:
            self.manifest.check(payload)
            check_report(report)
        except PrivacyError as error:
            raise Refusal(str(error)) from error
        if site not in self.sites:
            raise Refusal(f"{site!r} is not a member of this federation")
        if site in self.contributions:
            raise Refusal(f"{site} has already answered in round {self._round}")
        if report.get("round") != self._round:
            raise Refusal(f"the update is for round {report.get('round')}, the server is in round {self._round}")
        cases = report.get("cases", 0)
        if cases < 1:
            raise Refusal(f"the update claims {cases} training cases; at least one is needed")
        if cases > self._declared.get(site, cases):
            raise Refusal(f"the update claims {cases} training cases, {site} declared {self._declared[site]}")
        change = self._change_rms(payload)
        if not change <= self.max_update_rms:
            raise Refusal(f"the update changes parameters by {change:.3g} (rms), above {self.max_update_rms:.3g}")
        self._declared.setdefault(site, cases)
        self.contributions[site] = Contribution(payload, report)

    def _change_rms(self, payload: Payload) -> float:
        squares = elements = 0.0
        for key, before in self._reference.items():
            squares += float(np.square(payload[key].astype(np.float64) - before).sum())
            elements += before.size
        return float(np.sqrt(squares / elements)) if elements else 0.0

    def aggregate(self) -> dict[str, np.ndarray]:
        """Return the average of the accepted updates, or the reference where none was accepted."""
        if not self.contributions:
            return {key: value.copy() for key, value in self._reference.items()}
        order = sorted(self.contributions)
        total = sum(self.contributions[site].report["cases"] for site in order)
        average = {}
        for key, entry in self.manifest.entries.items():
            accumulated = np.zeros(entry.shape, dtype=np.float64)
            for site in order:
                contribution = self.contributions[site]
                weight = contribution.report["cases"] / total
                accumulated += weight * contribution.payload[key].astype(np.float64)
            average[key] = accumulated.astype(entry.dtype)
        self.manifest.check(average)
        return average

    def score(self, metric: str = "balanced_accuracy") -> float | None:
        """Case-weighted mean over accepted sites of a validation metric of the model they received."""
        values = []
        for _, contribution in sorted(self.contributions.items()):
            metrics = contribution.report.get("validation", {}).get("private_on", {})
            if metrics.get(metric) is not None:
                values.append((contribution.report["cases"], metrics[metric]))
        return sum(n * v for n, v in values) / sum(n for n, _ in values) if values else None
