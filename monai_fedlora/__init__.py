"""Personalised, parameter-efficient federated fine-tuning of vision foundation models on MONAI bundles.

The public names are below; ``import monai_fedlora as fl`` reads none of their modules, which come with their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fedlora.api.attached import Attached, attach
    from monai_fedlora.api.federation import Run, federate
    from monai_fedlora.api.flare_recipe import recipe
    from monai_fedlora.api.method_choice import MethodChoice, method
    from monai_fedlora.api.site_data import SiteData

__version__ = "0.1.0"
__all__ = ["Attached", "MethodChoice", "Run", "SiteData", "attach", "federate", "method", "recipe"]

_MODULES = {
    "Attached": "api.attached",
    "MethodChoice": "api.method_choice",
    "Run": "api.federation",
    "SiteData": "api.site_data",
    "attach": "api.attached",
    "federate": "api.federation",
    "method": "api.method_choice",
    "recipe": "api.flare_recipe",
}
"""Where each public name comes from; the same as the imports above, which type checkers and editors read."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
