"""The layouts in which vision transformers are published, a module for each library or family."""

from __future__ import annotations

from monai_fedlora.networks.layouts import clip, dinov3, hf_vit, monai_vit, ours, timm_vit, torchvision_vit
from monai_fedlora.networks.layouts.vit_layout import ViTLayout

LAYOUTS: tuple[ViTLayout, ...] = (
    ours.OURS,
    *(hf_vit.HF_VIT, hf_vit.HF5_VIT, hf_vit.HF_DEIT, hf_vit.HF5_DEIT),
    *(hf_vit.HF_DINOV2, hf_vit.HF_DINOV2_GATED, hf_vit.HF5_DINOV2, hf_vit.HF5_DINOV2_GATED),
    *(dinov3.HF_DINOV3, dinov3.HF5_DINOV3, dinov3.DINOV3, dinov3.DINOV3_GATED),
    *(clip.CLIP, clip.OPEN_CLIP),
    *(timm_vit.TIMM, timm_vit.TIMM_SCALED, timm_vit.TIMM_GATED, timm_vit.TIMM_SPLIT_GATED),
    *(timm_vit.TIMM_DISTILLED, timm_vit.DEIT_III),
    *(timm_vit.DINOV2, timm_vit.DINOV2_GATED),
    *(torchvision_vit.TORCHVISION, torchvision_vit.TORCHVISION_OLD),
    *(monai_vit.MONAI, monai_vit.MONAI_PERCEPTRON),
)
"""All of them; one that describes more of a file's tensors goes before one that describes fewer, and else the first."""
