"""How a published vision transformer names its tensors, and which of them are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from monai_fedlora.networks.position import Resizing
from monai_fedlora.networks.vit import ViTSettings

Rows = Literal["patches", "class", "all"]

_QKV, _KV, _GATED = "attn.qkv", "attn.kv", "mlp.gated"
_PARTS = {
    "attn.q": ((_QKV, 0, 3),),
    "attn.k": ((_QKV, 1, 3), (_KV, 0, 2)),
    "attn.v": ((_QKV, 2, 3), (_KV, 1, 2)),
    "mlp.gate": ((_GATED, 0, 2),),
    "mlp.fc1": ((_GATED, 1, 2),),
}
_POOL = "attention_pool."
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one of our tensors comes from.

    Attributes:
        key: the layout's name; None where it has no such tensor.
        part: which of the equal parts of its first axis.
        parts: their number: 3 for fused queries, keys and values, 2 for fused keys and values or a fused gate, 1 for
            all of it.
    """

    key: str | None
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTLayout:
    """One way of naming. Names are without what stands in front of all of them in a file.

    Attributes:
        title: for messages.
        modules: our modules outside the blocks and theirs.
        block: path of a block, with ``{}`` for its index.
        block_modules: our modules inside a block and theirs; ``attn.qkv`` is a fused projection of queries, keys and
            values, ``mlp.gated`` one of a gate and what it multiplies. ``.weight`` and ``.bias`` follow, in the place
            of ``{}`` where theirs has it. ``ls1.gamma`` and ``ls2.gamma`` are whole names.
        unused: our tensors inside a block that a file may hold, and that its own network has no use for.
        pool_modules: our modules of the attention that pools tokens and theirs, in the same way, with ``attn.kv`` for
            fused keys and values; ``probe`` is a whole name. Empty where there never is one.
        cls: the class token; None where there never is one.
        registers: the tokens between it and the patches; None where there never are any.
        position: the table of positions; None where there is none.
        resizing: how the code of its owner interpolates positions; None where the names are of several owners, among
            whom the network's size decides, or nothing is interpolated.
        resizing_beside_registers: the same of networks with registers, where it differs.
        marks: names that, where all of them are in a file, tell it from layouts that name all that is read the same.
        rows: whose positions the table may hold in front of the patches': none's, the class token's, or those of the
            class token and all registers.
        mean_norm: the norm behind the mean of the patch tokens; None where a file cannot have one.
        head: the linear classifier behind the norm; None where it reads other features than ours.
        leftovers: patterns of names that a network for images has no use for.
        renames: patterns in a file's names, and what is read in their place before anything else.
        norm_eps: of all norms, where its library knows no other; None where it differs among networks.
        patch_linear: whether the patch embedding is a linear layer on a patch's rows, columns and channels in turn.
    """

    title: str
    modules: Mapping[str, str]
    block: str
    block_modules: Mapping[str, str]
    unused: tuple[str, ...] = ()
    pool_modules: Mapping[str, str] = field(default_factory=dict)
    cls: str | None
    registers: str | None = None
    position: str | None
    rows: tuple[Rows, ...] = ()
    resizing: Resizing | None = None
    resizing_beside_registers: Resizing | None = None
    marks: tuple[str, ...] = ()
    mean_norm: str | None = None
    head: str | None = None
    leftovers: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    norm_eps: float | None = None
    patch_linear: bool = False

    @property
    def anchors(self) -> tuple[str, ...]:
        """Names that every file of this layout has."""
        return tuple(str(self.origin(key).key) for key in ("embed.patch.weight", "blocks.0.norm1.weight"))

    def canonical(self, key: str) -> str:
        """A file's name with all renames done."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def origin(self, key: str) -> Origin:
        """Where our tensor ``key`` comes from; heads come from nowhere."""
        single = {"embed.cls": self.cls, "embed.registers": self.registers, "embed.position": self.position}
        if key in single:
            return Origin(single[key])
        if match := _BLOCK.fullmatch(key):
            index, module, leaf = match.groups()
            return self._in_block(self.block.format(index), module, leaf)
        if key == f"{_POOL}probe":
            return Origin(self.pool_modules.get("probe"))
        module, _, leaf = key.rpartition(".")
        if module.startswith(_POOL):
            return _within(self.pool_modules, module.removeprefix(_POOL), leaf)
        return Origin(_joined(self.modules[module], leaf) if module in self.modules else None)

    def _in_block(self, block: str, module: str, leaf: str) -> Origin:
        if f"{module}.{leaf}" in self.unused:
            return Origin(None)
        if leaf == "gamma":
            theirs = self.block_modules.get(f"{module}.gamma")
            return Origin(f"{block}.{theirs}" if theirs else None)
        return _within(self.block_modules, module, leaf, path=f"{block}.")

    def is_leftover(self, name: str) -> bool:
        """Whether the layout lists this name as unused."""
        return any(re.match(pattern, name) for pattern in self.leftovers)

    def front_rows(self, settings: ViTSettings) -> tuple[int, ...]:
        """The numbers of rows that a table of positions may have in front of the patches', none twice."""
        counts = {"patches": 0, "class": int(settings.class_token), "all": settings.n_prefix}
        return tuple(sorted({counts[rows] for rows in self.rows}))

    def resizing_of(self, settings: ViTSettings) -> Resizing:
        """How positions of a file are interpolated for a network."""
        beside_registers = self.resizing_beside_registers if settings.registers else None
        return beside_registers or self.resizing or settings.resizing


def same(*names: str) -> dict[str, str]:
    """Modules that have the same name in a layout as here."""
    return {name: name for name in names}


def _within(modules: Mapping[str, str], module: str, leaf: str, *, path: str = "") -> Origin:
    """Where a tensor of one of our modules comes from, which may be a part of a fused one."""
    for fused, part, parts in _PARTS.get(module, ()):
        if fused in modules:
            return Origin(path + _joined(modules[fused], leaf), part, parts)
    return Origin(path + _joined(modules[module], leaf) if module in modules else None)


def _joined(module: str, leaf: str) -> str:
    return module.format(leaf) if "{}" in module else f"{module}.{leaf}"
