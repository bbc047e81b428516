"""The parts of an export that depend on what a model answers: probabilities of classes, or masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from monai_fedlora.exporting.classifier import eager_classifier
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.verify import assert_equal

PREDICTIONS_NAME = "predictions.csv"


@dataclass(frozen=True, kw_only=True)
class Writing:
    """The part of an inference configuration that writes what the model answers.

    Attributes:
        columns: of the table, between the study and the error.
        cells: expression for the list of their values, of ``engine``, the evaluator that has run a study.
        table: name of the file.
        done: what happened to a study, as in "could not be classified".
        postprocessing: transforms of the model's output.
        imports: import statements for its expressions.
        entries: further entries of the configuration by name.
        clear: expressions that remove what an earlier run has written.
    """

    columns: Sequence[str]
    cells: str
    table: str = PREDICTIONS_NAME
    done: str = "classified"
    postprocessing: Sequence[Mapping[str, Any]] = ()
    imports: Sequence[str] = ()
    entries: Mapping[str, Any] = field(default_factory=dict)
    clear: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Answer(ABC):
    """What a model answers, with the texts that an export needs.

    Attributes:
        names: of the classes or structures.
        kind: the task as a noun.
        verb: what the model does with a study.
        logits: what the network returns, for the metadata.
        plain_logits: what the network returns with the weights of the state dictionary, for the metadata.
        plain_remark: the same as a clause of the model card.
        scripted_output: what the scripted model returns, for the metadata.
        called: the same in a word.
        unmeasured_leakage: why the membership audit does not run on such answers; empty if it does.
    """

    names: tuple[str, ...]
    kind: ClassVar[str]
    verb: ClassVar[str]
    logits: ClassVar[str]
    plain_logits: ClassVar[str]
    plain_remark: ClassVar[str] = ""
    scripted_output: ClassVar[str]
    called: ClassVar[str]
    unmeasured_leakage: ClassVar[str] = ""

    @property
    @abstractmethod
    def task(self) -> str:
        """What is asked of a study: goes behind the kind of image."""

    @property
    @abstractmethod
    def returned(self) -> str:
        """One sentence on what the model returns."""

    @property
    @abstractmethod
    def limitations(self) -> tuple[str, ...]:
        """Of every model with such answers."""

    @abstractmethod
    def labels(self) -> dict[str, str]:
        """The entries ``label_classes`` and ``pred_classes`` of the metadata."""

    @abstractmethod
    def formats(self, modality: Modality) -> dict[str, Any]:
        """The entries ``outputs`` and ``post_processed_outputs`` of the metadata's ``network_data_format``."""

    @abstractmethod
    def whole(self, network: nn.Module, modality: Modality) -> nn.Module:
        """Preprocessing, network and what follows it, as a Python module in evaluation mode, which can be scripted."""

    @abstractmethod
    def compare(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Compare two outputs of the whole model.

        Raises:
            ExportError: they differ.
        """

    @abstractmethod
    def writing(self, modality: Modality) -> Writing:
        """How the inference configuration writes answers."""

    @abstractmethod
    def written_text(self, modality: Modality) -> str:
        """What a run of the inference configuration leaves, for the model card."""


@dataclass(frozen=True, kw_only=True)
class Probabilities(Answer):
    """One class of several, with calibrated probabilities."""

    kind = "Classification"
    verb = "classifies"
    logits = "logits, divided by the temperature"
    plain_logits = "logits, not divided by the temperature"
    plain_remark = ", whose logits are not calibrated"
    scripted_output = logits
    called = "logits"

    @property
    def task(self) -> str:
        """As which class."""
        return f"as {' / '.join(self.names)}"

    @property
    def returned(self) -> str:
        """How probabilities follow from logits."""
        return "The network returns logits; their softmax are the probabilities."

    @property
    def limitations(self) -> tuple[str, ...]:
        """No other class can be the answer."""
        return ("Knows only the classes listed; every study is given one of them.",)

    def labels(self) -> dict[str, str]:
        """The classes by number."""
        return {
            "label_classes": ", ".join(f"{index} is {word}" for index, word in enumerate(self.names)),
            "pred_classes": ", ".join(f"channel {index} is {word}" for index, word in enumerate(self.names)),
        }

    def formats(self, modality: Modality) -> dict[str, Any]:
        """Logits, and probabilities behind them."""
        classes = {
            "format": "classes",
            "num_channels": len(self.names),
            "spatial_shape": [],
            "dtype": "float32",
        }
        known = {"is_patch_data": False, "channel_def": {str(index): word for index, word in enumerate(self.names)}}
        return {
            "outputs": {"pred": {"type": "logits", **classes, "value_range": [], **known}},
            "post_processed_outputs": {"pred": {"type": "probabilities", **classes, "value_range": [0, 1], **known}},
        }

    def whole(self, network: nn.Module, modality: Modality) -> nn.Module:
        """The classifier, with ``assess`` if the network has it."""
        return eager_classifier(network, modality)

    def compare(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Compare logits."""
        assert_equal(found, expected, f"{what} gives other logits")

    def writing(self, modality: Modality) -> Writing:
        """A row of probabilities."""
        return probabilities_writing(self.names)

    def written_text(self, modality: Modality) -> str:
        """The table."""
        return f"`PREDICTIONS/{PREDICTIONS_NAME}` then has one row per study with the probability of each class."


def probabilities_writing(classes: Sequence[str]) -> Writing:
    """How the inference configuration writes a row with the probability of each class.

    Args:
        classes: names in label order.
    """
    return Writing(
        columns=classes,
        cells="engine.state.output[0]['pred'].flatten().tolist()",
        postprocessing=({"_target_": "Activationsd", "keys": "pred", "softmax": True},),
    )
