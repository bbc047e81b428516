"""Several methods on the same data, with a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from monai_fedlora.api.federation import CINE_BUNDLE
from monai_fedlora.api.method_choice import named
from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.comparison import method_tables
from monai_fedlora.comparison.comparison_data import data_hash, load_sites, prepared_sites
from monai_fedlora.comparison.comparison_settings import Comparison, Run, assigned
from monai_fedlora.comparison.cross_validation import check_folds
from monai_fedlora.comparison.fewer_cases import check_curve
from monai_fedlora.comparison.method_page import write_report
from monai_fedlora.comparison.outcome import ALONE, Outcome
from monai_fedlora.comparison.outcome_files import write_files
from monai_fedlora.comparison.runner import FAILED, Progress, Task, run_missing, stored_results, stored_scores
from monai_fedlora.comparison.step_counts import check_steps_not_tuned
from monai_fedlora.comparison.tuning import tune as choose
from monai_fedlora.comparison.tuning import tuned
from monai_fedlora.environment import DATA
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.methods.choice import MethodChoice
from monai_fedlora.networks.catalogue import architecture, demo_weights
from monai_fedlora.networks.pinned import beside_backbone, find_backbone, pin_backbone
from monai_fedlora.networks.prompts import own_prompts
from monai_fedlora.networks.weights import backbone_sha256 as sha256_of
from monai_fedlora.rendering.tables import Table, plural
from monai_fedlora.resources import bundle_setting
from monai_fedlora.tasks.known import task_of

__all__ = ["Compared", "compare"]

EXTRA = ("scipy.stats", "statsmodels.stats.multitest")
"""What only the report needs."""
PHANTOM_SITES = ("site-1", "site-2", "site-3", "site-4")

Watch = Callable[[int, int], AbstractContextManager[Progress]]
"""Around the runs: is given how many there are and how many have a result already, and yields what is called with a run
and the share of it that is done."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What `monai_fedlora.compare` found.

    Attributes:
        outcome: summaries, tests and failures.
        folder: of the results.
        report: the page; None where no run has a result.
    """

    outcome: Outcome
    folder: Path
    report: Path | None

    @property
    def failures(self) -> dict[str, str]:
        """Why runs ended with an error, by their names; the same call tries them again."""
        return {failure.run.name: failure.reason for failure in self.outcome.failures}

    @property
    def failed(self) -> Path:
        """The folder that says how runs failed."""
        return self.folder / FAILED

    @property
    def notes(self) -> list[str]:
        """Which method is highest or which ones tie, what runs lack, and whether the images were made up."""
        images = f"Images: {self.outcome.images}; these numbers say nothing about real patients."
        failed = self.outcome.tuning.failures if self.outcome.tuning else ()
        lost = [f"{len(failed)} of the runs that chose settings failed; the report has fewer runs of these settings"]
        lacking = [f"Test cases lack: {'; '.join(self.outcome.lacking)}"] if self.outcome.lacking else []
        return [
            self.outcome.verdict,
            *lacking,
            *(lost if failed else []),
            *([images] if self.outcome.of_images else []),
        ]

    def table(self) -> Table:
        """What every method reaches and costs, as in the report."""
        comparison = self.outcome.comparison
        counts = plural(len(comparison.sites), "site"), plural(len(comparison.seeds), "seed")
        return replace(method_tables.methods(self.outcome), caption=f"{', '.join(counts)}{self.outcome.of_images}")

    def learning_curve(self) -> Table | None:
        """What joining gives sites with few patients, beside training alone; None where nobody asked."""
        return method_tables.learning_curve(self.outcome) if self.outcome.comparison.curve_sites else None

    def unseen(self) -> Table | None:
        """What the methods do at sites that were held out; None where none was."""
        return method_tables.unseen(self.outcome) if self.outcome.comparison.unseen else None


def compare(
    methods: Sequence[str | MethodChoice] | Mapping[str, str | MethodChoice] | Literal["all"],
    *,
    output: str | os.PathLike[str],
    data: str | None = None,
    sites: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    splits: int = 0,
    repeats: int = 1,
    rounds: int = 5,
    local_epochs: int = 1,
    equal_steps: bool = False,
    mean_by_cases: bool = False,
    bundle: str = CINE_BUNDLE,
    size: str | None = None,
    backbone: str | None = None,
    prompts: str | Path | Mapping[str, Any] | None = None,
    class_texts: Mapping[str, str] | None = None,
    unseen: Sequence[str] | Literal["all"] = (),
    cases_for_new: Sequence[int] = (5, 10, 20),
    cases: Sequence[int] = (),
    cases_at: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    method_settings: Mapping[str, Mapping[str, Any]] | None = None,
    tune: Sequence[str] | Mapping[str, Sequence[Any] | None] = (),
    workers: int = 1,
    watch: Watch = lambda runs, kept: nullcontext(lambda run, share: None),
    note: Callable[[str], None] = lambda text: None,
) -> Compared:
    """Run methods with several seeds on the same sites, splits and backbone, and write a report, tables and figures.

    A finished run is kept; the same call goes on where it was stopped, and tries again what failed.

    Args:
        methods: names, or choices of `monai_fedlora.method`; the first is the reference. "all" that the size can run.
            A mapping gives them names of its own, so that one method can be compared with different settings.
        output: folder of the results.
        data: folder of prepared sites (default: ``MONAI_FEDLORA_DATA``, then the bundle's phantoms).
        sites: names (default: all of ``data``; of phantoms four).
        seeds: how many, or which.
        splits: parts into which each site's cases are divided anew, by patient and class; each is tested once (default:
            the cases' own split). Every method runs once per part and seed.
        repeats: how often they are divided.
        rounds: of each run.
        local_epochs: in a round.
        equal_steps: whether every part of every method takes as many optimiser steps in a round: each phase of a method
            that trains in phases goes through a site's cases as often as other methods do, and a model on pooled cases
            takes each step over as many times the cases as there are sites. Otherwise phases divide a round, so that
            all methods compute as much. The report tells the steps of each in any case.
        mean_by_cases: whether sites count by their numbers of test cases in means over sites and in differences of
            methods, at these sites; otherwise all alike. The averages of a round go by training cases, unless
            ``settings`` has ``site_weights="equal"``.
        bundle: training bundle.
        size: backbone by name (default: the bundle's).
        backbone: its file (default: the demo weights).
        prompts: JSON file, or what it holds: ``templates``, ``class_texts`` or both.
        class_texts: what classes are called in sentences; these win.
        unseen: sites to hold out, one at a time, or "all"; each costs a further run per method and seed.
        cases_for_new: training patients or lesions for the private part of a site that was held out.
        cases: numbers of training patients for learning curves: each site in turn has so many, the others all of
            theirs, beside training alone on them; "local" must be among the methods. Every number costs a run per
            site, method, seed and split.
        cases_at: sites that have a learning curve (default: all).
        settings: of training, of the federation, and of every method that knows them.
        method_settings: by method, or by the name that ``methods`` gives it; these win.
        tune: settings to choose for each method by the validation cases of the first split, with the same number of
            runs, at most eight: names, or values by name. A learning rate without values is also tried at a quarter and
            at four times of what it is, and a word without values as all that it can be.
        workers: processes, one thread each.
        watch: opened around the runs, to show how far they are.
        note: told which methods are left out of "all".

    Returns:
        The outcome and the page.

    Raises:
        ConfigError: settings do not fit, results in ``output`` are of other settings, or a package is missing.
        DataError: a site's cases cannot be used.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.compare(["dual_lora", "fedawg"], output="comparison", seeds=1)
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: ...fedawg...
    """
    check_extra()
    if cases_at and not cases:
        raise ConfigError("--cases-at names sites of learning curves; say with how many patients by --cases 4,8,16")
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least one is needed")
    size = size or bundle_setting(bundle, "train", "size")
    found = find_backbone(size, backbone)
    demo = demo_weights(size)
    own = {name: dict(values) for name, values in (method_settings or {}).items()}
    given = _rows(methods, size, note)
    own |= {row: {**values, **own.get(row, {})} for row, _, values in given if values}
    names = [row for row, _, _ in given]
    registered = {row: name for row, name, _ in given if row != name}
    settings = {**beside_backbone(size, found, settings or {}), **(settings or {})}
    chosen = assigned(names, settings, own, registered)
    texts = any(_reads_text(registered.get(row, row), values) for row, values in chosen.items())
    digest = pin_backbone(size, found, texts=texts)
    data = data or os.environ.get(DATA)
    places = one_or_more(sites) if sites else prepared_sites(data) if data else list(PHANTOM_SITES)
    datalists = load_sites(places, bundle=bundle, data_root=data)
    classes = datalists[places[0]].classes
    for datalist in datalists.values() if splits else ():
        check_folds(datalist, splits)
    said = None
    if prompts is not None or class_texts:
        said = own_prompts(bundle, classes, file=prompts, class_texts=class_texts)
    if said is not None and not texts:
        raise ConfigError(
            f"none of {', '.join(names)} compares images with texts; leave --class-text and --prompts out"
        )
    comparison = Comparison(
        methods=chosen,
        bundle=bundle,
        size=size,
        backbone_sha256=digest,
        classes=classes,
        data={site: data_hash(datalist) for site, datalist in datalists.items()},
        rounds=rounds,
        local_epochs=local_epochs,
        equal_steps=equal_steps,
        mean_by_cases=mean_by_cases,
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        unseen=tuple(places) if unseen == "all" else tuple(one_or_more(unseen)),
        new_site_cases=tuple(cases_for_new),
        curve_cases=tuple(cases),
        curve_sites=(tuple(one_or_more(cases_at)) or tuple(places)) if cases else (),
        prompts=said,
        folds=splits,
        repeats=repeats,
        task=task_of(datalists[places[0]]).name,
        scale=datalists[places[0]].scale,
        registered=registered,
    )
    for repeat, fold in comparison.splits if cases else ():
        run = Run(method=names[0], seed=comparison.seeds[0], repeat=repeat, fold=fold)
        seen = {site: comparison.split(datalists[site], run) for site in comparison.curve_sites}
        check_curve(comparison.curve_cases, seen, methods=tuple(names), alone=ALONE, measures=comparison.measures)
    task = Task(comparison, datalists, found, Path(output))
    tuning = None
    if tune:
        check_steps_not_tuned(tune, equal_steps=equal_steps)
        grids = {name: tune[name] for name in tune} if isinstance(tune, Mapping) else dict.fromkeys(one_or_more(tune))
        note("choosing settings by validation cases")
        tuning = choose(task, grids, workers=workers)
        comparison = tuned(comparison, tuning)
        task = replace(task, comparison=comparison)
    with watch(len(comparison.runs()), len(stored_results(task))) as on_progress:
        failures = run_missing(task, workers=workers, on_progress=on_progress)
    results = stored_results(task)
    outcome = Outcome(
        comparison=comparison,
        datalists=datalists,
        backbone=Path(found).name,
        is_demo=bool(demo) and digest == sha256_of(str(demo)),
        results=results,
        scores=stored_scores(task, results),
        failures=failures,
        tuning=tuning,
    )
    report = None
    if outcome.results:
        write_files(outcome, task.folder)
        report = write_report(outcome, task.folder)
    return Compared(outcome=outcome, folder=task.folder, report=report)


def check_extra() -> None:
    """Look for what the report is written with, before hours of runs.

    Raises:
        ConfigError: a package of the extra ``compare`` is not installed, or cannot be imported.
    """
    for name in EXTRA:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"the report of a comparison needs {name}, which cannot be imported ({error}); install it with "
                "pip install 'monai-fedlora[compare]'"
            ) from error


def _rows(
    methods: Sequence[str | MethodChoice] | Mapping[str, str | MethodChoice] | Literal["all"],
    size: str,
    note: Callable[[str], None],
) -> list[tuple[str, str, dict[str, Any]]]:
    """What each row is called, its method and the settings of that."""
    if methods == "all":
        return [(name, name, values) for name, values in _all_methods(size, note)]
    if isinstance(methods, Mapping):
        return [(row, *named(choice)) for row, choice in methods.items()]
    return [(name, name, values) for name, values in map(named, one_or_more(methods))]


def _all_methods(size: str, note: Callable[[str], None]) -> list[tuple[str, dict[str, Any]]]:
    """All methods that a backbone of this size can run; one of another package that cannot be used is told."""
    able: list[tuple[str, dict[str, Any]]] = []
    reads_text = architecture(size).text is not None
    for name in method_names():
        try:
            method = get_method(name)
        except FedLoraError as error:
            note(f"note: left out: {error}")
            continue
        if reads_text or not method.reads_text:
            able.append((name, {}))
    return able


def _reads_text(name: str, settings: Mapping[str, Any]) -> bool:
    others = {*TRAINING_SETTINGS, *FEDERATION_SETTINGS}
    return get_method(name, {k: v for k, v in settings.items() if k not in others}).reads_text
