"""What is known about a published data set, and how its copies on a disk are read."""

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
    """A reader, and what the command line offers for its data set.

    Attributes:
        read: from the folder of a copy to its patients or photographs; raises
            :class:`~monai_fedlora.errors.DataError` for a copy that it cannot use.
        text: what the data set is called and where its files lie.
        source: who published it.
        by: what can make a site, of "vendor", "centre" and "spacing"; the first is the default.
        groups: its diagnoses in the order of the labels; () for those that occur, sorted.
        normal: the group that the binary task calls NOR.
        centres: all that were published, so that those which a copy lacks can be told; () where nobody knows.
        photographs: whether it is 2D: the task is then its groups and its published split is kept, unless somebody asks
            for something else.
    """

    read: Callable[[Path], list[Record]]
    text: str
    source: str | None = None
    by: tuple[str, ...] = ("vendor", "centre", "spacing")
    groups: tuple[str, ...] = ()
    normal: str = "NOR"
    centres: tuple[str, ...] = ()
    photographs: bool = False

    def __post_init__(self) -> None:
        if not self.by or set(self.by) - {"vendor", "centre", "spacing"}:
            raise ConfigError(f"by is {self.by!r}; give one or more of 'vendor', 'centre' and 'spacing'")
