"""The names of torchvision's ViT, of today and of before version 0.13."""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.layouts.vit_layout import ViTLayout

TORCHVISION = ViTLayout(
    title="torchvision's ViT",
    cls="class_token",
    position="encoder.pos_embedding",
    rows=("class",),
    resizing="corners",
    modules={"embed.patch": "conv_proj", "norm": "encoder.ln"},
    block="encoder.layers.encoder_layer_{}",
    block_modules={
        "norm1": "ln_1",
        "attn.qkv": "self_attention.in_proj_{}",
        "attn.proj": "self_attention.out_proj",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    },
    head="heads.head",
    leftovers=(r"heads\.",),
)
TORCHVISION_OLD = replace(
    TORCHVISION,
    block_modules={**TORCHVISION.block_modules, "mlp.fc1": "mlp.linear_1", "mlp.fc2": "mlp.linear_2"},
)
