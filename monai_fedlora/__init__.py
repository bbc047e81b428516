"""Personalised, parameter-efficient federated fine-tuning of vision foundation models on MONAI bundles.

The public names are below; ``import monai_fedlora as fl`` reads none of their modules, which come with their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fedlora.api.attached import Attached, attach
    from monai_fedlora.api.backbone_description import DescribedBackbone, FittingSize, describe_backbone
    from monai_fedlora.api.backbone_pretraining import (
        Pretrained,
        pretrain,
        pretrain_clip,
        pretrain_supervised,
    )
    from monai_fedlora.api.bundle_check import Checked, check
    from monai_fedlora.api.bundle_prediction import Predicted, predict
    from monai_fedlora.api.data_preparation import PreparedSites, prepare
    from monai_fedlora.api.exported_model import Exported
    from monai_fedlora.api.federation import Run, federate
    from monai_fedlora.api.flare_recipe import recipe
    from monai_fedlora.api.job_simulation import Simulated, simulate
    from monai_fedlora.api.leakage_audit import Audit, audit
    from monai_fedlora.api.method_choice import MethodChoice, method
    from monai_fedlora.api.methods_compared import Compared, compare
    from monai_fedlora.api.model_export import export
    from monai_fedlora.api.phantom_data import phantom
    from monai_fedlora.api.run_report import report
    from monai_fedlora.api.site_data import SiteData
    from monai_fedlora.api.written_job import WrittenJob, write_job
    from monai_fedlora.rendering.tables import Table

__version__ = "0.1.0"
__all__ = [
    "Attached",
    "Audit",
    "Checked",
    "Compared",
    "DescribedBackbone",
    "Exported",
    "FittingSize",
    "MethodChoice",
    "Predicted",
    "PreparedSites",
    "Pretrained",
    "Run",
    "Simulated",
    "SiteData",
    "Table",
    "WrittenJob",
    "attach",
    "audit",
    "check",
    "compare",
    "describe_backbone",
    "export",
    "federate",
    "method",
    "phantom",
    "predict",
    "prepare",
    "pretrain",
    "pretrain_clip",
    "pretrain_supervised",
    "recipe",
    "report",
    "simulate",
    "write_job",
]

_MODULES = {
    "Attached": "api.attached",
    "Audit": "api.leakage_audit",
    "Checked": "api.bundle_check",
    "Compared": "api.methods_compared",
    "DescribedBackbone": "api.backbone_description",
    "Exported": "api.exported_model",
    "FittingSize": "api.backbone_description",
    "MethodChoice": "api.method_choice",
    "Predicted": "api.bundle_prediction",
    "PreparedSites": "api.data_preparation",
    "Pretrained": "api.backbone_pretraining",
    "Run": "api.federation",
    "Simulated": "api.job_simulation",
    "SiteData": "api.site_data",
    "Table": "rendering.tables",
    "WrittenJob": "api.written_job",
    "attach": "api.attached",
    "audit": "api.leakage_audit",
    "check": "api.bundle_check",
    "compare": "api.methods_compared",
    "describe_backbone": "api.backbone_description",
    "export": "api.model_export",
    "federate": "api.federation",
    "method": "api.method_choice",
    "phantom": "api.phantom_data",
    "predict": "api.bundle_prediction",
    "prepare": "api.data_preparation",
    "pretrain": "api.backbone_pretraining",
    "pretrain_clip": "api.backbone_pretraining",
    "pretrain_supervised": "api.backbone_pretraining",
    "recipe": "api.flare_recipe",
    "report": "api.run_report",
    "simulate": "api.job_simulation",
    "write_job": "api.written_job",
}
"""Where each public name comes from; the same as the imports above, which type checkers and editors read."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
