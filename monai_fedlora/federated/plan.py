"""What the sites of a federation have agreed on, as one small JSON file that every end reads.

A plan holds names and numbers only. It names a bundle that each site has installed; it never carries a path,
a config or code into a hospital.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora.data.origin import Origin
from monai_fedlora.data.value_scale import check_scale
from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.installation import check_pins
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan_budget import check_budget
from monai_fedlora.federated.plan_plugins import check_installed, versions
from monai_fedlora.federated.plan_rule import check_rule, counted_by
from monai_fedlora.federated.plan_words import check_plain, check_whole, check_word, check_words
from monai_fedlora.federated.server_optimizer import ServerOptimizer, check_steps_fit
from monai_fedlora.federated.training_settings import check_training
from monai_fedlora.files import read_json
from monai_fedlora.methods import METHODS, Method, get_method
from monai_fedlora.methods.rules import RULES
from monai_fedlora.networks.catalogue import BACKBONES
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.scope import Role, Scope
from monai_fedlora.site_report import MetricsForm
from monai_fedlora.transforms.photograph_style import STYLES

if TYPE_CHECKING:
    from monai_fedlora.catalogues import Catalogue
    from monai_fedlora.tasks.task import Task

OWN_NETWORK = "own"
"""Size in the plan of a network that is none of the catalogue."""
BY_CASES, EQUAL = "cases", "equal"
"""How much an update counts in the average of a round."""
CLASSIFICATION = "classification"
"""What plans are about that name no task."""
_SERVER = "server"
_SAID_IF_SET: Mapping[str, Any] = {
    "bundle_sha256": "",
    "changed": (),
    "fine_tune_epochs": 0,
    "participation": Participation(),
    "plugins": {},
    "privacy": None,
    "prompts": None,
    "scale": (),
    "server_optimizer": None,
    "site_weights": BY_CASES,
    "start": None,
    "task": CLASSIFICATION,
    "versions": {},
}
"""Settings that stand in a plan's file only where they differ from these defaults."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of one federated experiment.

    Args:
        experiment: name that keys every site's private state.
        bundle: name of the training bundle each site has installed.
        method: registered method; ``method_args`` are its hyper-parameters.
        sites: the federation's members.
        classes: names of what the task tells apart: class names in label order, structures or values; each site's
            datalist must have the same.
        rounds: number of rounds from ``start_round`` on, at least 1; or 0, to evaluate what a resumed run has left.
        start_round: 0, or the round after a stored one that is resumed.
        local_epochs: passes over a site's training data per round.
        size: named backbone size.
        backbone_sha256: hash of the backbone file that every site must hold on its own disk.
        seed: mixed with site and round for every random choice.
        declared_cases: training cases each site has announced; an update that claims more is refused. A site
            without an entry is held to what its first accepted update claimed, and its weight is limited.
        max_share: largest share of a round's weight for a site without declared cases, from 0.5 to 1 (ours: 0.75), see
            :func:`monai_fedlora.federated.limits.counted_cases`; a site that answers alone has it all.
        update_bound: how many times as long as the median change of a round one may be, at least 1; a longer one is
            clipped (ours: 5.0), see :class:`monai_fedlora.federated.limits.UpdateBound`.
        max_update_rms: largest root-mean-square change per parameter and round that is accepted at all (ours: 1.0).
        wire_dtype: type in which shared tensors travel: "float16" (ours) or "float32"; or "int8", in which changes go
            up in eight bits with a scale per block and tensors come down in float16. Sums are float64 in any case.
        top_k: share of each tensor's values, those with the largest changes, that a site sends in a round; 1 (ours)
            sends all. What is left out, here and by "int8", stays in the site and is added to its next change, see
            :mod:`monai_fedlora.encoding`.
        training: overrides of the bundle's training settings, limited to numbers and plain words.
        prompts: how a method that reads texts puts the classes into words, the same at every site; None for others.
        changed: names of settings that are not what they were in earlier rounds of the experiment, as whoever made the
            job has accepted; a site refuses to go on with others.
        start: of the images behind the shared tensors that the experiment's first round starts from, which are named
            there too; None where the seed draws these tensors.
        plugins: versions of the packages whose plug-ins the plan names, by distribution, the same at every end; none
            takes what is installed here.
        task: what is learnt: "classification", "segmentation", "regression", or a plug-in's.
        scale: of the values of a regression, see :mod:`monai_fedlora.data.value_scale`; each site's datalist must have
            the same. Empty where networks give values as they are.
        site_weights: how much an update counts in a round's average: by its site's training "cases", or as much as any
            other ("equal").
        server_optimizer: how the server steps towards the mean of a round; None takes the mean itself.
        fine_tune_epochs: passes over its training data for which a site trains its personal model further, shared part
            included, after the last round; what comes of them never leaves the site.
        participation: with how many sites' answers a round counts, and how long the server waits for them.
        privacy: the budget of what a site's answers may tell about one of its patients; then rounds train the shared
            part alone, ``declared_cases`` are of patients, and sites train their private part after the last round,
            see :mod:`monai_fedlora.federated.noised_rounds`. None for no budget.
        bundle_sha256: hash of the bundle that every end must have, see :func:`monai_fedlora.resources.bundle_digest`;
            empty for any of its name.
        versions: of packages that every end must have, see :mod:`monai_fedlora.federated.installation`; of packages
            that are not named here, any will do.
    """

    experiment: str
    bundle: str
    method: str
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    rounds: int
    backbone_sha256: str
    method_args: Mapping[str, Any] = field(default_factory=dict)
    start_round: int = 0
    local_epochs: int = 1
    size: str = "small"
    seed: int = 0
    declared_cases: Mapping[str, int] = field(default_factory=dict)
    max_share: float = 0.75
    update_bound: float = 5.0
    max_update_rms: float = 1.0
    wire_dtype: str = "float16"
    top_k: float = 1.0
    training: Mapping[str, Any] = field(default_factory=dict)
    prompts: Prompts | None = None
    changed: tuple[str, ...] = ()
    start: Origin | None = None
    plugins: Mapping[str, str] = field(default_factory=dict)
    task: str = CLASSIFICATION
    scale: tuple[tuple[float, float], ...] = ()
    server_optimizer: ServerOptimizer | None = None
    fine_tune_epochs: int = 0
    site_weights: str = BY_CASES
    participation: Participation = field(default_factory=Participation)
    privacy: PrivacySettings | None = None
    bundle_sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("experiment", "bundle", "method", "size", "task"):
            check_word(name, getattr(self, name))
        check_words("sites", self.sites)
        check_words("classes", self.classes)
        check_words("changed", self.changed, least=0)
        if _SERVER in self.sites:
            raise ConfigError(f"sites: none can be called {_SERVER!r}, which is NVFlare's name for the server")
        task = self.task_of
        if not task.least_names <= len(self.classes) <= task.most_names:
            raise ConfigError(
                f"there are {len(self.classes)} {task.named}; {task.name} needs at least {task.least_names}, and can "
                f"have {task.most_names}"
            )
        self._check_scale(task)
        self.participation.check(self.sites)
        check_pins(self.bundle_sha256, self.versions)
        for name, least in (
            ("rounds", 0 if self.start_round else 1),
            ("start_round", 0),
            ("local_epochs", 1),
            ("seed", 0),
            ("fine_tune_epochs", 0),
        ):
            check_whole(name, getattr(self, name), least)
        if not isinstance(self.backbone_sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.backbone_sha256):
            raise ConfigError("backbone_sha256 must be the 64 hexadecimal digits of the backbone file's SHA-256")
        for name in ("method_args", "training", "declared_cases"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(f"{name} must be a mapping from names to values")
        check_training(self.training)
        for name, value in (*self.training.items(), *self.method_args.items()):
            for part in value if isinstance(value, (list, tuple)) else [value]:
                check_plain(name, part)
        if unknown := set(self.declared_cases) - set(self.sites):
            raise ConfigError(f"declared_cases names {', '.join(sorted(unknown))}, which is not among the sites")
        for site, cases in self.declared_cases.items():
            check_whole(f"declared_cases of {site}", cases, 1)
        if self.wire_dtype not in ("float16", "float32", "int8"):
            raise ConfigError(f"wire_dtype is {self.wire_dtype!r}; it is 'float16', 'float32' or 'int8'")
        if self.site_weights not in (BY_CASES, EQUAL):
            raise ConfigError(f"site_weights is {self.site_weights!r}; it is {BY_CASES!r} or {EQUAL!r}")
        if type(self.top_k) not in (int, float) or not 0 < self.top_k <= 1:
            raise ConfigError(f"top_k is {self.top_k!r}; it must be a share above 0 and at most 1")
        if type(self.max_share) not in (int, float) or not 0.5 <= self.max_share <= 1:
            raise ConfigError(f"max_share is {self.max_share!r}; it must be a share from 0.5 to 1")
        if type(self.update_bound) not in (int, float) or not 1 <= self.update_bound < math.inf:
            raise ConfigError(f"update_bound is {self.update_bound!r}; it must be a finite number of at least 1")
        if type(self.max_update_rms) not in (int, float) or not 0 < self.max_update_rms < math.inf:
            raise ConfigError(f"max_update_rms is {self.max_update_rms!r}; it must be a positive number")
        object.__setattr__(self, "plugins", self._checked_plugins())
        method = self.build_method()
        method.check_sites(len(self.sites))
        if method.reads_text and (task.gives_masks or not task.gives_logits):
            raise ConfigError(
                f"{self.method} compares whole images with sentences about classes, and {task.name} has "
                f"{task.named}; choose another method"
            )
        if (self.prompts is not None) != method.reads_text:
            raise ConfigError(
                f"{self.method} compares images with texts, and the plan has no prompts for them"
                if method.reads_text
                else f"the plan has prompts, and {self.method} reads no texts; leave them out"
            )
        if self.prompts is not None:
            self.prompts.texts(self.classes)
        if self.privacy is not None:
            check_budget(self.privacy, method=method, training=self.training, declared=self.declared_cases)

    def _check_scale(self, task: Task) -> None:
        pairs = self.scale
        if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise ConfigError(f"scale is {pairs!r:.80}; it must be a list of pairs of numbers")
        if not all(type(number) in (int, float) for pair in pairs for number in pair):
            raise ConfigError(f"scale is {pairs!r:.80}; it must be a list of pairs of numbers")
        if pairs and task.scaled is None:
            raise ConfigError(f"the plan has a scale of values, and {task.name} has no values; leave it out")
        check_scale(pairs, self.classes)

    def _checked_plugins(self) -> dict[str, str]:
        """Packages of the plug-ins that the plan names, by their entry points alone; refuse others than it says."""
        said = dict(self.plugins) if isinstance(self.plugins, Mapping) else self.plugins
        check_installed(said)
        method = self.build_method()
        check_rule(method, sites=len(self.sites), participation=self.participation, top_k=self.top_k)
        rule = method.rule
        style = self.training.get("style")
        used = [
            METHODS.plugin(self.method),
            BACKBONES.plugin(self.size),
            RULES.plugin(rule) if rule else None,
            STYLES.plugin(style) if style else None,
            None if self.task == CLASSIFICATION else _tasks().plugin(self.task),
        ]
        return versions(used, said)

    @property
    def task_of(self) -> Task:
        """What is learnt, on the plan's scale of values.

        Raises:
            ConfigError: there is no such task.
        """
        return _tasks()[self.task].on(self.scale)

    @property
    def outputs(self) -> int:
        """Number of the head's outputs."""
        return self.task_of.outputs(len(self.classes))

    @property
    def form(self) -> MetricsForm:
        """The metrics that a site's report may have."""
        return self.task_of.form(self.classes)

    def build_method(self) -> Method:
        """Return the configured method."""
        return get_method(self.method, self.method_args)

    def site_method(self, site: str) -> Method:
        """Return the method with the settings of one of the sites."""
        return self.build_method().for_site(self.sites.index(site))

    @property
    def counting(self) -> Participation:
        """By which sites are asked and rounds count: with no fewer answers than the rule of averaging takes."""
        return counted_by(self.participation, self.build_method())

    @property
    def encoding(self) -> Encoding | None:
        """How sites write their changes; None where they send the tensors themselves."""
        if self.wire_dtype != "int8" and self.top_k == 1:
            return None
        return Encoding(values=self.wire_dtype, kept=self.top_k)

    def scope(self, network: Any) -> Scope:
        """Roles of the tensors of a network built for this plan.

        Raises:
            ConfigError: only the largest changes shall be sent, and the method has tensors that start anew in every
                round, so that there is no later change to which the others could be added; or the server shall have an
                optimiser, and averages nothing that it could step with; or sites shall train on after the last round,
                and the method's personal model has no part of the shared one.
        """
        method = self.build_method()
        if self.fine_tune_epochs and method.personal_apart and self.privacy is None:
            raise ConfigError(
                f"fine_tune_epochs is {self.fine_tune_epochs}, but the personal model of {self.method} trains apart "
                "from the shared one: half of the steps after the last round would go into a model that nobody uses; "
                "leave fine_tune_epochs at 0, and give personal models more steps by the method's own settings"
            )
        scope = method.scope(network, wire_dtype="float32" if self.wire_dtype == "float32" else "float16")
        if self.server_optimizer is not None:
            check_steps_fit(method, network, scope.manifest)
        if self.encoding is None:
            return scope
        if self.top_k < 1 and (anew := [key for key in scope.manifest.up.entries if method.starts_over(key, network)]):
            raise ConfigError(
                f"top_k is {self.top_k}, but {self.method} starts {anew[0]!r} anew in every round, so that a change "
                "that was not sent could never be sent later; leave top_k at 1, or choose a method or averaging that "
                "goes on with its factors"
            )
        return dataclasses.replace(scope, manifest=scope.manifest.encoded(self.encoding))

    def tunes_shared(self, scope: Scope) -> bool:
        """Whether sites train the shared part further for themselves after the last round.

        Under a budget they train the private part alone, if there is one.
        """
        return self.fine_tune_epochs > 0 and (self.privacy is None or not scope.keys(Role.PRIVATE))

    @property
    def epochs_after(self) -> int:
        """Epochs of the training after the last round; under a budget as many as in all rounds, if nothing is said."""
        return self.fine_tune_epochs or (self.total_epochs if self.privacy is not None else 0)

    @property
    def total_epochs(self) -> int:
        """Length of the learning-rate schedule: epochs from round 0 to the last round."""
        return (self.start_round + self.rounds) * self.local_epochs

    @property
    def fingerprint(self) -> str:
        """Hash of what stored tensors must fit: experiment, method, packages of plug-ins, network, weights, classes."""
        settings = dataclasses.asdict(self.build_method())
        more: dict[str, Any] = {"prompts": dataclasses.asdict(self.prompts)} if self.prompts else {}
        if self.plugins:
            more["plugins"] = dict(self.plugins)
        if self.task != CLASSIFICATION:
            more["task"] = self.task
        if self.scale:
            more["scale"] = [[float(number) for number in pair] for pair in self.scale]
        identity = {
            "experiment": self.experiment,
            "method": self.method,
            "method_args": {name: float(v) if isinstance(v, int) else v for name, v in settings.items()},
            "size": self.size,
            "classes": list(self.classes),
            "backbone_sha256": self.backbone_sha256,
            **more,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form; :meth:`from_json` is its inverse."""
        value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for name, default in _SAID_IF_SET.items():
            own = getattr(self, name)
            if own == default:
                del value[name]
            elif hasattr(own, "to_json"):
                value[name] = own.to_json()
        return value

    @classmethod
    def from_json(cls, value: Any) -> Plan:
        """Parse :meth:`to_json`'s form.

        Raises:
            ConfigError: an entry is missing, unknown or out of range.
        """
        if not isinstance(value, Mapping):
            raise ConfigError("a plan is a JSON object")
        known = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := set(value) - set(known):
            raise ConfigError(f"unknown entries in the plan: {', '.join(sorted(unknown))}")
        entries: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        try:
            if "scale" in entries:
                entries["scale"] = tuple(tuple(p) if isinstance(p, list) else p for p in entries["scale"])
            for name, kind in _PARSED.items():
                if name in entries:
                    entries[name] = kind.from_json(entries[name])
            return cls(**entries)
        except TypeError as error:
            raise ConfigError(f"the plan is incomplete or has a wrong type: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file; errors name it."""
        try:
            return cls.from_json(read_json(path))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


_PARSED: Mapping[str, Any] = {
    "participation": Participation,
    "privacy": PrivacySettings,
    "prompts": Prompts,
    "server_optimizer": ServerOptimizer,
    "start": Origin,
}


def _tasks() -> Catalogue[Task]:
    from monai_fedlora.tasks.known import TASKS  # imports what trains, and prediction reads plans without it

    return TASKS
