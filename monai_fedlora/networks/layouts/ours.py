"""The names of this package."""

from __future__ import annotations

from monai_fedlora.networks.layouts.vit_layout import ViTLayout, same

OURS = ViTLayout(
    title="this package's own",
    cls="embed.cls",
    registers="embed.registers",
    position="embed.position",
    rows=("patches",),
    modules=same("embed.patch", "embed.norm", "norm"),
    pool_modules={
        name: f"attention_pool.{name}"
        for name in ("probe", "attn.q", "attn.k", "attn.v", "attn.proj", "norm", "mlp.fc1", "mlp.fc2")
    },
    block="blocks.{}",
    block_modules=same("norm1", "attn.q", "attn.k", "attn.v", "attn.proj", "norm2", "mlp.gate", "mlp.fc1", "mlp.fc2")
    | same("ls1.gamma", "ls2.gamma"),
    mean_norm="norm",
    head="head",
    leftovers=(r"head\.",),
)
