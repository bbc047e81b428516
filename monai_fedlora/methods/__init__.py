"""Federated methods and their registry: every module of this folder is imported, and registers the methods it has."""

from importlib import import_module
from pkgutil import iter_modules

from monai_fedlora.methods.base import METHODS, Method, get_method, method_names, register

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "get_method", "method_names", "register"]
