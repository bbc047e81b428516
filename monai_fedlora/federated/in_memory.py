"""A federation of a Python program: networks that a function makes, and cases that lie in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_fedlora.data.cases import Datalist
from monai_fedlora.engines.store import as_bytes, hash_tensors
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.materials import put_into
from monai_fedlora.federated.plan import OWN_NETWORK, Plan
from monai_fedlora.federated.start import Start
from monai_fedlora.methods.base import Method


def check_in_packages(plan: Plan) -> None:
    """Make sure that other machines can build a plan's network.

    Raises:
        ConfigError: it comes from a function of this program.
    """
    if plan.size == OWN_NETWORK:
        raise ConfigError(
            "this run's network comes from a function of this program, which no other machine has. Put it into an "
            "installed package as a plug-in backbone and give its name, then every site can build it"
        )


@dataclass(frozen=True, kw_only=True)
class SiteCases:
    """What a site trains and is measured on.

    Attributes:
        listed: its cases.
        items: one MONAI dictionary per case with ``image``, ``subject`` and what the task has (``label``), by split.
        augmentation: random MONAI dictionary transforms, for training.
    """

    listed: Datalist
    items: Mapping[str, tuple[dict[str, Any], ...]]
    augmentation: tuple[Callable, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Networks and cases of a Python program, a :class:`~monai_fedlora.federated.materials.Source`.

    Attributes:
        opened: makes the network before a method is attached, the same each time.
        sites: by name.
    """

    opened: Callable[[], Any]
    sites: Mapping[str, SiteCases]

    def digest(self) -> str:
        """Hash of all cases, of what augments them, and of the network's layers, their settings and their code.

        Weights are left out, and so is what the code calls outside of its modules' ``forward``.
        """
        digest = hashlib.sha256()
        for site, cases in sorted(self.sites.items()):
            named = [getattr(step, "__qualname__", type(step).__qualname__) for step in cases.augmentation]
            digest.update(repr((site, named)).encode())
            for split, items in sorted(cases.items.items()):
                for item in items:
                    label = item.get("label", "")
                    digest.update(repr((split, label, item["subject"], tuple(item["image"].shape))).encode())
                    for key in ("image", *sorted(k for k, v in item.items() if k != "image" and isinstance(v, Tensor))):
                        digest.update(as_bytes(item[key]))
        network = self.opened()
        digest.update(re.sub("0x[0-9a-f]+", "", repr(network)).encode())
        for name, module in network.named_modules():
            digest.update(repr((name, _plain(vars(module).items()))).encode())
            code = getattr(type(module).forward, "__code__", None)
            if code is not None:
                digest.update(repr((code.co_code, code.co_names, _plain(enumerate(code.co_consts)))).encode())
        return digest.hexdigest()

    def network(self, plan: Plan, method: Method) -> Any:
        """A network with a method's part at its start, on the CPU.

        Raises:
            ConfigError: it is another network than the plan's, as its makers draw it anew; or the method does not fit.
        """
        opened = self.opened()
        if (found := weights_digest(opened)) != plan.backbone_sha256:
            raise ConfigError(
                "the network has other weights each time it is made, so that sites would not start alike; draw them "
                f"from torch's random numbers alone, or give the network itself (SHA-256 {found[:8]} in place of "
                f"{plan.backbone_sha256[:8]})"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            method.attach(opened)
        return opened

    def start(self, plan: Plan) -> Start:
        """See :class:`~monai_fedlora.federated.materials.Source`."""
        return Start.of_network(plan, self.network(plan, plan.build_method()))

    def furnish(self, config: ConfigParser, *, plan: Plan, site: str) -> Datalist:
        """See :class:`~monai_fedlora.federated.materials.Source`."""
        cases = self.sites[site]
        entries: dict[str, Any] = {
            "datalist": cases.listed,
            "store": None,
            "network_def": self.network(plan, plan.site_method(site)),
            "preprocessing": (),
            "augment": bool(cases.augmentation),
            "train::augmentation": cases.augmentation,
        }
        entries |= {
            f"{part}::data": cases.items[split]
            for part, split in (("train", "training"), ("validate", "validation"), ("test", "test"))
        }
        if not cases.augmentation:
            entries["augmented_views"] = 0
        put_into(config, entries, bundle=plan.bundle)
        return cases.listed


def _plain(values: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return [(name, value) for name, value in values if isinstance(value, (int, float, str))]


def weights_digest(network: nn.Module) -> str:
    """Hash of where a network has its head, and of the names, types, shapes and values of its state."""
    digest = hashlib.sha256(str(getattr(network, "head_prefixes", ())).encode())
    state = network.state_dict()
    hash_tensors(digest, {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)})
    return digest.hexdigest()
