"""The names of timm, which DINO, MAE, RETFound and DeiT share, and those of DINOv2's own files.

Of networks with layer scales they are timm's alone.

DINOv2's own differ in three ways: blocks may lie in chunks (``blocks.0.5.``), registers have another name, and so have
the layers of a gated MLP.
"""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

TIMM = ViTLayout(
    title="timm, DeiT, MAE and RETFound",
    cls="cls_token",
    registers="reg_token",
    position="pos_embed",
    rows=("patches", "all"),
    modules={"embed.patch": "patch_embed.proj", "embed.norm": "norm_pre", "norm": "norm"},
    block="blocks.{}",
    block_modules=same("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"),
    pool_modules={
        "probe": "attn_pool.latent",
        "attn.q": "attn_pool.q",
        "attn.kv": "attn_pool.kv",
        "attn.proj": "attn_pool.proj",
        "norm": "attn_pool.norm",
        "mlp.fc1": "attn_pool.mlp.fc1",
        "mlp.fc2": "attn_pool.mlp.fc2",
    },
    mean_norm="fc_norm",
    head="head",
    leftovers=(r"decoder_", r"mask_token$", r"head\.", r"pre_logits\."),
)
TIMM_SCALED = replace(
    TIMM,
    title="timm with layer scales",
    resizing="smoothed",
    block_modules={**TIMM.block_modules, **same("ls1.gamma", "ls2.gamma")},
)
TIMM_GATED = replace(
    TIMM_SCALED,
    title="timm with packed gated MLPs",
    block_modules={**TIMM_SCALED.block_modules, "mlp.gated": "mlp.fc1"},
)
TIMM_SPLIT_GATED = replace(
    TIMM_SCALED,
    title="timm with gated MLPs",
    block_modules={**TIMM_SCALED.block_modules, "mlp.gate": "mlp.fc1_g", "mlp.fc1": "mlp.fc1_x"},
)
# The token that was distilled into attends like a register, and has a position. What classifies is the mean of two
# heads, of which ours is none.
TIMM_DISTILLED = replace(
    TIMM,
    title="timm's and DeiT's distilled",
    registers="dist_token",
    rows=("all",),
    head=None,
    leftovers=(*TIMM.leftovers, r"head_dist\."),
)
DEIT_III = replace(
    TIMM,
    title="DeiT III's own",
    resizing="plain",
    block_modules={**TIMM.block_modules, "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"},
)
DINOV2 = replace(
    TIMM_SCALED,
    title="DINOv2's own",
    registers="register_tokens",
    rows=("class",),
    resizing=None,
    marks=("mask_token", "blocks.0.ls1.gamma"),  # timm's files of it leave the first out
    mean_norm=None,
    renames=((r"\bblocks\.\d+\.(\d+)\.", r"blocks.\1."),),
)
DINOV2_GATED = replace(DINOV2, block_modules={**DINOV2.block_modules, "mlp.gated": "mlp.w12", "mlp.fc2": "mlp.w3"})
