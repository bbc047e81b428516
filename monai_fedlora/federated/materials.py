"""Where a site's data and network come from. Everything else that trains is the plan's bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from monai.bundle import ConfigParser
from torch import nn

from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import site_data
from monai_fedlora.environment import BACKBONE
from monai_fedlora.errors import ConfigError, FedLoraError, nearest
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.start import Start
from monai_fedlora.methods.base import Method
from monai_fedlora.methods.build import DEMO, build_network
from monai_fedlora.out_of_memory import TRAINING, memory_told


class Source(Protocol):
    """What a run needs beside its plan.

    The optimiser, the trainer, the evaluators and their settings are built by the configuration of the plan's bundle,
    whatever the source is.
    """

    def start(self, plan: Plan) -> Start:
        """The start of a run: the manifest, and the initial shared tensors."""
        ...

    def network(self, plan: Plan, method: Method) -> nn.Module:
        """A network with the method attached, as it begins, on the CPU.

        Args:
            plan: the experiment.
            method: the plan's, or the plan's with the settings of one of its sites.
        """
        ...

    def furnish(self, config: ConfigParser, *, plan: Plan, site: str) -> Datalist:
        """Put a site's data and network into the bundle's configuration.

        Args:
            config: of the plan's bundle, in place.
            plan: the experiment.
            site: one of its sites.

        Returns:
            The site's cases, of the plan's classes.

        Raises:
            ConfigError: the site's classes are not the plan's.
            DataError: its data cannot be used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Prepared folders, and the catalogued backbone that the plan names.

    Attributes:
        data_root: folder of prepared sites; None uses the site's own configuration (``MONAI_FEDLORA_DATA``, then the
            phantom that the bundle names under ``phantom``, a cine study if it names none).
        backbone: path of the backbone file; None uses ``MONAI_FEDLORA_BACKBONE``, then the packaged demo weights.
        datalists: paths of the datalists of sites that lie elsewhere.
    """

    data_root: str | None = None
    backbone: str | None = None
    datalists: Mapping[str, Path] = field(default_factory=dict)

    def start(self, plan: Plan) -> Start:
        """See :meth:`Start.of_plan`."""
        return Start.of_plan(plan, backbone=self.backbone)

    def network(self, plan: Plan, method: Method) -> nn.Module:
        """See :class:`Source`."""
        return build_network(
            size=plan.size,
            out_chans=plan.outputs,
            backbone=self.backbone or os.environ.get(BACKBONE) or DEMO,
            backbone_sha256=plan.backbone_sha256,
            method=plan.method,
            method_args=dataclasses.asdict(method),
            seed=plan.seed,
            classes=plan.classes,
            prompts=plan.prompts,
            masks=plan.task_of.gives_masks,
        )

    def furnish(self, config: ConfigParser, *, plan: Plan, site: str) -> Datalist:
        """See :class:`Source`."""
        path = self.datalists.get(site) or site_data(
            site,
            data_root=self.data_root,
            phantom=config.get("phantom", "cine"),
            task=plan.task,
            names=plan.classes,
        )
        found = load_datalist(path)
        if found.task not in plan.task_of.listed_as:
            raise ConfigError(f"{path} is of the task {found.task!r}, and the plan of {plan.task}; prepare other data")
        if tuple(found.classes) != plan.classes:
            raise ConfigError(
                f"{path} has the {plan.task_of.named} {list(found.classes)}, the plan {list(plan.classes)}; prepare "
                f"the data with the same task and {plan.task_of.named}"
            )
        if found.scale != plan.scale:
            said = [[list(pair) for pair in scale] or "none" for scale in (found.scale, plan.scale)]
            raise ConfigError(
                f"{path} has its values on the scale {said[0]}, the plan {said[1]}; prepare the data with the plan's"
            )
        backbone = self.backbone or os.environ.get(BACKBONE) or DEMO
        put_into(config, {"dataset_dir": str(path.parent), "backbone": backbone}, bundle=plan.bundle)
        return found if found.origin.name else replace(found, origin=replace(found.origin, name=found.dataset[:200]))


INSTALLED = Installed()
"""What a hospital's own environment names."""


def put_into(config: ConfigParser, entries: Mapping[str, Any], *, bundle: str) -> None:
    """Replace entries of a bundle's configuration, at its top or, with ``::`` in their names, deeper.

    Raises:
        ConfigError: the bundle has no such entry, so that the value would have no effect.
    """
    known = set(config.get())
    for name, value in entries.items():
        if name.partition("::")[0] not in known:
            raise ConfigError(f"the bundle {bundle} has no setting {name!r}{nearest(name, sorted(known))}")
        config[name] = value


def built(config: ConfigParser, part: str, *, site: str) -> Any:
    """An object of a site's bundle; an error that is meant to be read comes out of the parser's own.

    Args:
        config: with the site's settings.
        part: its id in the configuration.
        site: the site's name, for messages.
    """
    try:
        with memory_told(f"building the {part} of {site}", *TRAINING):
            return config.get_parsed_content(part)
    except RuntimeError as error:
        cause = error.__cause__
        while cause is not None:
            if isinstance(cause, FedLoraError):
                raise cause from None
            cause = cause.__cause__
        raise
