"""Where in a network of one's own a method finds what it needs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from monai_fedlora.errors import ConfigError

ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("q",),
    "q": ("q",),
    "q_proj": ("q",),
    "to_q": ("q",),
    "key": ("k",),
    "k": ("k",),
    "k_proj": ("k",),
    "to_k": ("k",),
    "value": ("v",),
    "v": ("v",),
    "v_proj": ("v",),
    "to_v": ("v",),
    "kv": ("k", "v"),
    "qkv": ("q", "k", "v"),
    "attention.output.dense": ("proj",),
    "attn.proj": ("proj",),
    "attn.out_proj": ("proj",),
    "attention.o_proj": ("proj",),
    "fc1": ("fc1",),
    "linear1": ("fc1",),
    "intermediate.dense": ("fc1",),
    "fc2": ("fc2",),
    "linear2": ("fc2",),
    "output.dense": ("fc2",),
}
"""Roles by what a layer's dotted name ends in, in timm, MONAI, transformers and here; the longest ending counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """Places in a network, by the dotted names that ``network.named_modules()`` gives.

    Args:
        targets: a regular expression; the layers whose whole dotted name it matches get an adapter, as in PEFT. None
            for the method's own list of targets.
        head: dotted names of the modules that are the classification head; none for a network without one.
        blocks: dotted name of the ``nn.ModuleList`` or ``nn.Sequential`` that holds the network's blocks; None where
            none is named. Roles such as ``q`` are looked for in its last blocks; what frozen blocks give is kept.

    Raises:
        ConfigError: the expression cannot be read, or a name is no text.
    """

    targets: str | None = None
    head: tuple[str, ...] = ()
    blocks: str | None = None

    def __post_init__(self) -> None:
        for what, names in (("targets", (self.targets,)), ("head", self.head), ("blocks", (self.blocks,))):
            if wrong := [name for name in names if name is not None and not (isinstance(name, str) and name)]:
                raise ConfigError(f"{what} holds {wrong[0]!r}; give dotted names of the network's modules")
        if self.targets is not None:
            try:
                re.compile(self.targets)
            except re.error as error:
                raise ConfigError(
                    f"targets is {self.targets!r}, which is no regular expression: {error}; write for example "
                    r"r'blocks\.[23]\.attn\.qkv', or a list of names"
                ) from error


def roles_of(name: str) -> tuple[str, ...]:
    """The roles that a layer plays, by the end of its dotted name; none where the end is unknown."""
    endings = (ending for ending in ROLES if f".{name}".endswith(f".{ending}"))
    return ROLES[longest] if (longest := max(endings, key=len, default="")) else ()


def like(word: str, known: Collection[str]) -> str:
    """How an error about an unknown dotted name goes on: the three known names that look most like it, or the first."""
    names = [name for name in known if name]
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return f"; the nearest are {', '.join(close)}"
    return f"; there are {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}" if names else ""


def matching(network: nn.Module, pattern: str) -> list[str]:
    """Dotted names of the modules whose whole name the regular expression matches, in module order.

    Raises:
        ConfigError: there is none; the nearest names are given.
    """
    names = [name for name, _ in network.named_modules() if name]
    found = [name for name in names if re.fullmatch(pattern, name)]
    if not found:
        part = [name for name in names if re.search(pattern, name)]
        hint = f"; it matches a part of {part[0]!r}: put .* around it" if part else like(_as_name(pattern), names)
        raise ConfigError(f"targets {pattern!r} matches the whole dotted name of no layer of this network{hint}")
    return found


def module_called(network: nn.Module, name: str, *, what: str, among: Iterable[str] | None = None) -> nn.Module:
    """The module with a dotted name.

    Raises:
        ConfigError: there is none; ``what`` is the setting that named it, and the nearest of ``among`` are given.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    if not name or name not in modules:
        raise ConfigError(f"{what} is {name!r}, and the network has no such module{like(name, list(among or modules))}")
    return modules[name]


def block_lists(network: nn.Module) -> list[str]:
    """Dotted names of what could be a network's list of blocks: lists of at least two modules of one class."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and len(module) > 1
        and len({type(child) for child in module}) == 1
        and any(True for _ in module.parameters())
    ]


def _as_name(pattern: str) -> str:
    """What is left of a regular expression without its signs, to compare with names."""
    return re.sub(r"\[(.)[^]]*\]|\(([^)|]*)[^)]*\)", r"\1\2", pattern.replace(r"\.", ".").replace(r"\d", "0"))
