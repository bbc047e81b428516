"""Federated methods and their registry."""

from monai_fedlora.methods import (
    alone,
    ditto,
    feddpa,
    fedopal,
    fedper,
    fedprox,
    fedsa_lora,
    ffa_lora,
    flexlora,
    flora,
    full,
    lora,
    pfedst,
)
from monai_fedlora.methods.base import Method, get_method, method_names, register

__all__ = [
    "Method",
    "alone",
    "ditto",
    "feddpa",
    "fedopal",
    "fedper",
    "fedprox",
    "fedsa_lora",
    "ffa_lora",
    "flexlora",
    "flora",
    "full",
    "get_method",
    "lora",
    "method_names",
    "pfedst",
    "register",
]
