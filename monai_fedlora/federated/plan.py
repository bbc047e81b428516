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

from monai_fedlora.catalogues import installed_version
from monai_fedlora.data.origin import Origin
from monai_fedlora.data.value_scale import check_scale
from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.training_settings import check_training
from monai_fedlora.files import read_json
from monai_fedlora.methods import METHODS, Method, get_method
from monai_fedlora.methods.rules import RULES
from monai_fedlora.networks.catalogue import BACKBONES
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.scope import Scope
from monai_fedlora.site_report import MetricsForm
from monai_fedlora.transforms.photograph_style import STYLES

if TYPE_CHECKING:
    from monai_fedlora.catalogues import Catalogue
    from monai_fedlora.tasks.task import Task

OWN_NETWORK = "own"
"""Size in the plan of a network that is none of the catalogue."""
CLASSIFICATION = "classification"
"""What plans are about that name no task."""
_SERVER = "server"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
        rounds: number of rounds from ``start_round`` on, at least 1.
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

    def __post_init__(self) -> None:
        for name in ("experiment", "bundle", "method", "size", "task"):
            _word(name, getattr(self, name))
        for name in ("sites", "classes"):
            words = getattr(self, name)
            if not isinstance(words, tuple) or not words:
                raise ConfigError(f"{name} is {words!r}; it must be a list of names")
            for word in words:
                _word(name, word)
            if len(set(words)) != len(words):
                raise ConfigError(f"{name} must be different names, got {', '.join(words)}")
        if not isinstance(self.changed, tuple):
            raise ConfigError(f"changed is {self.changed!r}; it must be a list of names of settings")
        for name in self.changed:
            _word("changed", name)
        if _SERVER in self.sites:
            raise ConfigError(f"sites: none can be called {_SERVER!r}, which is NVFlare's name for the server")
        task = self.task_of
        if not task.least_names <= len(self.classes) <= task.most_names:
            raise ConfigError(
                f"there are {len(self.classes)} {task.named}; {task.name} needs at least {task.least_names}, and can "
                f"have {task.most_names}"
            )
        self._check_scale(task)
        for name, least in (("rounds", 1), ("start_round", 0), ("local_epochs", 1), ("seed", 0)):
            _whole(name, getattr(self, name), least)
        if not isinstance(self.backbone_sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.backbone_sha256):
            raise ConfigError("backbone_sha256 must be the 64 hexadecimal digits of the backbone file's SHA-256")
        for name in ("method_args", "training", "declared_cases"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(f"{name} must be a mapping from names to values")
        check_training(self.training)
        for name, value in (*self.training.items(), *self.method_args.items()):
            for part in value if isinstance(value, (list, tuple)) else [value]:
                _plain(name, part)
        if unknown := set(self.declared_cases) - set(self.sites):
            raise ConfigError(f"declared_cases names {', '.join(sorted(unknown))}, which is not among the sites")
        for site, cases in self.declared_cases.items():
            _whole(f"declared_cases of {site}", cases, 1)
        if self.wire_dtype not in ("float16", "float32", "int8"):
            raise ConfigError(f"wire_dtype is {self.wire_dtype!r}; it is 'float16', 'float32' or 'int8'")
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
        if (self.prompts is not None) != method.reads_text:
            raise ConfigError(
                f"{self.method} compares images with texts, and the plan has no prompts for them"
                if method.reads_text
                else f"the plan has prompts, and {self.method} reads no texts; leave them out"
            )
        if self.prompts is not None:
            self.prompts.texts(self.classes)

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
        said = self.plugins
        if not isinstance(said, Mapping) or not all(isinstance(part, str) for item in said.items() for part in item):
            raise ConfigError(f"plugins is {said!r}; it must be a mapping from distributions to their versions")
        for name, version in said.items():
            if (here := installed_version(name)) != version:
                raise ConfigError(
                    f"the plan is made for the plug-ins of {name} {version}, and "
                    f"{f'{here} is' if here else 'no such package is'} installed here; install that version at every "
                    "end, or make the plan again"
                )
        rule = self.build_method().rule
        style = self.training.get("style")
        used = [
            METHODS.plugin(self.method),
            BACKBONES.plugin(self.size),
            RULES.plugin(rule) if rule else None,
            STYLES.plugin(style) if style else None,
            None if self.task == CLASSIFICATION else _tasks().plugin(self.task),
        ]
        found = {plugin.distribution: plugin.version for plugin in used if plugin}
        if said and dict(said) != found:
            raise ConfigError(
                f"the plan says that its plug-ins are of {', '.join(said)}, and here they are of "
                f"{', '.join(found) or 'none'}; make the plan again with the packages that every end has"
            )
        return found

    @property
    def task_of(self) -> Task:
        """What is learnt.

        Raises:
            ConfigError: there is no such task.
        """
        return _tasks()[self.task]

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
    def encoding(self) -> Encoding | None:
        """How sites write their changes; None where they send the tensors themselves."""
        if self.wire_dtype != "int8" and self.top_k == 1:
            return None
        return Encoding(values=self.wire_dtype, kept=self.top_k)

    def scope(self, network: Any) -> Scope:
        """Roles of the tensors of a network built for this plan.

        Raises:
            ConfigError: only the largest changes shall be sent, and the method has tensors that start anew in every
                round, so that there is no later change to which the others could be added.
        """
        method = self.build_method()
        scope = method.scope(network, wire_dtype="float32" if self.wire_dtype == "float32" else "float16")
        if self.encoding is None:
            return scope
        if self.top_k < 1 and (anew := [key for key in scope.manifest.up.entries if method.starts_over(key, network)]):
            raise ConfigError(
                f"top_k is {self.top_k}, but {self.method} starts {anew[0]!r} anew in every round, so that a change "
                "that was not sent could never be sent later; leave top_k at 1, or choose a method or averaging that "
                "goes on with its factors"
            )
        return dataclasses.replace(scope, manifest=scope.manifest.encoded(self.encoding))

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
        value = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.prompts is None:
            del value["prompts"]
        if not self.changed:
            del value["changed"]
        if self.start is None:
            del value["start"]
        if not self.plugins:
            del value["plugins"]
        if self.task == CLASSIFICATION:
            del value["task"]
        if not self.scale:
            del value["scale"]
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
            if "prompts" in entries:
                entries["prompts"] = Prompts.from_json(entries["prompts"])
            if "scale" in entries:
                entries["scale"] = tuple(tuple(p) if isinstance(p, list) else p for p in entries["scale"])
            if "start" in entries:
                entries["start"] = Origin.from_json(entries["start"])
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


def _tasks() -> Catalogue[Task]:
    from monai_fedlora.tasks.known import TASKS  # imports what trains, and prediction reads plans without it

    return TASKS


def _word(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ConfigError(
            f"{name} is {value!r}; use letters, digits, '.', '_' and '-' (no spaces, paths or expressions)"
        )


def _whole(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def _plain(name: str, value: Any) -> None:
    if isinstance(value, str):
        _word(name, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    elif value is not None and not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, a plain word or a list of them, not {type(value).__name__}")
