"""What is said of a cine whose file does not tell how the patient lies."""

from __future__ import annotations

from torch import Tensor

from monai_fedlora.clinic.bundle import CINE, Classifier
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.transforms.orientation import N_ORDERS, all_orders

NOT_ORIENTED = (
    "this bundle was exported by an earlier version and knows no orientation: the same images stored in another order "
    "of axes can get another answer; export the model again"
)


def orders_text(
    classifier: Classifier, loaded: LoadedStudy, prepared: Tensor
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Look at the answers in all orders of the axes.

    Args:
        classifier: the model.
        loaded: the study.
        prepared: what the network sees of it in the first order.

    Returns:
        Notes, and doubts: that the class changes with the order.

    Raises:
        DataError: the model refuses the image.
    """
    if classifier.modality != CINE:
        return (), ()
    if not classifier.takes_affine:
        return (NOT_ORIENTED,), ()
    if loaded.orientation != "placeholder":
        return (), ()
    answers = classifier.batch_log_probabilities(all_orders(prepared)).exp()
    classes = sorted({int(index) for index in answers.argmax(dim=1)})
    low, high = answers.amin(dim=0).tolist(), answers.amax(dim=0).tolist()
    spread = ", ".join(
        f"{name} {first:.2f} to {last:.2f}" for name, first, last in zip(classifier.classes, low, high, strict=True)
    )
    why = f"the file does not tell how the patient lies; over all {N_ORDERS} orders of its axes the model says {spread}"
    if len(classes) > 1:
        return (), (f"{why}, so that the class depends on the order",)
    return (f"{why}; the answer is that of their mean logits",), ()
