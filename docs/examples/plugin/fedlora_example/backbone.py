"""A small vision transformer of MONAI's; its weights are a safetensors file of its own state dict."""

from __future__ import annotations

from monai.networks.nets import ViT

from monai_fedlora.networks.catalogue import Architecture


def build(*, out_chans: int, n_frames: int) -> ViT:
    """The network with new weights; ``n_frames`` is of cines alone."""
    return ViT(
        in_channels=3,
        img_size=(64, 64),
        patch_size=(16, 16),
        hidden_size=48,
        mlp_dim=96,
        num_layers=3,
        num_heads=4,
        classification=True,
        num_classes=out_chans,
        spatial_dims=2,
        post_activation="none",
    )


MONAI_VIT_TINY = Architecture(
    name="monai_vit_tiny",
    source='Cardoso et al., "MONAI: An open-source framework for deep learning in healthcare", arXiv 2211.02701',
    image_size=(64, 64),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    build=build,
    head=("classification_head",),
    blocks="blocks",
)
"""In a plan's or a bundle's ``size``."""
