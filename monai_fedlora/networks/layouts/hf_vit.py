"""The names of transformers: ViT, ViTMAE, DeiT, DINOv2 and DINOv2 with registers, of which RAD-DINO is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

HF_VIT = ViTLayout(
    title="transformers' ViT and ViTMAE",
    cls="embeddings.cls_token",
    position="embeddings.position_embeddings",
    rows=("class",),
    resizing="plain",
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
    head="classifier",
    leftovers=(r"pooler\.", r"classifier\.", r"decoder\.", r"embeddings\.mask_token$"),
)
# The names of transformers 5's own modules, under which a state dict taken from a model in memory comes.
_IN_MEMORY = {
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
}


def _in_memory(layout: ViTLayout, block: str, **modules: str) -> ViTLayout:
    names: Mapping[str, str] = {**layout.block_modules, **_IN_MEMORY, **modules}
    return replace(layout, block=block, block_modules=names)


_MLP = same("mlp.fc1", "mlp.fc2")
HF5_VIT = _in_memory(HF_VIT, "layers.{}", **_MLP)

# Its second token attends like a register. What classifies is the mean of two heads, of which ours is none.
HF_DEIT = replace(
    HF_VIT,
    title="transformers' DeiT",
    registers="embeddings.distillation_token",
    rows=("all",),
    head=None,
    leftovers=(*HF_VIT.leftovers, r"(cls|distillation)_classifier\."),
)
HF5_DEIT = _in_memory(HF_DEIT, "layers.{}", **_MLP)

HF_DINOV2 = replace(
    HF_VIT,
    title="transformers' DINOv2",
    registers="embeddings.register_tokens",
    resizing_beside_registers="smoothed",
    block_modules={
        **HF_VIT.block_modules,
        **same("norm1", "norm2"),
        **_MLP,
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    },
    head=None,
    leftovers=(r"classifier\.", r"embeddings\.mask_token$"),
)
_GATED = {"mlp.gated": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
HF_DINOV2_GATED = replace(HF_DINOV2, block_modules={**HF_DINOV2.block_modules, **_GATED})
HF5_DINOV2 = _in_memory(HF_DINOV2, "encoder.layer.{}")
HF5_DINOV2_GATED = replace(
    HF5_DINOV2,
    block_modules={
        **HF5_DINOV2.block_modules,
        "mlp.gate": "mlp.gate_proj",
        "mlp.fc1": "mlp.up_proj",
        "mlp.fc2": "mlp.down_proj",
    },
)
