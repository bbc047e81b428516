"""Methods whose sites may have adapters of different ranks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from monai_fedlora.adapters.factors import truncate
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.checks import check_whole
from monai_fedlora.methods.low_rank import LoraMethod


@dataclass(frozen=True, kw_only=True)
class RankedLora(LoraMethod):
    """One adapter; a site of a smaller rank leaves the last rows of A and columns of B at zero.

    Factors have the size of ``rank`` everywhere, so that one manifest serves all sites, and the scale is
    alpha / ``rank`` everywhere, so that products of all sites are on one scale.

    Args:
        rank: of the factors, the largest that a site may have.
        ranks: one per site, in the order of the federation's list; none gives every site ``rank``.
    """

    adapters = (SHARED,)

    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.ranks, tuple):
            raise ConfigError(f"ranks is {self.ranks!r}; give a list with one rank per site")
        for rank in self.ranks:
            check_whole("an entry of ranks", rank, least=1)
            if rank > self.rank:
                raise ConfigError(f"ranks holds {rank}, above rank {self.rank}; set rank to the largest of ranks")

    @property
    def needs_matrices(self) -> bool:
        """Products of factors of different ranks are combined as matrices."""
        return True

    @property
    def why_not_noised(self) -> str | None:
        """Noise goes into every value."""
        if any(rank < self.rank for rank in self.ranks):
            return f"noise would fill the ranks that sites of less than {self.rank} leave at zero; give all the same"
        return super().why_not_noised

    def check_sites(self, count: int) -> None:
        """Refuse ranks for another number of sites."""
        super().check_sites(count)
        if self.ranks and len(self.ranks) != count:
            raise ConfigError(f"ranks has {len(self.ranks)} entries for {count} sites; give one per site, or none")

    def for_site(self, index: int) -> RankedLora:
        """The method with one entry of ``ranks``, that of the site."""
        return dataclasses.replace(self, ranks=self.ranks[index : index + 1])

    def begin_round(self, network: Any, round_number: int) -> None:
        """Cut the adapter to the site's rank."""
        if len(self.ranks) == 1:
            truncate(network, SHARED, rank=self.ranks[0])
