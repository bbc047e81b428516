"""The settings of a comparison, and the runs that it consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.catalogues import code_of_package, installed_version
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.cross_validation import fold_of
from monai_fedlora.comparison.facts import Facts, method_facts
from monai_fedlora.comparison.fewer_cases import fewer_cases
from monai_fedlora.comparison.step_counts import check_equal, equalised
from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.pool import POOLED
from monai_fedlora.environment import training_threads
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.federated.federation_settings import BUDGET, FEDERATION_SETTINGS, of_federation
from monai_fedlora.federated.initial import build_manifest
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS, check_names
from monai_fedlora.methods.base import get_method, method_names
from monai_fedlora.networks.prompts import Prompts, bundle_prompts
from monai_fedlora.source_digest import TRAINING, source_digest
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.known import TASKS
from monai_fedlora.tasks.task import Task

TRAINING_DEFAULTS: Mapping[str, Any] = {"augment": False, "cache_features": True}
"""Defaults of training in a comparison, the same as in the shipped demonstrations (ours).

``cache_features`` is switched off for methods that train the whole network."""

NEW_SITE_CASES = (5, 10, 20)
"""Numbers of training cases with which a held-out site trains its private part (ours)."""


_LIBRARIES = {"peft": "peft", "ignite": "pytorch-ignite"}
"""Names and packages of further libraries that results depend on; the hash of the code has those that read images."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One federation from start to end.

    Attributes:
        method: name of the row, see :attr:`Comparison.methods`.
        seed: seed of everything random in the run.
        held_out: site that does not take part and is evaluated as a new site; None where all sites take part.
        limited: site that takes part with fewer of its training patients, and is the only one that is evaluated; None
            where all sites have all of theirs.
        cases: how many patients it has.
        repeat, fold: of the cross-validation, see :func:`monai_fedlora.comparison.cross_validation.fold_of`; None where
            the cases keep their own split.
    """

    method: str
    seed: int
    held_out: str | None = None
    repeat: int | None = None
    fold: int | None = None
    limited: str | None = None
    cases: int | None = None

    @property
    def name(self) -> str:
        """Name of the run's files."""
        split = "" if self.fold is None else f"-split{self.repeat}.{self.fold}"
        without = f"-without-{self.held_out}" if self.held_out else ""
        limited = f"-{self.limited}-with-{self.cases}" if self.limited else ""
        return f"{self.method}-seed{self.seed}{split}{without}{limited}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Settings of a comparison.

    Args:
        methods: rows with their settings: those of the method (``rank``), of training (``learning_rate``) and of the
            federation (``server_optimizer``, ``fine_tune_epochs``). A row is called as its method, or as
            ``registered`` says. The first is the reference of the statistical tests.
        bundle: name of the training bundle.
        size: name of the backbone.
        backbone_sha256: hash of the backbone's file.
        classes: class names in label order; in other tasks those of structures or values.
        data: sites with the hash of their cases, see :func:`monai_fedlora.comparison.comparison_data.data_hash`.
        rounds: rounds of every federation.
        local_epochs: passes over a site's training cases per round.
        seeds: seeds; every method runs once with each.
        unseen: sites that are held out, one at a time, in further runs.
        new_site_cases: see :data:`NEW_SITE_CASES`; above 0 and increasing.
        curve_cases: numbers of training patients of the learning curves, above 0 and increasing; none for no curves.
        curve_sites: sites that have a learning curve, in further runs.
        prompts: texts of the classes for methods that read texts; None for those of the bundle.
        task: what is learnt.
        scale: of the values of a regression, see :mod:`monai_fedlora.data.value_scale`; empty for values as they are.
        folds: parts into which every site's cases are divided, each of which is tested once per repeat; 0 where the
            cases keep their own split.
        repeats: how often they are divided anew.
        equal_steps: whether every parameter takes as many optimiser steps in a round, whatever the method: each phase
            of a method has the epochs of a whole round, and a model on pooled cases takes steps over as many times the
            cases as there are sites, which are as many steps as the sites' mean but for rounding. Otherwise phases
            divide a round, and a pooled model takes the steps of all sites.
        mean_by_cases: whether sites count by their numbers of test cases in means over sites and in differences of
            methods; otherwise all alike. No run depends on it.
        tuning: whether settings are to be chosen by these runs, which have the first split alone, and whose results
            hold nothing of its test cases.
        registered: the methods of the rows that are called otherwise, such as one method with different settings.
    """

    methods: Mapping[str, Mapping[str, Any]]
    bundle: str
    size: str
    backbone_sha256: str
    classes: tuple[str, ...]
    data: Mapping[str, str]
    rounds: int
    local_epochs: int
    seeds: tuple[int, ...]
    unseen: tuple[str, ...] = ()
    new_site_cases: tuple[int, ...] = NEW_SITE_CASES
    curve_cases: tuple[int, ...] = ()
    curve_sites: tuple[str, ...] = ()
    prompts: Prompts | None = None
    task: str = CLASSIFICATION.name
    scale: tuple[tuple[float, float], ...] = ()
    folds: int = 0
    repeats: int = 1
    equal_steps: bool = False
    mean_by_cases: bool = False
    tuning: bool = False
    registered: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigError("there is no method to compare; name some with --methods")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}; give at least one, and each once")
        if POOLED in self.data:
            raise ConfigError(f"a site cannot be called {POOLED!r} here: that is the name of all sites' cases together")
        if unknown := [site for site in self.unseen if site not in self.data]:
            raise ConfigError(f"{unknown[0]!r} cannot be held out; the sites are {', '.join(self.data)}")
        if self.unseen and len(self.data) < 2:
            raise ConfigError("a single site cannot be held out: no other is left to train at")
        for what, cases in (("a new site", self.new_site_cases), ("a learning curve", self.curve_cases)):
            if any(type(n) is not int or n < 1 for n in cases) or list(cases) != sorted(set(cases)):
                raise ConfigError(
                    f"the numbers of cases of {what} are {list(cases)}; give growing whole numbers above 0"
                )
        if unknown := [site for site in self.curve_sites if site not in self.data]:
            raise ConfigError(f"--cases-at {unknown[0]}: there is no such site{nearest(unknown[0], list(self.data))}")
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(f"--splits {self.folds}: cross-validation needs at least two parts, such as 5")
        if self.repeats < 1:
            raise ConfigError(f"--repeats {self.repeats}: at least one is needed")
        if self.repeats > 1 and not self.folds:
            raise ConfigError(f"--repeats {self.repeats} divides the cases anew; say into how many parts with --splits")
        if self.equal_steps:
            check_equal({method: self.training(method) for method in self.methods}, self.facts, self.bundle)
        for run in self.runs():
            self.plan(run)
        for row in self.methods:
            plan = self.plan(Run(method=row, seed=self.seeds[0]))
            if plan.privacy is not None and self.equal_steps:
                raise ConfigError(
                    "--equal-steps is about phases that divide a round, and under a budget a round has none; leave it "
                    "out, and set fine_tune_epochs for the steps of private parts"
                )
            if plan.server_optimizer is not None or plan.fine_tune_epochs:
                build_manifest(plan)  # which refuses a method that cannot have them
            if plan.fine_tune_epochs and self.is_pooled(row):
                raise ConfigError(
                    f"{row} has one model of all sites' cases, which no site trains on after the last round; set "
                    "fine_tune_epochs for the other methods alone, as in --set "
                    f"fedit.fine_tune_epochs={plan.fine_tune_epochs}"
                )

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return tuple(self.data)

    def runs(self) -> list[Run]:
        """Every run, those with all cases of all sites first, then split by split and seed by seed."""
        kinds: list[dict[str, Any]] = [{}, *({"held_out": site} for site in self.unseen)]
        kinds += [{"limited": site, "cases": n} for site in self.curve_sites for n in self.curve_cases]
        return [
            Run(method=method, seed=seed, repeat=repeat, fold=fold, **kind)
            for kind in kinds
            for repeat, fold in self.splits
            for seed in self.seeds
            for method in self.methods
        ]

    @property
    def splits(self) -> list[tuple[int | None, int | None]]:
        """Repeat and fold of every split; both None for the cases' own."""
        if not self.folds:
            return [(None, None)]
        found = [(repeat, fold) for repeat in range(self.repeats) for fold in range(self.folds)]
        return list(found[:1] if self.tuning else found)

    def split(self, datalist: Datalist, run: Run) -> Datalist:
        """A site's cases as a run sees them."""
        if run.repeat is not None and run.fold is not None:
            datalist = fold_of(datalist, folds=self.folds, repeat=run.repeat, fold=run.fold)
        if run.cases is not None and datalist.site == run.limited:
            datalist = fewer_cases(datalist, run.cases, seed=run.seed)
        return datalist

    @cached_property
    def facts(self) -> dict[str, Facts]:
        """Sizes and abilities of each method with this backbone."""
        return {
            method: method_facts(
                self.method_of(method),
                self.method_args(method),
                size=self.size,
                names=len(self.classes),
                task=self.task_of,
            )
            for method in self.methods
        }

    @property
    def task_of(self) -> Task:
        """What is learnt."""
        return TASKS[self.task]

    @cached_property
    def measures(self) -> Measures:
        """What the methods are compared by."""
        return Measures.of(self.task_of, self.classes, by_cases=self.mean_by_cases)

    def method_of(self, row: str) -> str:
        """The registered name of a row's method."""
        return self.registered.get(row, row)

    def is_pooled(self, method: str) -> bool:
        """Whether a method trains on the pooled cases of all sites instead of in a federation."""
        return get_method(self.method_of(method), self.method_args(method)).most_sites == 1

    def method_args(self, method: str) -> dict[str, Any]:
        """The settings of the method itself."""
        others = {*TRAINING_SETTINGS, *FEDERATION_SETTINGS}
        return {name: value for name, value in self.methods[method].items() if name not in others}

    def federation(self, method: str) -> dict[str, Any]:
        """The settings of a method's federation; of one that sends nothing, none of a budget for what is sent."""
        given = {name: value for name, value in self.methods[method].items() if name in FEDERATION_SETTINGS}
        if self.facts[method].shared:
            return given
        return {name: value for name, value in given.items() if not name.startswith(BUDGET)}

    def training(self, method: str) -> dict[str, Any]:
        """The settings of a method's training that override the bundle's."""
        given = {name: value for name, value in self.methods[method].items() if name in TRAINING_SETTINGS}
        training = {**TRAINING_DEFAULTS, **given}
        if not self.facts[method].can_keep_features:
            training["cache_features"] = False
        return training

    def members(self, run: Run) -> tuple[str, ...]:
        """The sites whose cases a run trains on: of a method that shares nothing only one that is evaluated alone."""
        if run.limited and not self.facts[run.method].shared and not self.is_pooled(run.method):
            return (run.limited,)
        return tuple(site for site in self.data if site != run.held_out)

    def plan(self, run: Run) -> Plan:
        """The plan of a run's federation; that of a method on pooled data has the pool as its only site."""
        method = get_method(self.method_of(run.method), self.method_args(run.method))
        epochs, training = self.local_epochs, self.training(run.method)
        if self.equal_steps:
            epochs, training = equalised(
                self.bundle,
                training,
                self.facts[run.method].phases,
                local_epochs=epochs,
                pooled_sites=len(self.members(run)) if self.is_pooled(run.method) else 1,
            )
        return Plan(
            experiment=run.name,
            bundle=self.bundle,
            method=method.name,
            method_args=self.method_args(run.method),
            sites=(POOLED,) if self.is_pooled(run.method) else self.members(run),
            classes=self.classes,
            rounds=self.rounds,
            local_epochs=epochs,
            size=self.size,
            backbone_sha256=self.backbone_sha256,
            seed=run.seed,
            training=training,
            prompts=(self.prompts or bundle_prompts(self.bundle)) if method.reads_text else None,
            task=self.task,
            scale=self.scale,
            **of_federation(self.federation(run.method)),
        )

    def identity(self, run: Run) -> dict[str, Any]:
        """Everything that a run's result depends on; a stored result is only used if this is the same."""
        plan = self.plan(run)
        identity: dict[str, Any] = {**computed_by(), "plan": plan.to_json(), "data": dict(self.data)}
        if plan.plugins:
            identity["plugin_code"] = {name: code_of_package(name) for name in plan.plugins}
        if self.folds:
            identity["split"] = {"folds": self.folds, "repeat": run.repeat, "fold": run.fold}
        if self.tuning:
            identity["tuning"] = True
        if run.limited:
            identity["limited"] = {"site": run.limited, "cases": run.cases}
        if run.held_out:
            identity |= {"held_out": run.held_out, "new_site_cases": list(self.new_site_cases)}
        return identity

    def common(self) -> dict[str, Any]:
        """The settings that must be the same for all runs of a folder of results."""
        return {
            **computed_by(),
            "bundle": self.bundle,
            "size": self.size,
            "backbone_sha256": self.backbone_sha256,
            "task": self.task,
            "classes": list(self.classes),
            "data": dict(self.data),
            "rounds": self.rounds,
            "local_epochs": self.local_epochs,
            "folds": self.folds,
            "equal_steps": self.equal_steps,
            **({"scale": [list(pair) for pair in self.scale]} if self.scale else {}),
        }


def computed_by() -> dict[str, Any]:
    """The versions of libraries, the hash of the code and the number of threads that a result depends on."""
    import monai
    import torch

    own = ("cross_validation", "execute", "fewer_cases", "newsite", "step_counts")
    code = source_digest((*TRAINING, *(f"comparison/{name}.py" for name in own)))
    versions = {name: installed_version(package) for name, package in _LIBRARIES.items()}
    known = {"version": __version__, "torch": torch.__version__, "monai": monai.__version__, **versions}
    return {**known, "code": code, "threads": training_threads()}


def differences(one: Any, other: Any, *, name: str = "") -> list[str]:
    """The differences of two JSON values, as ``name: one, now other``."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        found = [differences(one.get(k), other.get(k), name=f"{name}.{k}".lstrip(".")) for k in keys]
        return [line for lines in found for line in lines]
    return [] if one == other else [f"{name}: {_brief(one)}, now {_brief(other)}"]


def _brief(value: Any) -> Any:
    """The beginning of a hash, and anything else as it is."""
    is_hash = isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
    return f"{value[:12]}..." if is_hash else value


def assigned(
    methods: Sequence[str],
    common: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    registered: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Collect the settings of each method.

    Args:
        methods: names of rows.
        common: settings of training and of the federation, and settings for all methods that have them.
        own: settings by row, which override the common ones.
        registered: see :class:`Comparison`.

    Raises:
        ConfigError: a method is named twice or unknown, a row is called as another method, or no method has a setting.
    """
    if len(set(methods)) != len(methods):
        raise ConfigError(f"the methods {', '.join(methods)} must be different ones")
    if strange := sorted(set(own) - set(methods)):
        raise ConfigError(f"{strange[0]!r} has settings of its own, but is not among the methods {', '.join(methods)}")
    of = {name: registered.get(name, name) for name in methods}
    if shadowed := [name for name in methods if name != of[name] and name in method_names()]:
        raise ConfigError(
            f"a row of {of[shadowed[0]]} cannot be called {shadowed[0]!r}, which is another method; give it a name of "
            "its own"
        )
    for_all = {*TRAINING_SETTINGS, *FEDERATION_SETTINGS}
    known = {name: for_all | {each.name for each in dataclasses.fields(get_method(of[name]))} for name in methods}
    check_names(common, list(of.values()))
    for name, values in own.items():
        check_names(values, [of[name]])
    return {name: {k: v for k, v in common.items() if k in known[name]} | dict(own.get(name, {})) for name in methods}
