"""A site's ledger: what everything that it has sent under differential privacy tells about its patients.

There is one for a private folder, over all experiments and names of sites, in ``.ledger/``. A charge is written before
an answer leaves, and stays whatever becomes of the answer. What a pool of patients has spent is composed of all charges
to pools that share a patient with it: for each of them that is at least what it has been in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.environment import LEDGER_COPY, PRIVATE_DIR
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.privacy.chain import CHARGES, Chain, OpenChain
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.patient_pool import Pool

FOLDER = ".ledger"
_FORMAT = 1
_log = logging.getLogger("monai_fedlora.ledger")


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One answer of a site.

    Attributes:
        experiment: the plan's name.
        site: the site's name in it.
        round: that it answered.
        mechanism: how it was computed.
        answer: SHA-256 of what left.
    """

    experiment: str
    site: str
    round: int
    mechanism: Mechanism
    answer: str


class Ledger:
    """The charges of a private folder.

    Args:
        private_root: the folder.
        copy: a second folder, elsewhere, which tells when the first was set back; None for none.
    """

    def __init__(self, private_root: Path, *, copy: Path | None = None) -> None:
        self.path = private_root / FOLDER / CHARGES
        self._chain = Chain(private_root / FOLDER, copy=copy)

    @classmethod
    def of_site(cls, private_root: Path) -> Ledger:
        """The ledger of a private folder, with the copy that the site's environment names for its own one.

        A copy on the same disk as the ledger is kept, with a warning: restoring that disk sets back both.

        Raises:
            PrivacyError: the environment names a copy, and not the private folder whose ledger it is of; or the copy
                lies in that folder, so that whoever restores or removes the one does it to the other.
        """
        own, copy = os.environ.get(PRIVATE_DIR), os.environ.get(LEDGER_COPY)
        if copy and not own:
            raise PrivacyError(
                f"{LEDGER_COPY} is set and {PRIVATE_DIR} is not, so that nobody knows of which ledger {copy} is the "
                "copy, and none would be kept; set both"
            )
        if not (own and copy and Path(own).resolve() == private_root.resolve()):
            return cls(private_root)
        place, root = Path(copy).resolve(), private_root.resolve()
        if place.is_relative_to(root) or root.is_relative_to(place):
            raise PrivacyError(
                f"{LEDGER_COPY} is {copy}, and one of it and the private folder {own} holds the other: what sets back "
                "or removes the one would do it to both; name a folder elsewhere, best on another disk"
            )
        if (disk := _disk_of(place)) is not None and disk == _disk_of(root):
            _log.warning(
                "%s, the copy of the ledger, lies on the same disk as the private folder %s: it tells of a ledger that "
                "was set back alone, and not of a disk that was; better name a folder on another disk",
                copy,
                own,
            )
        return cls(private_root, copy=Path(copy))

    @contextmanager
    def opened(self) -> Iterator[OpenLedger]:
        """Hold the ledger, alone among all processes.

        Raises:
            PrivacyError: it was edited, is of another version, or cannot be read or locked.
        """
        with self._chain.opened() as chain:
            yield OpenLedger(chain, self.path)


def _disk_of(path: Path) -> int | None:
    """Number of the disk that a path is on, or would be; None where that cannot be asked."""
    try:
        return next(parent for parent in (path, *path.parents) if parent.exists()).stat().st_dev
    except (OSError, StopIteration):
        return None


class OpenLedger:
    """The charges while nobody else can add one."""

    def __init__(self, chain: OpenChain, path: Path) -> None:
        self._chain = chain
        self._pools: dict[str, Pool] = {}
        self._charges: list[tuple[Pool, Charge]] = []
        try:
            for entry in chain.entries:
                self._take(entry)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise PrivacyError(
                f"{path} has an entry that this version cannot read ({error}); train with the version that wrote it, "
                "or a later one"
            ) from error

    def pool(self, codes: Collection[str]) -> Pool:
        """The pool of patients with these codes."""
        return Pool.of(codes, key=self._chain.key)

    def charges(self, pool: Pool) -> list[Charge]:
        """What was charged to anybody in a pool, the oldest first."""
        return [charge for charged, charge in self._charges if charged.shares_with(pool)]

    def others(self, pool: Pool) -> int:
        """How many pools there are that share nobody with this one."""
        return sum(not known.shares_with(pool) for known in self._pools.values())

    def everything(self) -> list[tuple[Pool, Charge]]:
        """All charges, the oldest first, each with whom it was about."""
        return list(self._charges)

    def charge(self, pool: Pool, charge: Charge) -> None:
        """Write a charge; it is on the disk when this returns."""
        head = [] if self._chain.entries else [{"format": _FORMAT}]
        new = [] if pool.name in self._pools else [{"pool": pool.name, "marks": sorted(pool.marks)}]
        self._chain.append([*head, *new, {"charged": pool.name, **asdict(charge)}])
        self._pools[pool.name] = pool
        self._charges.append((pool, charge))

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "format" in entry:
            if entry["format"] != _FORMAT:
                raise ValueError(f"format {entry['format']!r:.20}")
        elif "marks" in entry:
            self._pools[entry["pool"]] = Pool(frozenset(map(str, entry["marks"])))
        else:
            fields = dict(entry)
            pool = self._pools[fields.pop("charged")]
            self._charges.append((pool, Charge(**fields | {"mechanism": Mechanism(**fields["mechanism"])})))
