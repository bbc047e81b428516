"""How published text towers name their parameters, and which of them are ours.

A layout maps our names to theirs, along with the two tensors that a comparison with images needs: what projects the
image tower's features, and the temperature.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from monai_fedlora.errors import WeightsError

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_ATTENTION = ("q", "k", "v")
SCALE, TOKENS, POSITION, PROJECTION = "logit_scale", "token.weight", "position", "projection.weight"


@dataclass(frozen=True, slots=True)
class TextOrigin:
    """Where one of our tensors comes from.

    Attributes:
        key: the file's name.
        third: which third of its first axis, for queries, keys and values that are fused; None for all of it.
        transposed: whether the file holds its transpose.
        row: a table whose first row is added to every row; None for none.
    """

    key: str
    third: int | None = None
    transposed: bool = False
    row: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLayout:
    """One way of naming.

    Attributes:
        title: for messages.
        tower: pattern of the names of the text tower, and of what projects images, all of which must have a place.
        names: our tensors outside the blocks, and theirs.
        block: path of a block, with ``{}`` for its index.
        modules: our modules inside a block and theirs; ``attn.qkv`` is a fused projection, with ``{}`` for the leaf.
        image_projection: what projects pooled image features; None where they are compared as they are.
        transposed: whether the file holds the transposes of both projections.
        type_row: the table of types of tokens, all of which are of the first; None where there is none.
        leftovers: pattern of names of the text tower that are left out.
    """

    title: str
    tower: str
    names: Mapping[str, str]
    block: str
    modules: Mapping[str, str]
    image_projection: str | None = None
    transposed: bool = False
    type_row: str | None = None
    leftovers: str = r"(?!)"

    def origin(self, key: str, prefix: str = "") -> TextOrigin | None:
        """Where our tensor ``key`` comes from in a file with this prefix; None where the layout has no such tensor."""
        if match := _BLOCK.fullmatch(key):
            index, module, leaf = match.groups()
            path, part = prefix + self.block.format(index), module.removeprefix("attn.")
            if part in _ATTENTION and "attn.qkv" in self.modules:
                return TextOrigin(f"{path}.{self.modules['attn.qkv'].format(leaf)}", third=_ATTENTION.index(part))
            return TextOrigin(f"{path}.{self.modules[module]}.{leaf}") if module in self.modules else None
        if key not in self.names:
            return None
        return TextOrigin(
            prefix + self.names[key],
            transposed=self.transposed and key == PROJECTION,
            row=prefix + self.type_row if self.type_row and key == POSITION else None,
        )

    def unused(self, keys: Collection[str], used: Collection[str], prefix: str) -> list[str]:
        """Names of the text tower that nobody wants and that are not left out on purpose, sorted."""
        own = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix) and key not in used}
        return sorted(
            key for key, name in own.items() if re.match(self.tower, name) and not re.match(self.leftovers, name)
        )


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_HF_MODULES = {
    "norm1": "layer_norm1",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    **_same("mlp.fc1", "mlp.fc2"),
}
_HF_NAMES = {
    TOKENS: "text_model.embeddings.token_embedding.weight",
    POSITION: "text_model.embeddings.position_embedding.weight",
    "norm.weight": "text_model.final_layer_norm.weight",
    "norm.bias": "text_model.final_layer_norm.bias",
}

HF_CLIP = TextLayout(
    title="transformers' CLIP",
    tower=r"text_model\.|text_projection\.",
    names=_HF_NAMES | {PROJECTION: "text_projection.weight"},
    block="text_model.encoder.layers.{}",
    modules=_HF_MODULES,
    image_projection="visual_projection.weight",
    leftovers=r"text_model\.embeddings\.position_ids$",
)
_HF_SIGLIP = replace(
    HF_CLIP,
    title="transformers' SigLIP",
    names=_HF_NAMES | {PROJECTION: "text_model.head.weight", "projection.bias": "text_model.head.bias"},
    image_projection=None,
)

_OPEN_CLIP = TextLayout(
    title="OpenCLIP's and OpenAI's CLIP",
    tower=r"(transformer|token_embedding|ln_final)\.|(positional_embedding|text_projection)$",
    names={
        TOKENS: "token_embedding.weight",
        POSITION: "positional_embedding",
        "norm.weight": "ln_final.weight",
        "norm.bias": "ln_final.bias",
        PROJECTION: "text_projection",
    },
    block="transformer.resblocks.{}",
    modules={
        "norm1": "ln_1",
        "attn.qkv": "attn.in_proj_{}",
        "attn.proj": "attn.out_proj",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
    image_projection="visual.proj",
    transposed=True,
)


def _below(layout: TextLayout, **changes: object) -> TextLayout:
    """The layout of an OpenCLIP whose text tower has a place of its own."""
    return replace(
        layout,
        tower=r"text\.",
        names={key: f"text.{name}" for key, name in layout.names.items()},
        block=f"text.{layout.block}",
        leftovers=r"text\.attn_mask$",
        **changes,  # type: ignore[arg-type]
    )


_OPEN_CLIP_TEXT = _below(_OPEN_CLIP, title="OpenCLIP's CLIP with a text tower apart")
_OPEN_SIGLIP = _below(
    replace(
        _OPEN_CLIP,
        names=dict(_OPEN_CLIP.names)
        | {PROJECTION: "text_projection.weight", "projection.bias": "text_projection.bias"},
    ),
    title="OpenCLIP's SigLIP",
    image_projection=None,
    transposed=False,
)

_BERT = "text.transformer."
_BIOMEDCLIP = TextLayout(
    title="OpenCLIP's CLIP with a BERT",
    tower=r"text\.|visual\.head\.",
    names={
        TOKENS: f"{_BERT}embeddings.word_embeddings.weight",
        POSITION: f"{_BERT}embeddings.position_embeddings.weight",
        "norm.weight": f"{_BERT}embeddings.LayerNorm.weight",
        "norm.bias": f"{_BERT}embeddings.LayerNorm.bias",
        "projection.0.weight": "text.proj.0.weight",
        "projection.2.weight": "text.proj.2.weight",
    },
    block=f"{_BERT}encoder.layer.{{}}",
    modules={
        "attn.q": "attention.self.query",
        "attn.k": "attention.self.key",
        "attn.v": "attention.self.value",
        "attn.proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm2": "output.LayerNorm",
    },
    image_projection="visual.head.proj.weight",
    type_row=f"{_BERT}embeddings.token_type_embeddings.weight",
    leftovers=r"text\.transformer\.(embeddings\.position_ids$|pooler\.)",
)

TEXT_LAYOUTS = (HF_CLIP, _HF_SIGLIP, _OPEN_CLIP, _OPEN_CLIP_TEXT, _OPEN_SIGLIP, _BIOMEDCLIP)


def find_text_layout(keys: Collection[str], own: Collection[str]) -> tuple[TextLayout, str] | None:
    """The layout and prefix under which most of our tensors are in a file; None where it holds no tokens.

    Args:
        keys: the file's.
        own: the text tower's.

    Raises:
        WeightsError: there are two such towers; the message names both prefixes.
    """
    found: dict[tuple[int, str], TextLayout] = {}
    for layout in TEXT_LAYOUTS:
        for prefix in _prefixes(layout.names[TOKENS], keys):
            wanted = [layout.origin(key, prefix) for key in own]
            beside = [prefix + SCALE, *([prefix + layout.image_projection] if layout.image_projection else [])]
            if None not in wanted:
                count = sum(key in keys for key in (*(origin.key for origin in wanted if origin), *beside))
                found.setdefault((count, prefix), layout)
    if not found:
        return None
    most = max(count for count, _ in found)
    best = {prefix: layout for (count, prefix), layout in found.items() if count == most}
    if len(best) > 1:
        raise WeightsError(f"it holds two text towers, below {' and below '.join(map(repr, sorted(best)[:2]))}")
    return next((layout, prefix) for prefix, layout in best.items())


def _prefixes(name: str, keys: Collection[str]) -> Iterator[str]:
    """What stands in front of a name, up to a dot."""
    for key in keys:
        prefix = key.removesuffix(name)
        if key.endswith(name) and (not prefix or prefix.endswith(".")):
            yield prefix
