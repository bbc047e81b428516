"""The difference between two methods with its interval, from patients and runs that both have.

Patients are drawn again within cells (a site's patients of a class), each with both methods' scores of all runs, so
that a patient is one observation however many runs tested it. For means of scores, the variance over all such draws has
a closed form, which takes the place of drawing. The plain percentile bootstrap finds 7 to 40 % of equal methods
different where 5 % are meant, and up to 60 % where runs have luck (`tests/comparison/test_nulls.py`). What is mended:

- n - 1 of a cell's n patients are drawn, which gives n / (n - 1) times the variance (Rao and Wu, JASA 83:231-241,
1988);
- a cell of one or two patients knows nothing of its variance: small cells have that of their class over all sites, or
  that of all cells (pooling strata, as surveys do);
- few patients need quantiles of Student's t (Hesterberg, American Statistician 69:371-386, 2015), with the degrees of
  freedom of a sum of variances (Satterthwaite, Biometrics Bulletin 2:110-114, 1946);
- trained again, either method gives another model, whose luck all patients share: more patients do not average it out.
  Runs are the second factor beside patients, as readers are in studies of many readers and many cases (Obuchowski and
  Rockette, Communications in Statistics 24:285-308, 1995; Hillis, Statistics in Medicine 26:596-619, 2007);
- patients are the same for both methods, luck is not: nothing makes the third run of one method resemble the third of
  the other. Each method's runs therefore tell its own luck (Welch, Biometrika 34:28-35, 1947), which gives twice the
  degrees of freedom of pairs of runs. Methods so alike that one seed makes the same luck for both are compared in pairs
  of runs: those whose sum varies over runs far more than their difference (ratio of variances beyond the quantile
  0.99 of F).

What is not mended: with one run, a small cell whose patients differ more than those that it is pooled with has
too small a variance. Where all cells below ten patients are like that, equal methods were found different in 4
to 19 % of pretended comparisons with one run, and in at most 6 % with two to five. The choices above were
made on such comparisons, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval."""
POWER = 0.8
"""Share of repetitions in which a detectable difference is found."""
TIED = 0.99
"""Quantile of F beyond which runs of two methods share their luck (ours)."""
_ROUNDING = 1e-12


FEW = 10
"""Degrees of freedom below which a cell's variance is pooled with others (ours)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Units that are drawn from each other's like: the patients of a class at a site, or hospitals.

    Attributes:
        weight: of the cell's mean in the sum over cells, such as 1 / (sites * classes of the site).
        scores: (units, runs, ...), the method's; further axes are further problems of the same design. For a unit with
            several cases, the mean over them.
        reference: the same of the method that it is compared with; None for the mean of one method, not a difference.
        sizes: (units,), number of cases of each unit, by which the cell's mean is weighted; None for equal weights.
        group: cells of the same group, such as a class, are pooled first.
    """

    weight: float
    scores: npt.NDArray[Any]
    reference: npt.NDArray[Any] | None = None
    sizes: Sequence[int] | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=float))
        if self.reference is not None:
            object.__setattr__(self, "reference", np.asarray(self.reference, dtype=float))

    @property
    def differences(self) -> Array:
        """(units, runs, ...), the method's scores minus the reference's."""
        return self.scores if self.reference is None else self.scores - self.reference


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference, as numbers or as arrays with the further axes of the cells.

    Attributes:
        value: the difference.
        error: its standard error; NaN where nothing tells it, because all units and runs agree on a difference.
        freedom: degrees of freedom of the error.
        runs: number of runs. With one, the error is that of these very models: nothing tells how others would do.
    """

    value: Any
    error: Any
    freedom: Any
    runs: int

    @property
    def p(self) -> Any:
        """Two-sided p-value of no difference; NaN where there is no error."""
        from scipy.stats import t

        ratio = np.abs(self.value) / np.where(self.error > 0, self.error, 1.0)
        return np.where(np.isnan(self.error), np.nan, 2 * t.sf(ratio, self.freedom))

    @property
    def margin(self) -> Any:
        """Half the width of the interval around `value`, which covers the true difference in 95 % of repetitions."""
        return self.error * _quantile((1 + LEVEL) / 2, self.freedom)

    @property
    def detectable(self) -> Any:
        """The smallest true difference whose interval excludes 0 in 80 % of repetitions.

        It is `error * (t(0.975) + t(0.8))` with quantiles of Student's t, after the usual formula for the size of a
        study (Bloom, Evaluation Review 19:547-556, 1995), about 2.8 standard errors.
        """
        return self.margin + self.error * _quantile(POWER, self.freedom)


def difference(cells: Sequence[Cell]) -> Difference:
    """Add up the cells' weighted means, with the error that drawing units and runs again would give.

    The variance of the sum is V(units), that of each unit's mean over runs, and for each method V(runs) - V(both): that
    of the runs' sums less what is of a unit and a run together, which the first two both hold. Where the runs of a
    method do not differ, this is by chance below 0 and counts as 0. With one run the variance is V(units).

    The degrees of freedom of V(units) are at most the effective number of units (that of equal weights with the same
    ratio of fourth to second powers), since a sum in which a few units weigh most is not normal.

    Args:
        cells: at least one, all with the same runs, and all with a reference or none.
    """
    found = _over_cells(cells, [cell.differences for cell in cells])
    luck, squares = _luck_of_methods(cells, found)
    total = found.units + luck
    squares = squares + found.squares
    value = found.by_run.mean(axis=0)
    freedom = np.divide(total**2, squares, where=squares > 0, out=np.ones_like(total))
    return Difference(
        value=value[()],
        error=np.where((total > 0) | (np.abs(value) < _ROUNDING), np.sqrt(total), np.nan)[()],
        freedom=np.maximum(freedom, 1.0)[()],
        runs=len(found.by_run),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sum:
    """The weighted sum over cells by run, V(units) with its square over the degrees of freedom, and V(both)."""

    by_run: Array
    units: Array
    squares: Array
    both: Array

    @property
    def of_runs(self) -> Array:
        """V(runs)."""
        found: Array = self.by_run.var(axis=0, ddof=1) / len(self.by_run)
        return found

    @property
    def luck(self) -> tuple[Array, Array]:
        """V(runs) - V(both), and the square of V(runs) over its degrees of freedom."""
        return np.maximum(self.of_runs - self.both, 0), self.of_runs**2 / (len(self.by_run) - 1)


def _over_cells(cells: Sequence[Cell], scores: Sequence[Array]) -> _Sum:
    parts = [_part(cell, found) for cell, found in zip(cells, scores, strict=True)]
    by_run = np.sum([part.mean for part in parts], axis=0)
    units, both, squares = (np.zeros(by_run.shape[1:]) for _ in range(3))
    for sources, spread in _pooled(parts):
        own, together, freedom = _variances(sources)
        units += (variance := spread * own)
        squares += variance**2 / freedom
        both += spread * together / len(by_run)
    effective = sum(part.spread for part in parts) ** 2 / sum(part.fourth for part in parts)
    return _Sum(by_run=by_run, units=units, squares=np.maximum(squares, units**2 / effective), both=both)


def _luck_of_methods(cells: Sequence[Cell], found: _Sum) -> tuple[Array, Array]:
    """What runs add to the variance, with its square over the degrees of freedom."""
    from scipy.stats import f

    runs = len(found.by_run)
    if runs == 1:
        return np.zeros_like(found.units), np.zeros_like(found.units)
    pairs = [(cell.scores, cell.reference) for cell in cells if cell.reference is not None]
    if not pairs:
        return found.luck
    one, other = (_over_cells(cells, list(scores)) for scores in zip(*pairs, strict=True))
    together = (one.by_run + other.by_run).var(axis=0, ddof=1) / runs
    tied = together > found.of_runs * f.ppf(TIED, runs - 1, runs - 1)
    apart = (np.add(*each) for each in zip(one.luck, other.luck, strict=True))
    luck, squares = (np.where(tied, *each) for each in zip(found.luck, apart, strict=True))
    return luck, squares


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """A cell's weighted mean by run, and of its units the sums of squares: of means over runs about the cell's mean and
    about 0, and within unit and run; `spread` and `fourth` are sums of the second and fourth powers of the units'
    weights."""

    group: str
    freedom: int
    mean: Array
    about_mean: Array
    about_zero: Array
    together: Array
    spread: float
    fourth: float


def _part(cell: Cell, found: Array) -> _Part:
    n, runs, *_ = found.shape
    share = np.full(n, 1 / n) if cell.sizes is None else np.asarray(cell.sizes) / np.sum(cell.sizes)
    weights = share.reshape(n, *[1] * (found.ndim - 1))
    mean = (weights * found).sum(axis=0)
    about = found - mean
    own = about.mean(axis=1)
    # (n - 1) times an unbiased estimate of a unit's variance, also where cells have more or fewer cases
    factor = weights * ((n - 1) / max(1 - (share**2).sum(), np.finfo(float).tiny) if n > 1 else 0.0)
    return _Part(
        group=cell.group,
        freedom=n - 1,
        mean=cell.weight * mean,
        about_mean=(factor[:, 0] * own**2).sum(axis=0),
        about_zero=(found.mean(axis=1) ** 2).sum(axis=0),
        together=(factor * (about - own[:, None]) ** 2).sum(axis=(0, 1)) / max(runs - 1, 1),
        spread=cell.weight**2 * float((share**2).sum()),
        fourth=cell.weight**4 * float((share**4).sum()),
    )


def _pooled(parts: Sequence[_Part]) -> list[tuple[list[_Part], float]]:
    """Cells whose variance stands for some cells, and the sum of squared weights of these cells' units."""
    groups = {part.group: [each for each in parts if each.group == part.group] for part in parts}
    enough = {name for name, found in groups.items() if sum(part.freedom for part in found) >= FEW}
    pools = [([part], part.spread) for part in parts if part.freedom >= FEW]
    small = [part for part in parts if part.freedom < FEW]
    for name in dict.fromkeys(part.group for part in small if part.group in enough):
        pools.append((groups[name], sum(part.spread for part in small if part.group == name)))
    if rest := [part for part in small if part.group not in enough]:
        pools.append((list(parts), sum(part.spread for part in rest)))
    return pools


def _variances(parts: Sequence[_Part]) -> tuple[Array, Array, int]:
    """A unit's variance over units and within unit and run, and the degrees of freedom of the first.

    Where every unit is alone in its cell, the squares stand for the variance: they are as large on average if the
    methods are equal, and larger if not.
    """
    if freedom := sum(part.freedom for part in parts):
        own, together = (
            np.sum([getattr(part, name) for part in parts], axis=0) / freedom for name in ("about_mean", "together")
        )
        return own, together, freedom
    squares = np.sum([part.about_zero for part in parts], axis=0) / len(parts)
    return squares, np.zeros_like(squares), len(parts)


def _quantile(share: float, freedom: Any) -> Any:
    from scipy.stats import t

    return t.ppf(share, freedom)
