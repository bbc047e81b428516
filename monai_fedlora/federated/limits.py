"""Limits on one site's influence on a round: on its weight, and on the length of its change.

Both limits are computed when a round closes, from all answers that were accepted, so that they do not depend on who
answers first. Where neither limit is reached, weights and sums are
what they would be without them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.errors import WeightsError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import load_tensors

CLAIM_RATIO = 10
"""An undeclared count weighs at most as much as so many times the median one of its round (ours)."""
LEAST_LENGTHS = 3
"""Changes that it takes to say how long a usual one is."""
LENGTHS = "update_lengths"
"""Entry of the metadata of stored shared tensors, see :func:`stored_lengths`."""

Lengths = tuple[tuple[float, ...], ...]
"""Lengths of the changes of past rounds, the oldest round first, after clipping and without those of length zero."""


def counted_cases(claimed: Mapping[str, int], *, declared: Collection[str], max_share: float) -> dict[str, int]:
    """Cases with which the sites of a round are weighed.

    A count that the plan declares weighs as it is. Of the others, none weighs more than :data:`CLAIM_RATIO` times the
    median of the round's counts, and none has more than ``max_share`` of the sum. The median is the lower of two, so
    that half of the sites cannot raise it. A site that answers alone has the whole weight.

    Args:
        claimed: by site, at least 1.
        declared: sites whose count the plan knows.
        max_share: from 0.5, so that one site at most is above it, to 1.
    """
    if not claimed:
        return {}
    most = CLAIM_RATIO * int(lower_median(list(claimed.values())))
    counted = {site: n if site in declared else min(n, most) for site, n in claimed.items()}
    total = sum(counted.values())
    for site, n in counted.items():
        others = total - n
        if site not in declared and others and n > max_share * total:
            return {**counted, site: math.floor(others * max_share / (1 - max_share) + 1e-9)}
    return counted


def lower_median(values: Sequence[float]) -> float:
    """The middle value, or the smaller of the two."""
    return sorted(values)[(len(values) - 1) // 2]


@dataclass(frozen=True, kw_only=True)
class UpdateBound:
    """How long a change may be before it is clipped.

    Attributes:
        usual: median length; None where there were too few changes to say.
        longest: the bound; infinite where there is none.
        rounds: past rounds whose lengths were needed to say so.
    """

    usual: float | None = None
    longest: float = math.inf
    rounds: int = 0

    @classmethod
    def of(cls, lengths: Collection[float], earlier: Lengths, *, factor: float) -> UpdateBound:
        """The bound of a round: ``factor`` times the median of at least three lengths.

        They are those of the round and, while these are fewer than three, of the last rounds. Of two middle ones the
        smaller counts. A change of length zero says nothing about what is usual and is left out.
        """
        known, rounds = [length for length in lengths if length > 0], 0
        for past in reversed(earlier):
            if len(known) >= LEAST_LENGTHS:
                break
            known += past
            rounds += 1
        if len(known) < LEAST_LENGTHS:
            return cls()
        usual = lower_median(known)
        return cls(usual=usual, longest=factor * usual, rounds=rounds)

    def kept(self, length: float) -> float:
        """The share of a change of this length that counts."""
        return 1.0 if length <= self.longest else self.longest / length


def remembered(earlier: Lengths, lengths: Collection[float]) -> Lengths:
    """The lengths that later rounds may need, with those of one more round."""
    found: list[tuple[float, ...]] = []
    for past in reversed((*earlier, tuple(length for length in lengths if length > 0))):
        if sum(map(len, found)) >= LEAST_LENGTHS:
            break
        if past:
            found.insert(0, past)
    return tuple(found)


def stored_lengths(path: Path, plan: Plan, *, first: int) -> Lengths:
    """The lengths that stored shared tensors carry for the plan which goes on from them; none for another plan.

    Args:
        path: of the tensors.
        plan: that goes on.
        first: the round with which it does.

    Raises:
        WeightsError: the file is damaged.
    """
    metadata = load_tensors(path)[1]
    if not goes_on(metadata, plan, first) or LENGTHS not in metadata:
        return ()
    try:
        found = tuple(tuple(map(float, past)) for past in json.loads(metadata[LENGTHS]))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} has damaged {LENGTHS} in its metadata; take the file of another round") from error
    if not all(0 < length < math.inf for past in found for length in past):
        raise WeightsError(f"{path} has {LENGTHS} in its metadata that are no lengths; take the file of another round")
    return found


def goes_on(metadata: Mapping[str, str], plan: Plan, first: int) -> bool:
    """Whether a plan goes on with the round ``first`` from the file of shared tensors that has these metadata."""
    return metadata.get("fingerprint") == plan.fingerprint and metadata.get("round") == str(first - 1)


def limits_said(results: Mapping[str, Any]) -> list[str]:
    """A line for each answer of a run that counted for less than it asked for, from ``results.json``."""
    said = []
    for entry in results.get("rounds", []):
        limits = entry.get("limits", {})
        for site, cases in limits.get("weights", {}).items():
            said.append(
                f"weighed down in round {entry['round']}: {site} claimed {cases['claimed']:,} cases, which the plan "
                f"does not declare, and counted with {cases['counted']:,}; declare them with --cases"
            )
        for site, change in limits.get("clipped", {}).items():
            said.append(
                f"clipped in round {entry['round']}: {site} changed the shared tensors by {change['length']:.3g}, "
                f"{change['length'] / limits['usual']:,.1f} times the median of {limits['usual']:.3g}; "
                f"{change['kept']:.3g} of it counted"
            )
    return said
