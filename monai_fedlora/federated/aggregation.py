"""Combining shared tensors, with every refusal a server can make without seeing private data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods import Method
from monai_fedlora.methods.rules import Payload
from monai_fedlora.report import check_report
from monai_fedlora.scope import Manifest


class Refusal(PrivacyError):
    """An update that is left out of its round; the message says why and holds no values."""


@dataclass(frozen=True)
class Contribution:
    """One accepted update."""

    payload: Payload
    """Tensors, decoded."""
    report: Mapping[str, Any]


class SharedAverage:
    """Collects a round's updates, refuses what must not count, and combines the rest by the method's rule.

    Updates are combined in float64 in the order of the sites' names, so that the result does not depend on who
    answers first.

    Args:
        method: says how updates are combined.
        manifest: the tensors that may arrive.
        sites: members of the federation; an update from anybody else is refused.
        declared_cases: announced case counts; a site without one is held to its first accepted count.
        max_update_rms: largest accepted root-mean-square change per parameter.
    """

    def __init__(
        self,
        *,
        method: Method,
        manifest: Manifest,
        sites: tuple[str, ...],
        declared_cases: Mapping[str, int] | None = None,
        max_update_rms: float = 1.0,
    ) -> None:
        self.method = method
        self.manifest = manifest
        self.sites = sites
        self.max_update_rms = max_update_rms
        self.contributions: dict[str, Contribution] = {}
        self._declared = dict(declared_cases or {})
        self._round = -1
        self._reference: Payload = {}

    @classmethod
    def of(cls, plan: Plan, manifest: Manifest) -> SharedAverage:
        """The collector of a plan."""
        return cls(
            method=plan.build_method(),
            manifest=manifest,
            sites=plan.sites,
            declared_cases=plan.declared_cases,
            max_update_rms=plan.max_update_rms,
        )

    def begin(self, round_number: int, reference: Payload) -> None:
        """Open a round.

        Args:
            round_number: the only round whose updates are accepted.
            reference: what was sent to the sites; kept when no update is accepted.
        """
        self.manifest.down.check(reference)
        self._round, self._reference, self.contributions = round_number, reference, {}

    def accept(self, site: str, payload: Any, report: Any) -> None:
        """Check one update as it travelled, decode and keep it.

        Raises:
            Refusal: unknown or repeated site, wrong round, undeclared or malformed tensors or report, more
                cases than declared, or a change that is too large.
        """
        try:
            self.manifest.up.check(payload)
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
        try:
            tensors = self.manifest.up.decoded(payload, self._reference)
        except PrivacyError as error:
            raise Refusal(str(error)) from error
        change = self._change_rms(tensors)
        if not change <= self.max_update_rms:
            raise Refusal(f"the update changes parameters by {change:.3g} (rms), above {self.max_update_rms:.3g}")
        self._declared.setdefault(site, cases)
        self.contributions[site] = Contribution(tensors, report)

    def _change_rms(self, tensors: Payload) -> float:
        squares = elements = 0.0
        for key, after in tensors.items():
            squares += float(np.square(after.astype(np.float64) - self._reference.get(key, 0.0)).sum())
            elements += after.size
        return float(np.sqrt(squares / elements)) if elements else 0.0

    def aggregate(self) -> dict[str, np.ndarray]:
        """Return the accepted updates combined, or the reference where none was accepted."""
        if not self.contributions:
            return {key: value.copy() for key, value in self._reference.items()}
        accepted = [contribution for _, contribution in sorted(self.contributions.items())]
        total = sum(contribution.report["cases"] for contribution in accepted)
        updates = [(contribution.report["cases"] / total, contribution.payload) for contribution in accepted]
        combined = self.method.aggregate(updates, self._reference, self.manifest)
        down = self.manifest.down
        result = {key: np.array(value, dtype=down.entries[key].dtype) for key, value in combined.items()}
        down.check(result)
        return result

    def agreement(self) -> dict[str, Any] | None:
        """Say how the accepted changes lie to each other, in numbers alone.

        Returns:
            ``sites`` (n names), ``norms`` (n Euclidean lengths of their changes to what was sent) and ``cosines``
            (n rows of n; None beside a change of length zero), over all tensors as they were decoded. None where
            nothing travels or nobody was accepted.
        """
        sites = sorted(self.contributions)
        if not sites or not self.manifest.up.entries:
            return None
        products = np.zeros((len(sites), len(sites)))
        for key in sorted(self.manifest.up.entries):
            before = np.asarray(self._reference.get(key, 0.0), dtype=np.float64)
            changes = np.stack([(self.contributions[site].payload[key] - before).ravel() for site in sites])
            products += changes @ changes.T
        norms = np.sqrt(products.diagonal())
        lengths = np.outer(norms, norms)
        cosines = [
            [
                round(min(max(product / length, -1.0), 1.0), 6) if length else None
                for product, length in zip(*row, strict=True)
            ]
            for row in zip(products.tolist(), lengths.tolist(), strict=True)
        ]
        return {"sites": sites, "norms": [float(f"{norm:.6g}") for norm in norms.tolist()], "cosines": cosines}

    def score(self, metric: str = "balanced_accuracy") -> float | None:
        """Case-weighted mean over accepted sites of a validation metric of the model they received."""
        values = []
        for _, contribution in sorted(self.contributions.items()):
            metrics = contribution.report.get("validation", {}).get("private_on", {})
            if metrics.get(metric) is not None:
                values.append((contribution.report["cases"], metrics[metric]))
        return sum(n * v for n, v in values) / sum(n for n, _ in values) if values else None
