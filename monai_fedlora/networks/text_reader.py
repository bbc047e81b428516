"""A text tower with the texts of classes, for a network whose texts are not final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import read_clip, text_shape
from monai_fedlora.networks.prompts import PLACEHOLDER, Prompts
from monai_fedlora.networks.text import TextTransformer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReader:
    """One text for each class, as tokens, and the tower that reads them.

    Attributes:
        tower: frozen.
        ids: (C, T) long, from the token that starts a text to the ones that end it; T as long as the longest needs.
        before: tokens between the one that starts a text and the class, equal in all texts.
        context: most tokens that the tower reads.
    """

    tower: TextTransformer
    ids: torch.Tensor
    before: int
    context: int


def read_texts(source: str | Path, *, size: str, classes: Sequence[str], prompts: Prompts | None = None) -> TextReader:
    """Put classes into the words of the first template, and load the tower that reads them.

    Args:
        source, size, classes: see :func:`monai_fedlora.networks.anchors.text_anchors`.
        prompts: how classes are put into words; None for the defaults.

    Raises:
        ConfigError: ``size`` is no CLIP; a class has no text, or one that runs into the word in front of it or is
            longer than this CLIP reads.
        WeightsError: a file is missing, damaged or does not fit.
    """
    text, _ = text_shape(size)
    first = (prompts or Prompts()).templates[0]
    texts = (prompts or Prompts()).texts(classes)
    tokens, clip = read_clip(source, size)
    rows = tokens.rows({name: own[:1] for name, own in zip(classes, texts, strict=True)}, context=text.context)
    front = tokens.encode(first.partition(PLACEHOLDER)[0])[:-1]
    for name, row in zip(classes, rows.tolist(), strict=True):
        if row[: len(front)] != front:
            raise ConfigError(
                f"in the prompt {first!r} class {name!r} runs into the word in front of it; put a blank between them"
            )
    longest = int(clip.tower.ends(rows).max()) + 1
    return TextReader(tower=clip.tower, ids=rows[:, :longest], before=len(front) - 1, context=text.context)


def unread_texts(size: str, n_classes: int) -> TextReader:
    """The shapes of a reader: a tower of zeros, and texts as long as it reads with all but one token before the class.

    Raises:
        ConfigError: ``size`` is no CLIP.
    """
    text, _ = text_shape(size)
    with torch.device("meta"):
        tower = TextTransformer(text)
    zeros = {key: torch.zeros(value.shape) for key, value in tower.state_dict().items()}
    tower.load_state_dict(zeros, assign=True)
    ids = torch.zeros(n_classes, text.context, dtype=torch.long)
    ids[:, -1] = text.end
    before = text.context - 3
    return TextReader(tower=tower.eval().requires_grad_(False), ids=ids, before=before, context=text.context)
