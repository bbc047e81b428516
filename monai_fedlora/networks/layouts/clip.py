"""The names of CLIP and SigLIP: transformers', and those of OpenCLIP, which OpenAI's own files share."""

from __future__ import annotations

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

CLIP = ViTLayout(
    title="transformers' CLIP and SigLIP",
    cls="embeddings.class_embedding",
    position="embeddings.position_embedding.weight",
    rows=("class",),
    resizing="plain",
    modules={"embed.patch": "embeddings.patch_embedding", "embed.norm": "pre_layrnorm", "norm": "post_layernorm"},
    block="encoder.layers.{}",
    block_modules={
        "norm1": "layer_norm1",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.proj": "self_attn.out_proj",
        "norm2": "layer_norm2",
        **same("mlp.fc1", "mlp.fc2"),
    },
    pool_modules={
        "probe": "head.probe",
        "attn.qkv": "head.attention.in_proj_{}",
        "attn.proj": "head.attention.out_proj",
        "norm": "head.layernorm",
        "mlp.fc1": "head.mlp.fc1",
        "mlp.fc2": "head.mlp.fc2",
    },
    leftovers=(r"embeddings\.position_ids$", r"classifier\."),
)

OPEN_CLIP = ViTLayout(
    title="OpenCLIP's and OpenAI's CLIP",
    cls="class_embedding",
    position="positional_embedding",
    rows=("class",),
    resizing="smoothed",
    modules={"embed.patch": "conv1", "embed.norm": "ln_pre", "norm": "ln_post"},
    block="transformer.resblocks.{}",
    block_modules={
        "norm1": "ln_1",
        "attn.qkv": "attn.in_proj_{}",
        "attn.proj": "attn.out_proj",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "ls1.gamma": "ls_1.gamma",
        "ls2.gamma": "ls_2.gamma",
    },
    leftovers=(r"proj$",),
)
