"""Cines of unknown orientation, and bundles of earlier versions that take no orientation."""

from __future__ import annotations

from torch import Tensor

from monai_fedlora.clinic.opened_model import OpenedModel
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.studies.study import CINE
from monai_fedlora.transforms.orientation import N_ORDERS, all_orders

NOT_ORIENTED = (
    "this bundle was exported by an earlier version and knows no orientation: the same images stored in another order "
    "of axes can get another answer; export the model again"
)
NOT_KNOWN = (
    f"the file does not tell how the patient lies; the answer is the average over all {N_ORDERS} ways in which its "
    "axes may lie"
)
ANOTHER_ORDER = "the axes in another order"


def order_notes(classifier: OpenedModel, loaded: LoadedStudy) -> tuple[str, ...]:
    """Notes on the orientation in which the model sees a cine; none where the file gives it and the bundle uses it."""
    if classifier.modality != CINE:
        return ()
    if not classifier.takes_affine:
        return (NOT_ORIENTED,)
    return (NOT_KNOWN,) if _has_no_order(classifier, loaded) else ()


def in_other_orders(classifier: OpenedModel, loaded: LoadedStudy, prepared: Tensor) -> list[tuple[str, Tensor]]:
    """The network's input in all orders of the axes, where the orientation is unknown; otherwise an empty list.

    Args:
        classifier: the model.
        loaded: the study.
        prepared: the network's input in the first order, from :meth:`OpenedModel.prepare`.
    """
    if not _has_no_order(classifier, loaded):
        return []
    return [(ANOTHER_ORDER, image) for image in all_orders(prepared)]


def _has_no_order(classifier: OpenedModel, loaded: LoadedStudy) -> bool:
    return loaded.orientation == "placeholder" and classifier.takes_affine
