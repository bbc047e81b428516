"""A small network beside a frozen backbone, which reads the input of every block and adds to that of the last.

The architecture is that of pFedST (MICCAI 2025, paper 0548), as its figure shows it. With h_0 .. h_{L-1} the inputs of
the L blocks, computed without an autograd graph, and taps i = 0 .. L-1:

    P_i = D_i h_i                                                       down to the side's width
    X_1 = P_0,   X_{i+1} = S_i + P_i                                    i = 1 .. L-2
    S_i = X_i + O_i Attn(Q_i n, K_i n, V_i n),   n = Norm_i(X_i)        i = 1 .. L-1, no MLP
    F = S_{L-1} + P_{L-1},   h'_{L-1} = h_{L-1} + U F

The frozen last block takes h'_{L-1} in place of h_{L-1}, and the gradient flows back through it to U. Every D_i, O_i
and U may have a private low-rank adapter in parallel. Where the figure leaves it open we chose: the linear layers have
no biases, as in the equations; a new U is zero, so that the logits are the frozen network's to the bit; all else starts
as PyTorch's linear layers and layer norms do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_fedlora.adapters.lora import PRIVATE, LoraSettings, add_adapters
from monai_fedlora.adapters.merged_linear import merged_linear
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.attention import dot_product_attention
from monai_fedlora.networks.backbone import Backbone, Features, Taps, is_backbone

PREFIX = "side."


@dataclass(frozen=True, kw_only=True, slots=True)
class SideSettings:
    """The shape of a side network.

    Args:
        width: of its tokens, a multiple of ``heads``; 0 for an eighth of the backbone's (ours), rounded up to one.
        heads: of its attention (ours: 4).
        taps: numbers of the blocks whose inputs it reads, in any order; none for all. With fewer taps the side network
            has as many blocks fewer.
    """

    width: int = 0
    heads: int = 4
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if type(self.heads) is not int or self.heads < 1:
            raise ConfigError(f"heads is {self.heads!r}; attention needs a whole number of at least 1")
        if type(self.width) is not int or self.width < 0 or self.width % self.heads:
            raise ConfigError(
                f"width is {self.width!r}; it must be a multiple of heads, {self.heads}, or 0 for an eighth of the "
                "backbone's"
            )
        listed = isinstance(self.taps, (list, tuple))
        if not listed or not all(type(tap) is int and tap >= 0 for tap in self.taps):
            raise ConfigError(f"taps is {self.taps!r}; give the numbers of blocks, from 0 on, or none for all")
        if len(set(self.taps)) < len(self.taps):
            raise ConfigError(f"taps is {self.taps!r}, which names a block twice; its input is read once")

    def width_beside(self, dim: int) -> int:
        """The width beside a backbone of width ``dim``."""
        return self.width or -(-dim // (8 * self.heads)) * self.heads

    def taps_of(self, depth: int) -> list[int]:
        """The taps on a backbone with so many blocks, in ascending order.

        Raises:
            ConfigError: one lies beyond the last block.
        """
        if beyond := [tap for tap in self.taps if tap >= depth]:
            raise ConfigError(f"taps names block {beyond[0]}, but the network has only blocks 0 to {depth - 1}")
        return sorted(self.taps) or list(range(depth))


class SideBlock(nn.Module):
    """Self-attention after a layer norm, residual, without an MLP; (B, N, width) to the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = dot_product_attention(query, key, value)
        return x + merged_linear(self.out, attended.transpose(1, 2).flatten(2))


class SideNetwork(nn.Module):
    """Logits from a frozen network and the inputs of its blocks.

    Only the network's last block and its readout run in :meth:`forward`.

    Args:
        settings: the shape.
        dim: width of the network beside it.
        depth: number of its blocks.

    Raises:
        ConfigError: a tap lies beyond the last block.
    """

    def __init__(self, settings: SideSettings, *, dim: int, depth: int) -> None:
        super().__init__()
        self.settings = settings
        width, taps = settings.width_beside(dim), settings.taps_of(depth)
        self.down = nn.ModuleDict({str(tap): nn.Linear(dim, width, bias=False) for tap in taps})
        self.blocks = nn.ModuleList(SideBlock(width, settings.heads) for _ in taps[1:])
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, network: Backbone, taps: Taps) -> Tensor:
        """Logits (B, C).

        Args:
            network: the network that this one is beside.
            taps: the inputs of its blocks, each (B, 1 + N, D).
        """
        tokens = taps.hidden[-1] + merged_linear(self.up, self.features(taps.hidden))
        return network.suffix(Features(tokens, taps.addend), len(network.blocks) - 1)

    def features(self, hidden: Sequence[Tensor]) -> Tensor:
        """F, of shape (B, 1 + N, width), from the inputs of all blocks."""
        first, *others = self.down
        state = merged_linear(self.down[first], hidden[int(first)])
        for tap, block in zip(others, self.blocks, strict=True):
            state = block(state) + merged_linear(self.down[tap], hidden[int(tap)])
        return state

    @property
    def projections(self) -> list[str]:
        """Dotted names, inside this network, of every D, O and U."""
        downs, outs = [f"down.{tap}" for tap in self.down], [f"blocks.{i}.out" for i in range(len(self.blocks))]
        return [*downs, *outs, "up"]


def attach_side(network: Any, settings: SideSettings, *, private: LoraSettings | None = None) -> None:
    """Freeze ``network`` and put a side network that trains beside it, in place.

    Args:
        network: a backbone without adapters.
        settings: the side network's shape.
        private: rank, alpha and dropout of an adapter called ``private`` on every D, O and U; None for none.

    Raises:
        ConfigError: a tap lies beyond the network's last block; or the network's blocks, or their queries, are unknown.
    """
    blocks = is_backbone(network)
    if not blocks or "q" not in network.target_names:
        what = "layer that makes queries in a block" if blocks else "list of blocks"
        raise ConfigError(
            f"a side network reads the tokens in front of every block of a transformer, and this network has no {what} "
            "that is known; name its list of blocks, blocks=..., or choose a method of adapters"
        )
    network.requires_grad_(False)
    query = network.blocks[0].get_submodule(network.target_names["q"])
    network.side = SideNetwork(settings, dim=query.in_features, depth=len(network.blocks))
    if private is not None:
        add_adapters(network, [PREFIX + name for name in network.side.projections], private, (PRIVATE,))
    network.side.requires_grad_(True)
