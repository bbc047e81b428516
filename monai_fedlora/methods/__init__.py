"""Federated methods and their registry."""

from monai_fedlora.methods import full, lora
from monai_fedlora.methods.base import Method, get_method, method_names, register

__all__ = ["Method", "full", "get_method", "lora", "method_names", "register"]
