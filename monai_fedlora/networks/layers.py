"""Where in a network of one's own a method finds what it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from monai_fedlora.errors import ConfigError


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
