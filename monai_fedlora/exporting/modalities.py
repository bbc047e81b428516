"""Choose the modality of a finished run's images, and what its models answer."""

from __future__ import annotations

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.answer import Answer, Probabilities
from monai_fedlora.exporting.cine_modality import Cine
from monai_fedlora.exporting.mask_answer import Masks
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.photograph_modality import Photograph
from monai_fedlora.exporting.value_answer import Values
from monai_fedlora.federated.plan import Plan
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.resources import bundle_setting


def modality_of(plan: Plan) -> Modality:
    """The modality of the images of a plan's backbone.

    Raises:
        ConfigError: this installation does not know the plan's backbone, bundle or style of photographs.
        ExportError: the backbone has no normalisation of photographs.
    """
    chosen = architecture(plan.size)
    if chosen.spacing is not None:
        return Cine(architecture=chosen, spacing=chosen.spacing)
    if chosen.mean is None or chosen.std is None:
        raise ExportError(f"nothing says how the backbone {chosen.name} wants photographs normalised")
    style = plan.training.get("style") or bundle_setting(plan.bundle, "train", "style")
    mean, std = (plan.training.get(name) for name in ("image_mean", "image_std"))
    return Photograph(
        architecture=chosen,
        style=style,
        mean=tuple(mean or chosen.mean),
        std=tuple(std or chosen.std),
        masks=plan.task_of.gives_masks,
    )


def answer_of(plan: Plan) -> Answer:
    """What the models of a plan answer."""
    names, task = tuple(plan.classes), plan.task_of
    if task.gives_masks:
        return Masks(names=names)
    return Probabilities(names=names) if task.gives_logits else Values(names=names, scale=plan.scale)
