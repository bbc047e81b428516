"""What a model was trained on, as its metadata say it: synthetic or real images, and which backbone lies below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monai_fedlora.data.origin import PUBLISHED, SYNTHETIC, UNKNOWN, together
from monai_fedlora.federated.plan import OWN_NETWORK
from monai_fedlora.networks.catalogue import demo_weights
from monai_fedlora.networks.weights import HUB_PREFIX, backbone_sha256

if TYPE_CHECKING:
    from monai_fedlora.exporting.finished import FinishedModel
    from monai_fedlora.federated.plan import Plan


def training_data(model: FinishedModel, *, backbone: str) -> dict[str, Any]:
    """Return the entry ``training_data`` of a model's metadata.

    Args:
        model: what is exported.
        backbone: source of its backbone.

    Returns:
        ``kind`` of all images that moved what was trained; ``name`` and ``source`` of the site's own; ``parts``: the
        kinds of the ``site``'s own images and of all that moved what is ``shared``, None where there is no such part,
        and what the shared part had to ``start`` from, None where a seed drew it; ``backbone``: its ``name`` and the
        ``kind`` of what it was pre-trained on.
    """
    own, start = model.origin, model.plan.start
    kinds = {"site": own.kind if model.site else None, "shared": model.shared_origin}
    found = [*kinds.values(), start.kind if start is not None and model.shared_origin is not None else None]
    return {
        "kind": together(kind for kind in found if kind is not None),
        "name": own.name,
        "source": own.source,
        "parts": {**kinds, "start": start.to_json() if start is not None else None},
        "backbone": {"name": _name(backbone), "kind": backbone_kind(model.plan, backbone)},
    }


def backbone_kind(plan: Plan, source: str) -> str:
    """What a backbone was pre-trained on: "synthetic" for the packaged ones, "published" for a hub's, or "unknown"."""
    packaged = demo_weights(plan.size) if plan.size != OWN_NETWORK else None
    if packaged is not None and backbone_sha256(packaged) == plan.backbone_sha256:
        return SYNTHETIC
    return PUBLISHED if source.startswith(HUB_PREFIX) else UNKNOWN


def _name(source: str) -> str:
    from monai_fedlora.exporting.finished import backbone_name

    return backbone_name(source)
