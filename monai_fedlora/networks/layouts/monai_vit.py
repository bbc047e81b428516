"""The names of MONAI's ViT, which ViTAutoEnc and UNETR have as their encoder."""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

MONAI = ViTLayout(
    title="MONAI's ViT",
    cls="cls_token",
    position="patch_embedding.position_embeddings",
    rows=("patches",),
    resizing="plain",  # (ours) its own network takes images of one size
    modules={"embed.patch": "patch_embedding.patch_embeddings", "norm": "norm"},
    block="blocks.{}",
    block_modules={
        **same("norm1", "attn.qkv", "norm2"),
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.linear1",
        "mlp.fc2": "mlp.linear2",
    },
    head="classification_head",
    norm_eps=1e-5,
    # Some files hold a class token inside the patch embedding, of which the network makes no use.
    leftovers=(
        r"patch_embedding\.cls_token$",
        r"blocks\.\d+\.(norm_)?cross_attn\.",
        r"classification_head\.",
        r"conv3d_transpose(_1)?\.",
    ),
)
MONAI_PERCEPTRON = replace(
    MONAI, modules={**MONAI.modules, "embed.patch": "patch_embedding.patch_embeddings.1"}, patch_linear=True
)
