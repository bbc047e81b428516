"""A cine whose file does not tell how the patient lies, or whose bundle does not ask."""

from __future__ import annotations

from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
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


def order_notes(classifier: Classifier, loaded: LoadedStudy) -> tuple[str, ...]:
    """What a reader should know of the order in which the model sees the axes; nothing where the file says it."""
    if classifier.modality != CINE:
        return ()
    if not classifier.takes_affine:
        return (NOT_ORIENTED,)
    return (NOT_KNOWN,) if _has_no_order(classifier, loaded) else ()


def in_other_orders(classifier: Classifier, loaded: LoadedStudy, prepared: Tensor) -> list[tuple[str, Tensor]]:
    """What the network sees in every order of the axes, where none is the right one; else nothing.

    Args:
        classifier: the model.
        loaded: the study.
        prepared: what the network sees of it in the first order.
    """
    if not _has_no_order(classifier, loaded):
        return []
    return [(ANOTHER_ORDER, image) for image in all_orders(prepared)]


def _has_no_order(classifier: Classifier, loaded: LoadedStudy) -> bool:
    return loaded.orientation == "placeholder" and classifier.takes_affine
