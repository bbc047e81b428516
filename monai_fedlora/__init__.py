"""Personalised, parameter-efficient federated fine-tuning of vision foundation models on MONAI bundles.

The public names are below; ``import monai_fedlora as fl`` reads none of their modules, which come with their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fedlora.api.attached import Attached, attach
    from monai_fedlora.api.federation import Run, federate
    from monai_fedlora.api.flare_recipe import recipe
    from monai_fedlora.api.job_simulation import simulate
    from monai_fedlora.api.leakage_audit import Audit, audit
    from monai_fedlora.api.method_choice import MethodChoice, method
    from monai_fedlora.api.methods_compared import Compared, compare
    from monai_fedlora.api.model_export import Exported, export
    from monai_fedlora.api.run_report import report
    from monai_fedlora.api.site_data import SiteData

__version__ = "0.1.0"
__all__ = [
    "Attached",
    "Audit",
    "Compared",
    "Exported",
    "MethodChoice",
    "Run",
    "SiteData",
    "attach",
    "audit",
    "compare",
    "export",
    "federate",
    "method",
    "recipe",
    "report",
    "simulate",
]

_MODULES = {
    "Attached": "api.attached",
    "Audit": "api.leakage_audit",
    "Compared": "api.methods_compared",
    "Exported": "api.model_export",
    "MethodChoice": "api.method_choice",
    "Run": "api.federation",
    "SiteData": "api.site_data",
    "attach": "api.attached",
    "audit": "api.leakage_audit",
    "compare": "api.methods_compared",
    "export": "api.model_export",
    "federate": "api.federation",
    "method": "api.method_choice",
    "recipe": "api.flare_recipe",
    "report": "api.run_report",
    "simulate": "api.job_simulation",
}
"""Where each public name comes from; the same as the imports above, which type checkers and editors read."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
