"""Choose settings of every method on validation cases before methods are compared, with as many runs for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args, get_origin, get_type_hints

from monai_fedlora.comparison.comparison_settings import Comparison
from monai_fedlora.comparison.runner import FAILED, Failure, Progress, Task, run_missing, stored_results
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS, of_federation
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS, check_names, check_training
from monai_fedlora.methods.base import get_method
from monai_fedlora.resources import bundle_setting

TUNING = "tuning"
"""Folder of the runs that settings are chosen by."""
MOST_SETTINGS = 8
"""Largest number of runs for each method (ours); more choose by the chance of the validation cases."""
_AROUND = (0.25, 1.0, 4.0)
"""What a learning rate is multiplied with where no values are given (ours)."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A setting of a method.

    Attributes:
        method: registered name.
        settings: that were tried, by name.
        values: key metric of each seed: mean over sites on their validation cases, of the personal models. A run that
            failed has none.
    """

    method: str
    settings: Mapping[str, Any]
    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None where every run failed."""
        return fmean(self.values) if self.values else None


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was tried and chosen.

    Attributes:
        tried: every setting of every method.
        chosen: by method; a method without a choice has no entry.
        budget: number of runs for each of these methods.
        failures: runs that ended with an error.
    """

    tried: tuple[Tried, ...]
    chosen: Mapping[str, Mapping[str, Any]]
    budget: int
    failures: tuple[Failure, ...] = ()


def check_grids(grids: Mapping[str, Sequence[Any] | None], methods: Sequence[str]) -> None:
    """Refuse grids that choose nothing.

    Args:
        grids: by the name of a setting its values; None for the usual ones: a quarter and four times the learning rate,
            or all words that a method's setting can be.
        methods: registered names.

    Raises:
        ConfigError: a grid has a single value or the same value twice, or a setting is unknown or has no usual values.
    """
    check_names(grids, methods)
    for name, values in grids.items():
        if values is None:
            if name != "learning_rate" and not any(_words(method, name) for method in methods):
                raise ConfigError(f"--tune {name}: give its values, such as --tune {name}=1:2")
            continue
        if len(values) < 2:
            raise ConfigError(
                f"--tune {name}={':'.join(map(str, values))}: a grid with one value chooses nothing; give two or more, "
                f"or set it with --set {name}=..."
            )
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ConfigError(f"--tune {name}={':'.join(map(str, values))}: a value occurs twice")
        if name in TRAINING_SETTINGS:
            for value in values:
                check_training({name: value})


def settings_of(method: str, grids: Mapping[str, Sequence[Any] | None], comparison: Comparison) -> list[dict[str, Any]]:
    """Every combination of values that a method can have, the first value of each grid first.

    A setting of which it can have less than two values is left as it is.
    """
    values = {name: _values(method, name, grids[name], comparison) for name in grids}
    own = {name: found for name, found in values.items() if len(found) > 1}
    combined = [dict(zip(own, each, strict=True)) for each in product(*own.values())]
    return [each for each in combined if not each or _refusal(method, each, comparison) is None]


def tune(
    task: Task,
    grids: Mapping[str, Sequence[Any] | None],
    *,
    workers: int = 1,
    on_progress: Progress = lambda run, share: None,
) -> Tuning:
    """Try settings of every method and choose those that are best on the validation cases.

    Runs train on the first split alone, and their results hold nothing of its test cases. Every method that has a
    choice gets the same number of runs: as many as the longest list of settings has. A method with fewer settings
    repeats them with further seeds, and the mean over these counts. The first of equal settings is chosen. Runs that
    have finished are kept, as those of :func:`monai_fedlora.comparison.runner.run_missing` are.

    Args:
        task: the comparison; its folder gets one :data:`TUNING` with the runs.
        grids: see :func:`check_grids`.
        workers, on_progress: see :func:`monai_fedlora.comparison.runner.run_missing`.

    Raises:
        ConfigError: see :func:`check_grids`; a method has more than :data:`MOST_SETTINGS` settings; no method has a
            choice; no site has validation cases; or equal steps are asked for, which some of the settings cannot have.
        FedLoraError: every run of a method failed.
    """
    comparison = task.comparison
    check_grids(grids, [comparison.method_of(method) for method in comparison.methods])
    settings = {method: settings_of(method, grids, comparison) for method in comparison.methods}
    choices = {method: found for method, found in settings.items() if len(found) > 1}
    if not choices:
        reasons = [
            reason
            for method in comparison.methods
            for name, values in grids.items()
            for value in values or ()
            if (reason := _refusal(method, {name: value}, comparison)) is not None
        ]
        why = f": {reasons[0]}" if reasons else ""
        raise ConfigError(f"--tune {','.join(grids)}: no method has a choice between its values{why}")
    budget = max(map(len, choices.values()))
    if budget > MOST_SETTINGS:
        raise ConfigError(
            f"--tune {','.join(grids)}: that makes {budget} settings, and {MOST_SETTINGS} are the most that validation "
            "cases of a few sites can choose from; give fewer values"
        )
    first = next(iter(comparison.runs()))
    if not any(comparison.split(datalist, first).validation for datalist in task.datalists.values()):
        raise ConfigError("--tune chooses by validation cases, and no site has any; prepare the data with some")
    values: dict[tuple[str, int], list[float]] = {(m, n): [] for m, found in choices.items() for n in range(len(found))}
    trials: list[tuple[int, Task]] = []  # all before the first run: settings that do not fit together are refused
    for number in range(budget):
        for seed in sorted({number // len(found) for found in choices.values()}):
            tried_now = {m: found[number % len(found)] for m, found in choices.items() if number // len(found) == seed}
            trials.append((number, _trial(task, tried_now, number, seed)))
    failures: list[Failure] = []
    for number, trial in trials:
        failures += run_missing(trial, workers=workers, on_progress=on_progress)
        for run, result in stored_results(trial).items():
            if (value := _score(result)) is not None:
                values[run.method, number % len(choices[run.method])].append(value)
    tried = tuple(
        Tried(method=method, settings=found[number], values=tuple(values[method, number]))
        for method, found in choices.items()
        for number in range(len(found))
    )
    chosen = {method: _best([each for each in tried if each.method == method], task) for method in choices}
    return Tuning(tried=tried, chosen=chosen, budget=budget, failures=tuple(failures))


def tuned(comparison: Comparison, tuning: Tuning) -> Comparison:
    """A comparison with the chosen settings."""
    methods = {name: {**values, **tuning.chosen.get(name, {})} for name, values in comparison.methods.items()}
    return dataclasses.replace(comparison, methods=methods)


def _trial(task: Task, chosen: Mapping[str, Mapping[str, Any]], number: int, seed: int) -> Task:
    comparison = dataclasses.replace(
        task.comparison,
        methods={method: {**task.comparison.methods[method], **settings} for method, settings in chosen.items()},
        seeds=(task.comparison.seeds[0] + seed,),
        unseen=(),
        curve_sites=(),
        tuning=True,
    )
    return dataclasses.replace(task, comparison=comparison, folder=task.folder / TUNING / f"{number + 1}-seed{seed}")


def _score(result: Mapping[str, Any]) -> float | None:
    found = [value for value in result["validation"].values() if value is not None]
    return fmean(found) if found else None


def _best(tried: Sequence[Tried], task: Task) -> Mapping[str, Any]:
    found = [(mean, each) for each in tried if (mean := each.mean) is not None]
    if not found:
        raise FedLoraError(
            f"every run that should choose settings of {tried[0].method} failed; {FAILED} in the folders of "
            f"{Path(task.folder) / TUNING} says why. Correct it, or leave the method out"
        )
    better = task.comparison.measures.better
    return max(found, key=lambda pair: better(pair[0], 0.0))[1].settings


def _values(method: str, name: str, values: Sequence[Any] | None, comparison: Comparison) -> list[Any]:
    """What a method's setting can be of a grid; nothing where the method does not have it."""
    if name in TRAINING_SETTINGS:
        if values is not None:
            return list(values)
        given = comparison.methods[method].get(name)
        base = float(bundle_setting(comparison.bundle, "train", name) if given is None else given)
        return [_rounded(base * factor) for factor in _AROUND]
    known = {field.name for field in dataclasses.fields(get_method(comparison.method_of(method)))}
    if name not in known and name not in FEDERATION_SETTINGS:
        return []
    words = _words(comparison.method_of(method), name)
    candidates = list(words if values is None else values)
    return [v for v in candidates if (not words or v in words) and _refusal(method, {name: v}, comparison) is None]


def _words(method: str, name: str) -> tuple[Any, ...]:
    """The words that a method's setting can be; none where it can be anything, or the method does not have it."""
    hint = get_type_hints(type(get_method(method))).get(name)
    return get_args(hint) if get_origin(hint) is Literal else ()


def _refusal(method: str, settings: Mapping[str, Any], comparison: Comparison) -> str | None:
    """Why a method cannot have settings; None where it can."""
    try:
        registered = comparison.method_of(method)
        check_names(settings, [registered])
        others = {*TRAINING_SETTINGS, *FEDERATION_SETTINGS}
        own = {name: value for name, value in settings.items() if name not in others}
        get_method(registered, {**comparison.method_args(method), **own})
        of_federation({**comparison.methods[method], **settings})
    except ConfigError as error:
        return str(error)
    return None


def _rounded(value: float) -> float:
    """Four significant digits, so that a rate can be copied from a table."""
    return 0.0 if not value else round(value, 3 - math.floor(math.log10(abs(value))))
