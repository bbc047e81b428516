"""What an exported regression model answers: numbers in their units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_fedlora.data.value_scale import Scale
from monai_fedlora.exporting.answer import Answer, Writing
from monai_fedlora.exporting.classifier import eager_classifier
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.verify import assert_equal
from monai_fedlora.measures.heart_function import UNITS

VALUES_NAME = "values.csv"
VALUES_FORMAT = "values"
"""Format of the output in the metadata of a model that gives numbers."""


@dataclass(frozen=True, kw_only=True)
class Values(Answer):
    """Numbers, such as an ejection fraction.

    Attributes:
        names: of the values.
        scale: that the network of the state dictionary gives them on; empty where it gives them as they are.
    """

    scale: Scale = ()
    kind = "Regression"
    verb = "estimates numbers of"
    logits = "values in their units"
    scripted_output = logits
    called = "values in their units"
    unmeasured_leakage = (
        "the membership inference attacks of this package work on class probabilities, and this model gives numbers; "
        "that says nothing of what its weights reveal"
    )

    @property
    def plain_logits(self) -> str:  # type: ignore[override]
        """Numbers on the scale, and how they become values."""
        said = [
            f"{name} is {spread:g} times the number plus {centre:g}"
            for name, (centre, spread) in zip(self.names, self.scale, strict=bool(self.scale))
        ]
        return f"numbers on a scale: {', '.join(said)}" if said else self.logits

    @property
    def plain_remark(self) -> str:  # type: ignore[override]
        """The same as a clause of the model card."""
        return f", which gives {self.plain_logits}"

    @property
    def task(self) -> str:
        """Of which values."""
        return f"to {' / '.join(self._said())}"

    @property
    def returned(self) -> str:
        """Which numbers are returned."""
        return f"The network returns one number for each of {', '.join(self._said())}."

    @property
    def limitations(self) -> tuple[str, ...]:
        """A number has no interval, and every image gets one."""
        return (
            "A number comes without an interval of its own: how far the model was off on the test cases of its site is "
            "told by its error, its bias and its limits of agreement, between which 95 % of such differences lie if "
            "they are about normal. Large and small values tend to be drawn to the middle of the training cases.",
            "Images that the model was not made for get numbers too, and nothing in it tells that they are unusual.",
        )

    def labels(self) -> dict[str, str]:
        """The values by number."""
        said = ", ".join(f"channel {index} is {word}" for index, word in enumerate(self._said()))
        return {"label_classes": said, "pred_classes": said}

    def formats(self, modality: Modality) -> dict[str, Any]:
        """The same numbers in both."""
        values = {
            "type": "values",
            "format": VALUES_FORMAT,
            "num_channels": len(self.names),
            "spatial_shape": [],
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": False,
            "channel_def": {str(index): word for index, word in enumerate(self.names)},
        }
        return {"outputs": {"pred": values}, "post_processed_outputs": {"pred": values}}

    def whole(self, network: nn.Module, modality: Modality) -> nn.Module:
        """The same module as of a classifier, which gives the network's numbers."""
        return eager_classifier(network, modality)

    def compare(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Compare numbers."""
        assert_equal(found, expected, f"{what} gives other values")

    def writing(self, modality: Modality) -> Writing:
        """A row of values."""
        return values_writing(self.names)

    def written_text(self, modality: Modality) -> str:
        """The table."""
        return f"`PREDICTIONS/{VALUES_NAME}` then has one row per study with {', '.join(self._said())}."

    def _said(self) -> list[str]:
        return [f"{name} in {UNITS[name]}" if name in UNITS else name for name in self.names]


def value_column(name: str) -> str:
    """Column of a value: that of a heart names its unit, those of a csv have names of their makers' own.

    Examples:
        >>> value_column("lv_ef"), value_column("lv_edv"), value_column("wall_mm")
        ('lv_ef_percent', 'lv_edv_ml', 'wall_mm')
    """
    if name not in UNITS:
        return name
    return f"{name}_{'percent' if UNITS[name] == '%' else UNITS[name].lower()}"


def values_writing(names: Sequence[str]) -> Writing:
    """How the inference configuration writes a row with each value.

    Args:
        names: of the values.
    """
    return Writing(
        columns=[value_column(name) for name in names],
        cells="[format(value, '.6g') for value in engine.state.output[0]['pred'].flatten().tolist()]",
        table=VALUES_NAME,
        done="measured",
    )
