"""CoOp in a federation: PromptFL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.learned_context import ContextSettings, attach_context
from monai_fedlora.methods.base import Method, register


@register
@dataclass(frozen=True, kw_only=True)
class PromptTuning(Method):
    """Learned words in front of the class's, the same for all classes, are averaged (Guo et al., arXiv 2208.11625).

    The frozen text tower reads them in every step, and the gradient flows through it; see
    :mod:`monai_fedlora.adapters.learned_context` for the texts. An export reads them once more and leaves the tower
    out.

    Args:
        vectors, start: see :class:`monai_fedlora.adapters.learned_context.ContextSettings`. With several prompts the
            first one gives the words.
    """

    name = "prompt_tuning"
    summary = "learned words in CLIP's texts, averaged"
    source = "PromptFL, Guo et al., arXiv 2208.11625; CoOp, Zhou et al., arXiv 2109.01134"

    vectors: int = 3
    start: Literal["words", "random"] = "words"

    def __post_init__(self) -> None:
        self.context  # noqa: B018  (validates the values)

    @property
    def context(self) -> ContextSettings:
        """What is learned."""
        return ContextSettings(vectors=self.vectors, start=self.start)

    @property
    def reads_text(self) -> bool:
        """Texts about the classes take the place of a linear head."""
        return True

    @property
    def writes_text(self) -> bool:
        """The texts themselves train."""
        return True

    @property
    def why_not_noised(self) -> None:
        """Nothing is private."""

    def attach(self, network: Any) -> None:
        """Freeze both towers and let the context train."""
        attach_context(network, self.context)

    def is_shared(self, key: str, network: Any) -> bool:
        """The context, which is all that trains, travels."""
        return True
