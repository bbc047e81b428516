"""Federated methods and their registry."""

from monai_fedlora.methods import (
    baselines,
    clip_adapter,
    ditto,
    feddpa,
    fedopal,
    fedper,
    fedprox,
    fedsa_lora,
    ffa_lora,
    flexlora,
    flora,
    frozen,
    full,
    lora,
    pfedst,
    prompt_tuning,
)
from monai_fedlora.methods.base import Method, get_method, method_names, register

__all__ = [
    "Method",
    "baselines",
    "clip_adapter",
    "ditto",
    "feddpa",
    "fedopal",
    "fedper",
    "fedprox",
    "fedsa_lora",
    "ffa_lora",
    "flexlora",
    "flora",
    "frozen",
    "full",
    "get_method",
    "lora",
    "method_names",
    "pfedst",
    "prompt_tuning",
    "register",
]
