"""What every kind of tokens has in common: texts in, rows of numbers of one length out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch

from monai_fedlora.errors import ConfigError


class TextTokens(ABC):
    """Turns texts into the numbers that a text tower reads.

    Attributes:
        size: how many different tokens there are.
        end: what ends a text.
        pad: what fills a row up behind the end of its text.
        n_start: tokens in front of every text, 0 or 1.
    """

    size: int
    end: int
    pad: int
    n_start: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, from the one that starts it, if there is one, to the one that ends it.

        Raises:
            ConfigError: the text holds the name of a token with a meaning of its own.
        """

    def rows(self, texts: Mapping[str, Sequence[str]], *, context: int) -> torch.Tensor:
        """The tokens of texts, by class, as (sum of all texts, context), filled up.

        Raises:
            ConfigError: a text is longer than the context; the message names its class.
        """
        rows = []
        for name, sentences in texts.items():
            for sentence in sentences:
                row = self.encode(sentence)
                if len(row) > context:
                    raise ConfigError(
                        f"the text of class {name!r} is too long: {sentence!r} has {len(row)} tokens, and this text "
                        f"tower reads {context}; shorten the class text or the prompt"
                    )
                rows.append(row + [self.pad] * (context - len(row)))
        return torch.tensor(rows, dtype=torch.long)
