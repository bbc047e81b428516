"""The files of a checkpoint and their hash, and what was loaded of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, OtherBackbone, WeightsError

if TYPE_CHECKING:
    from monai_fedlora.networks.position import Resizing

CONFIG_NAME = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".tar")
"""Names of checkpoints of ``torch.save`` end in one of these."""

Layout = Literal["classifier", "segmentation", "pretrained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """What was loaded.

    Attributes:
        path: the file on this machine; of several, their folder.
        sha256: of the file's bytes; of several, see :meth:`CheckpointFiles.sha256`.
        n_loaded: tensors of the network that now hold values of the file.
        layout: ``"classifier"`` for a fine-tuned file, ``"segmentation"`` for one with a segmentation decoder,
            ``"pretrained"`` for one without heads or with a masked auto-encoder's decoder.
        heads: whether the heads were loaded, all of them.
        own_heads: of the network's head prefixes, those whose values it keeps.
        skipped: the file's keys that were left out, sorted.
        assumed: settings of the network that neither the file nor a description beside it tells.
        resizing: how positions are interpolated; None for a network whose positions no file decides about.
    """

    path: Path
    sha256: str
    n_loaded: int
    layout: Layout
    heads: bool
    own_heads: tuple[str, ...]
    skipped: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    resizing: Resizing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """The files of one set of weights on this machine.

    Attributes:
        parts: one file, or several that hold different tensors.
        config: the architecture's description beside them; None where a file alone was named.
    """

    parts: tuple[Path, ...]
    config: Path | None = None

    @property
    def path(self) -> Path:
        """The file, or the folder of several."""
        return self.parts[0] if len(self.parts) == 1 else self.parts[0].parent

    def sha256(self) -> str:
        """The hash to pin: of the one file, or of what ``sha256sum`` prints for several, sorted by name.

        Raises:
            WeightsError: a file cannot be read.
        """
        try:
            if len(self.parts) == 1:
                return files.sha256(self.parts[0])
            lines = [f"{files.sha256(part)}  {part.name}\n" for part in sorted(self.parts)]
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error}") from error
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def check_pin(self, sha256: str | None) -> str:
        """Return the hash after comparing it with the expected one, if there is one.

        Raises:
            ConfigError: ``sha256`` is not 64 hexadecimal digits.
            OtherBackbone: the hashes differ.
            WeightsError: a file cannot be read.
        """
        found = self.sha256()
        if sha256 is not None and found != sha256.lower():
            raise OtherBackbone(
                f"{self.path} is not the pinned weights file: expected SHA-256 {sha256.lower()}, found {found}; "
                "the file was replaced or damaged, get it again from its origin"
            )
        return found


def check_pin_format(sha256: str | None) -> None:
    """Refuse what cannot be a SHA-256.

    Raises:
        ConfigError: ``sha256`` is not 64 hexadecimal digits.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"the SHA-256 to expect must be 64 hexadecimal digits, not {sha256!r}")


def listed(items: list[str], limit: int = 8) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
