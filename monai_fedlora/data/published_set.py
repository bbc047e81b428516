"""What a reader of a published data set consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monai_fedlora.errors import ConfigError

if TYPE_CHECKING:
    from monai_fedlora.data.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A reader of a published data set, and the options of its command.

    Attributes:
        read: returns the patients or photographs of the copy in a folder; raises
            :class:`~monai_fedlora.errors.DataError` for a copy that it cannot use.
        text: name of the data set, and what the folder has to contain.
        source: who published it.
        by: what sites can be made of, of "vendor", "centre" and "spacing"; the first is the default.
        groups: its diagnoses in the order of the labels; () for those that occur, sorted.
        normal: the diagnosis that is NOR in the binary task.
        centres: all published centres, to report those that a copy lacks; () where unknown.
        photographs: whether its images are photographs. By default their published split is kept.
        task: the default task; None for multiclass of photographs and binary of cine studies.
    """

    read: Callable[[Path], list[Record]]
    text: str
    source: str | None = None
    by: tuple[str, ...] = ("vendor", "centre", "spacing")
    groups: tuple[str, ...] = ()
    normal: str = "NOR"
    centres: tuple[str, ...] = ()
    photographs: bool = False
    task: str | None = None

    def __post_init__(self) -> None:
        if not self.by or set(self.by) - {"vendor", "centre", "spacing"}:
            raise ConfigError(f"by is {self.by!r}; give one or more of 'vendor', 'centre' and 'spacing'")
