"""Combining shared tensors, with every refusal a server can make without seeing private data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.limits import Lengths, UpdateBound, counted_cases, remembered
from monai_fedlora.federated.plan import EQUAL, Plan
from monai_fedlora.federated.server_optimizer import Moments, ServerOptimizer
from monai_fedlora.federated.server_state import NEVER, Accepted
from monai_fedlora.federated.update import Opened, Update
from monai_fedlora.methods import Method
from monai_fedlora.methods.rules import Payload, gram_of_changes
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import PERSONAL


class Refusal(PrivacyError):
    """An update that is left out of its round; the message says why and holds no values."""


class SharedAverage:
    """Collects a round's updates, refuses what must not count, and combines the rest by the method's rule.

    Updates are combined in float64 in the order of the sites' names, and the limits on one site's part are computed
    when a round closes, so that the result does not depend on who answers first.

    Args:
        method: says how updates are combined.
        manifest: the tensors that may arrive.
        sites: members of the federation; an update from anybody else is refused.
        declared_cases: announced case counts; a site without one is held to its first accepted count.
        max_share, update_bound, max_update_rms: limits, see :class:`Plan`.
        equal_weights: whether each update counts as much as any other, in place of by its site's cases.
        earlier: lengths of the changes of the rounds before the first one.
        server: steps towards the average of a round; None takes the average.
        moments: of ``server`` after the rounds before the first one.
        accepted: last accepted round of every site before the first one.

    Attributes:
        updates: accepted in this round, by site.
        changes: their lengths, see :meth:`monai_fedlora.methods.Method.change_length`.
        moments: of ``server`` after the last :meth:`aggregate`.
    """

    def __init__(
        self,
        *,
        method: Method,
        manifest: Manifest,
        sites: tuple[str, ...],
        declared_cases: Mapping[str, int] | None = None,
        max_share: float = 0.75,
        update_bound: float = 5.0,
        max_update_rms: float = 1.0,
        equal_weights: bool = False,
        earlier: Lengths = (),
        server: ServerOptimizer | None = None,
        moments: Moments = MappingProxyType({}),
        accepted: Accepted = MappingProxyType({}),
    ) -> None:
        self.method = method
        self.manifest = manifest
        self.sites = sites
        self.max_share = max_share
        self.update_bound = update_bound
        self.max_update_rms = max_update_rms
        self.equal_weights = equal_weights
        self.updates: dict[str, Opened] = {}
        self.changes: dict[str, float] = {}
        self._announced = frozenset(declared_cases or ())
        self._most_cases = dict(declared_cases or {})
        self._earlier = earlier
        self._server = server
        self.moments = self._moments_before = moments
        self._accepted_before = accepted
        self._round = -1
        self._reference: Payload = {}

    @classmethod
    def of(
        cls,
        plan: Plan,
        manifest: Manifest,
        *,
        earlier: Lengths = (),
        moments: Moments = MappingProxyType({}),
        accepted: Accepted = MappingProxyType({}),
    ) -> SharedAverage:
        """The collector of a plan, which goes on from rounds that left lengths of changes, moments, and answers."""
        return cls(
            method=plan.build_method(),
            manifest=manifest,
            sites=plan.sites,
            declared_cases=plan.declared_cases,
            max_share=plan.max_share,
            update_bound=plan.update_bound,
            max_update_rms=plan.max_update_rms,
            equal_weights=plan.site_weights == EQUAL,
            earlier=earlier,
            server=plan.server_optimizer,
            moments=moments,
            accepted=accepted,
        )

    def begin(self, round_number: int, reference: Payload) -> None:
        """Open a round, or the same one again: what it has accepted so far is forgotten then.

        Args:
            round_number: the only round whose updates are accepted.
            reference: what was sent to the sites; kept when no update is accepted.
        """
        self.manifest.down.check(reference)
        if round_number != self._round:
            self._earlier = self.lengths
            self._moments_before, self._accepted_before = self.moments, self.accepted
        self._round, self._reference, self.updates, self.changes = round_number, reference, {}, {}

    @property
    def accepted(self) -> dict[str, int | None]:
        """The last accepted round of every site, by name: what a later round, or a resumed run, needs of them."""
        return dict(sorted((dict(self._accepted_before) | dict.fromkeys(self.updates, self._round)).items()))

    def last_accepted(self, site: str) -> int | None:
        """The last round before this one in which a site's update was accepted, -1 for none; None if unknown."""
        return self._accepted_before.get(site, NEVER)

    @property
    def lengths(self) -> Lengths:
        """Lengths of the changes so far, this round's last: what a later round, or a resumed run, needs of them."""
        longest = self._bound().longest
        return remembered(self._earlier, [min(length, longest) for _, length in sorted(self.changes.items())])

    def accept(self, site: str, update: Update) -> None:
        """Open one update as it travelled, and keep it.

        Raises:
            Refusal: unknown or repeated site, wrong round, more cases than declared, undeclared or malformed tensors,
                or a change that is too large.
        """
        number, cases = update.report.round, update.report.cases or 0
        if site not in self.sites:
            raise Refusal(f"{site!r} is not a member of this federation")
        if site in self.updates:
            raise Refusal(f"{site} has already answered in round {self._round}")
        if number != self._round:
            raise Refusal(f"the update is for round {number}, the server is in round {self._round}")
        if cases < 1:
            raise Refusal(f"the update claims {cases} training cases; at least one is needed")
        if cases > self._most_cases.get(site, cases):
            raise Refusal(f"the update claims {cases} training cases, {site} declared {self._most_cases[site]}")
        try:
            opened = update.opened(self.manifest.up, self._reference)
        except PrivacyError as error:
            raise Refusal(str(error)) from error
        change = self._change_rms(opened.tensors)
        if not change <= self.max_update_rms:
            raise Refusal(f"the update changes parameters by {change:.3g} (rms), above {self.max_update_rms:.3g}")
        self._most_cases.setdefault(site, cases)
        self.changes[site] = self.method.change_length(opened.tensors, self._reference, self.manifest)
        self.updates[site] = opened

    def _change_rms(self, tensors: Payload) -> float:
        squares = elements = 0.0
        for key, after in tensors.items():
            squares += float(np.square(after.astype(np.float64) - self._reference.get(key, 0.0)).sum())
            elements += after.size
        return float(np.sqrt(squares / elements)) if elements else 0.0

    def _bound(self) -> UpdateBound:
        """Of the round as it stands; a federation of one site has nobody to protect from it."""
        if len(self.sites) == 1:
            return UpdateBound()
        return UpdateBound.of(self.changes.values(), self._earlier, factor=self.update_bound)

    def _counted(self) -> dict[str, int]:
        claimed = {site: update.report.cases or 0 for site, update in sorted(self.updates.items())}
        if self.equal_weights:
            return dict.fromkeys(claimed, 1)
        return counted_cases(claimed, declared=self._announced, max_share=self.max_share)

    def limits(self) -> dict[str, Any] | None:
        """What the limits on one site's part did to the round.

        Returns:
            ``usual`` and ``longest``, the median length of a change and the bound, None where there were too few
            changes to say; ``rounds``, how many past rounds these are from too; ``clipped``, by site ``length`` and the
            share ``kept`` of a change above the bound; ``weights``, by site the cases ``claimed`` and ``counted`` where
            these differ. None where nobody was accepted.
        """
        if not self.updates:
            return None
        bound, counted = self._bound(), self._counted()
        return {
            "usual": _short(bound.usual),
            "longest": None if bound.usual is None else _short(bound.longest),
            "rounds": bound.rounds,
            "clipped": {
                site: {"length": _short(length), "kept": _short(bound.kept(length))}
                for site, length in sorted(self.changes.items())
                if length > bound.longest
            },
            "weights": {
                site: {"claimed": update.report.cases, "counted": counted[site]}
                for site, update in sorted(self.updates.items())
                if counted[site] != update.report.cases and not self.equal_weights
            },
        }

    def aggregate(self) -> dict[str, np.ndarray]:
        """Return the accepted updates combined, or the reference where none was accepted.

        One that has trained no shared parameter has no weight, see :attr:`Report.idle`: it would hold the others back.

        Raises:
            ConfigError: the server's optimiser steps further than the type that travels can say.
        """
        if not self.updates:
            return {key: value.copy() for key, value in self._reference.items()}
        counted, bound = self._counted(), self._bound()
        moving = {site: update for site, update in sorted(self.updates.items()) if not update.report.idle}
        if not moving:
            return {key: value.copy() for key, value in self._reference.items()}
        total = sum(counted[site] for site in moving)
        updates, clipped = [], 0.0
        for site, update in moving.items():
            weight, kept = counted[site] / total, bound.kept(self.changes[site])
            updates.append((weight * kept, update.tensors))
            clipped += weight * (1 - kept)
        if clipped:
            updates.append((clipped, self._unchanged()))
        combined = self.method.aggregate(updates, self._reference, self.manifest)
        if self._server is not None:
            combined, self.moments = self._server.step(combined, self._reference, self._moments_before)
        down = self.manifest.down
        with np.errstate(over="ignore" if self._server else "warn"):
            result = {key: np.array(value, dtype=down.entries[key].dtype) for key, value in combined.items()}
        if self._server is not None and not all(np.isfinite(value).all() for value in result.values()):
            raise ConfigError(
                f"{self._server.name} on the server left what {down.entries[next(iter(result))].dtype} can hold in "
                f"round {self._round}; lower server_learning_rate, which is {self._server.learning_rate:g}"
            )
        down.check(result)
        return result

    def _unchanged(self) -> Payload:
        """The update of a site that changes nothing."""
        return {
            key: self._reference.get(key, np.zeros(entry.shape, entry.dtype))
            for key, entry in self.manifest.up.entries.items()
        }

    def agreement(self) -> dict[str, Any] | None:
        """Say how the accepted changes lie to each other, in numbers alone.

        Returns:
            ``sites`` (n names), ``norms`` (n Euclidean lengths of their changes to what was sent) and ``cosines``
            (n rows of n; None beside a change of length zero), over all tensors as they were decoded. None where
            nothing travels or nobody was accepted.
        """
        sites = sorted(self.updates)
        if not sites or not self.manifest.up.entries:
            return None
        tensors = [self.updates[site].tensors for site in sites]
        products = gram_of_changes(tensors, self._reference, sorted(self.manifest.up.entries))
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

    def score(self, metric: str) -> float | None:
        """Mean over accepted sites, weighted as the average is, of a validation metric of the model they received."""
        values, counted = [], self._counted()
        for site, update in sorted(self.updates.items()):
            metrics = (update.report.validation or {}).get(PERSONAL, {})
            if metrics.get(metric) is not None:
                values.append((counted[site], metrics[metric]))
        return sum(n * v for n, v in values) / sum(n for n, _ in values) if values else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
