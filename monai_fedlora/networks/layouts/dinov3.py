"""The names of DINOv3: transformers', and its authors' own."""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

HF_DINOV3 = ViTLayout(
    title="transformers' DINOv3",
    cls="embeddings.cls_token",
    registers="embeddings.register_tokens",
    position=None,
    modules={"embed.patch": "embeddings.patch_embeddings", "norm": "norm"},
    block="layer.{}",
    block_modules={
        **same("norm1", "norm2"),
        "attn.q": "attention.q_proj",
        "attn.k": "attention.k_proj",
        "attn.v": "attention.v_proj",
        "attn.proj": "attention.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.fc1": "mlp.up_proj",
        "mlp.fc2": "mlp.down_proj",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    },
    leftovers=(r"embeddings\.mask_token$",),
)
# The names of transformers 5's own modules, under which a state dict taken from a model in memory comes.
HF5_DINOV3 = replace(HF_DINOV3, block="model.layer.{}")

# The bias of keys is held, and masked to nothing where it is used. Periods follow from the width of a head; the second
# norm is of the small crops of training alone.
DINOV3 = ViTLayout(
    title="DINOv3's own",
    cls="cls_token",
    registers="storage_tokens",
    position=None,
    modules={"embed.patch": "patch_embed.proj", "norm": "norm"},
    block="blocks.{}",
    block_modules=same("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", "ls1.gamma", "ls2.gamma"),
    unused=("attn.k.bias",),
    leftovers=(r"mask_token$", r"rope_embed\.periods$", r"blocks\.\d+\.attn\.qkv\.bias_mask$", r"local_cls_norm\."),
)
DINOV3_GATED = replace(
    DINOV3, block_modules={**DINOV3.block_modules, "mlp.gate": "mlp.w1", "mlp.fc1": "mlp.w2", "mlp.fc2": "mlp.w3"}
)
