"""How published vision transformers name their parameters, and which of them are ours.

Each layout maps our names to theirs. Where a file holds what a network for images has no use for (a decoder, a text
tower), the layout says so by name; everything else in a file is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

_ATTENTION = ("q", "k", "v")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one of our tensors comes from.

    Attributes:
        key: the file's name; None where the layout has no such tensor.
        third: which third of its first axis, for queries, keys and values that are fused; None for all of it.
    """

    key: str | None
    third: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTLayout:
    """One way of naming.

    Attributes:
        title: for messages.
        cls: the class token.
        position: the table of positions.
        class_position: whether its first row belongs to the class token.
        modules: our modules outside the blocks and theirs.
        block: path of a block, with ``{}`` for its index.
        block_modules: our modules inside a block and theirs; ``attn.qkv`` is a fused projection.
        prefixes: what may stand in front of every name.
        mean_norm: the norm behind the mean of the patch tokens; None where a file cannot have one.
        head: the linear classifier behind the norm; None where it reads other features than ours.
        leftovers: patterns of names, without their prefix, that are left out.
        patch_linear: whether the patch embedding is a linear layer on a patch's rows, columns and channels in turn.
    """

    title: str
    cls: str
    position: str
    class_position: bool
    modules: Mapping[str, str]
    block: str
    block_modules: Mapping[str, str]
    prefixes: tuple[str, ...] = ("",)
    mean_norm: str | None = None
    head: str | None = None
    leftovers: tuple[str, ...] = ()
    patch_linear: bool = False

    def origin(self, key: str, prefix: str) -> Origin:
        """Where our tensor ``key`` comes from in a file with this prefix; heads have none."""
        if key == "embed.cls":
            return Origin(prefix + self.cls)
        if key == "embed.position":
            return Origin(prefix + self.position)
        if match := _BLOCK.fullmatch(key):
            index, module, leaf = match.groups()
            path = prefix + self.block.format(index)
            part = module.removeprefix("attn.")
            if part in _ATTENTION and "attn.qkv" in self.block_modules:
                return Origin(f"{path}.{self.block_modules['attn.qkv']}.{leaf}", _ATTENTION.index(part))
            if leaf == "gamma":
                theirs = self.block_modules.get(f"{module}.gamma")
            else:
                theirs = f"{self.block_modules[module]}.{leaf}" if module in self.block_modules else None
            return Origin(f"{path}.{theirs}" if theirs else None)
        module, _, leaf = key.rpartition(".")
        return Origin(f"{prefix}{self.modules[module]}.{leaf}" if module in self.modules else None)

    def is_leftover(self, key: str, prefix: str) -> bool:
        """Whether the layout lists this key of the file as unused."""
        return any(re.match(pattern, key.removeprefix(prefix)) for pattern in self.leftovers)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


OURS = ViTLayout(
    title="this package's own",
    cls="embed.cls",
    position="embed.position",
    class_position=False,
    modules=_same("embed.patch", "embed.norm", "norm"),
    block="blocks.{}",
    block_modules=_same("norm1", "attn.q", "attn.k", "attn.v", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    | _same("ls1.gamma", "ls2.gamma"),
    mean_norm="norm",
    head="head",
    leftovers=(r"head\.",),
)

_HF_VIT = ViTLayout(
    title="transformers' ViT and ViTMAE",
    cls="embeddings.cls_token",
    position="embeddings.position_embeddings",
    class_position=True,
    modules={"embed.patch": "embeddings.patch_embeddings.projection", "norm": "layernorm"},
    block="encoder.layer.{}",
    block_modules={
        "norm1": "layernorm_before",
        "attn.q": "attention.attention.query",
        "attn.k": "attention.attention.key",
        "attn.v": "attention.attention.value",
        "attn.proj": "attention.output.dense",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    },
    prefixes=("", "vit."),
    head="classifier",
    leftovers=(r"pooler\.", r"classifier\.", r"decoder\.", r"embeddings\.mask_token$"),
)
# The names of transformers 5's own modules, under which a state dict taken from a model in memory comes.
_HF5_ATTENTION = {
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
}
_HF5_VIT = replace(
    _HF_VIT,
    block="layers.{}",
    block_modules={**_HF_VIT.block_modules, **_HF5_ATTENTION, "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"},
)

_HF_DINOV2 = ViTLayout(
    title="transformers' DINOv2",
    cls=_HF_VIT.cls,
    position=_HF_VIT.position,
    class_position=True,
    modules=_HF_VIT.modules,
    block="encoder.layer.{}",
    block_modules={
        **_HF_VIT.block_modules,
        **_same("norm1", "norm2", "mlp.fc1", "mlp.fc2"),
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    },
    prefixes=("", "dinov2."),
    leftovers=(r"classifier\.", r"embeddings\.mask_token$"),
)
_HF5_DINOV2 = replace(_HF_DINOV2, block_modules={**_HF_DINOV2.block_modules, **_HF5_ATTENTION})

CLIP = ViTLayout(
    title="transformers' CLIP",
    cls="embeddings.class_embedding",
    position="embeddings.position_embedding.weight",
    class_position=True,
    modules={"embed.patch": "embeddings.patch_embedding", "embed.norm": "pre_layrnorm", "norm": "post_layernorm"},
    block="encoder.layers.{}",
    block_modules={
        "norm1": "layer_norm1",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.proj": "self_attn.out_proj",
        "norm2": "layer_norm2",
        **_same("mlp.fc1", "mlp.fc2"),
    },
    prefixes=("", "vision_model."),
    leftovers=(
        r"embeddings\.position_ids$",
        r"text_model\.",
        r"(text|visual)_projection\.",
        r"logit_scale$",
        r"classifier\.",
    ),
)

# timm's names, which MAE, RETFound and DINOv2's own files share.
_TIMM = ViTLayout(
    title="timm, MAE, RETFound and DINOv2's own",
    cls="cls_token",
    position="pos_embed",
    class_position=True,
    modules={"embed.patch": "patch_embed.proj", "embed.norm": "norm_pre", "norm": "norm"},
    block="blocks.{}",
    block_modules=_same("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", "ls1.gamma", "ls2.gamma"),
    prefixes=("", "backbone.", "module."),
    mean_norm="fc_norm",
    head="head",
    leftovers=(r"decoder_", r"mask_token$", r"head\.", r"pre_logits\.", r"(dino|ibot)_head\."),
)

_MONAI = ViTLayout(
    title="MONAI's ViT",
    cls="cls_token",
    position="patch_embedding.position_embeddings",
    class_position=False,
    modules={"embed.patch": "patch_embedding.patch_embeddings", "norm": "norm"},
    block="blocks.{}",
    block_modules={
        **_same("norm1", "attn.qkv", "norm2"),
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.linear1",
        "mlp.fc2": "mlp.linear2",
    },
    prefixes=("", "module."),
    head="classification_head",
    leftovers=(r"blocks\.\d+\.(norm_)?cross_attn\.", r"classification_head\."),
)
_MONAI_PERCEPTRON = replace(
    _MONAI, modules={**_MONAI.modules, "embed.patch": "patch_embedding.patch_embeddings.1"}, patch_linear=True
)

LAYOUTS = (OURS, _HF_VIT, _HF5_VIT, _HF_DINOV2, _HF5_DINOV2, CLIP, _TIMM, _MONAI, _MONAI_PERCEPTRON)

UNSUPPORTED = {
    r"(.*\.)?(register_tokens|reg_token)$": "register tokens (as in DINOv2 with registers)",
    r".*\.mlp\.(weights_in|w12|gate_proj)\.": "gated MLPs (SwiGLU, as in DINOv2 giant)",
}
"""Names of what the network does not have, and what they mean."""


def find_layout(keys: Collection[str], own: Collection[str]) -> tuple[ViTLayout, str] | None:
    """The layout and prefix under which most of our tensors are in a file; None where none is.

    Args:
        keys: the file's.
        own: the network's, without its heads.
    """
    best, most = None, 0
    for layout in LAYOUTS:
        for prefix in layout.prefixes:
            count = sum(layout.origin(key, prefix).key in keys for key in own)
            if count > most:
                best, most = (layout, prefix), count
    return best
