"""The metadata's entry on what a model was trained on: synthetic or real images, and which backbone."""

from __future__ import annotations

from typing import Any

from monai_fedlora.data.origin import PUBLISHED, SYNTHETIC, UNKNOWN, together
from monai_fedlora.exporting.finished import FinishedModel, backbone_name
from monai_fedlora.federated.plan import OWN_NETWORK, Plan
from monai_fedlora.networks.catalogue import pinned_demo_weights
from monai_fedlora.networks.weights import HUB_PREFIX


def training_data(model: FinishedModel, *, backbone: str) -> dict[str, Any]:
    """Return the entry ``training_data`` of a model's metadata.

    Args:
        model: what is exported.
        backbone: source of its backbone.

    Returns:
        ``kind``: of all training images; ``name`` and ``source``: of the site's own images; ``parts``: kinds of the
        ``site``'s own images and of all images that trained the ``shared`` part (None if there is no such part), and
        the weights that the shared part had at the ``start`` (None if random); ``backbone``: its ``name`` and the
        ``kind`` of its pre-training images.
    """
    own, start = model.origin, model.plan.start
    kinds = {"site": own.kind if model.site else None, "shared": model.shared_origin}
    found = [*kinds.values(), start.kind if start is not None and model.shared_origin is not None else None]
    return {
        "kind": together(kind for kind in found if kind is not None),
        "name": own.name,
        "source": own.source,
        "parts": {**kinds, "start": start.to_json() if start is not None else None},
        "backbone": {"name": backbone_name(backbone), "kind": backbone_kind(model.plan, backbone)},
    }


def backbone_kind(plan: Plan, source: str) -> str:
    """Kind of a backbone's pre-training images: "synthetic" (packaged ones), "published" (a hub's) or "unknown"."""
    if plan.size != OWN_NETWORK and pinned_demo_weights(plan.size, plan.backbone_sha256) is not None:
        return SYNTHETIC
    return PUBLISHED if source.startswith(HUB_PREFIX) else UNKNOWN
