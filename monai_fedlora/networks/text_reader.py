"""A text tower with the texts of classes, for a network whose texts are not final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import read_clip, text_shape
from monai_fedlora.networks.clip_text import TextTower
from monai_fedlora.networks.prompts import PLACEHOLDER, Prompts
from monai_fedlora.networks.token_files import starting_tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReader:
    """One text for each class, as tokens, and the tower that reads them.

    Attributes:
        tower: frozen.
        ids: (C, T) long, from what starts a text to what ends it and fills it up; T as long as the longest needs.
        start: tokens that start every text, 0 or 1.
        before: tokens between those and the class, equal in all texts.
        context: most tokens that the tower reads.
    """

    tower: TextTower
    ids: torch.Tensor
    start: int
    before: int
    context: int


def read_texts(source: str | Path, *, size: str, classes: Sequence[str], prompts: Prompts | None = None) -> TextReader:
    """Put classes into the words of the first template, and load the tower that reads them.

    Args:
        source, size, classes: see :func:`monai_fedlora.networks.anchors.text_anchors`.
        prompts: how classes are put into words; None for the defaults.

    Raises:
        ConfigError: ``size`` has no text tower; a class has no text, or one that runs into the word before it or is
            longer than the tower reads.
        WeightsError: a file is missing, damaged or does not fit.
    """
    text, _ = text_shape(size)
    first = (prompts or Prompts()).templates[0]
    texts = (prompts or Prompts()).texts(classes)
    tokens, clip = read_clip(source, size)
    rows = tokens.rows({name: own[:1] for name, own in zip(classes, texts, strict=True)}, context=text.context)
    front = tokens.encode(first.partition(PLACEHOLDER)[0].rstrip())[:-1]
    for name, row in zip(classes, rows.tolist(), strict=True):
        if row[: len(front)] != front:
            raise ConfigError(
                f"in the prompt {first!r} class {name!r} runs into the word in front of it; put a blank between them"
            )
    longest = int(clip.tower.ends(rows).max()) + 1
    start = tokens.n_start
    return TextReader(
        tower=clip.tower, ids=rows[:, :longest], start=start, before=len(front) - start, context=text.context
    )


def unread_texts(size: str, n_classes: int) -> TextReader:
    """The shapes of a reader: a tower of zeros, and texts as long as it reads with all but one token before the class.

    Raises:
        ConfigError: ``size`` has no text tower.
    """
    text, _ = text_shape(size)
    with torch.device("meta"):
        tower = text.build()
    zeros = {key: torch.zeros(value.shape) for key, value in tower.state_dict().items()}
    tower.load_state_dict(zeros, assign=True)
    ids = torch.zeros(n_classes, text.context, dtype=torch.long)
    ids[:, -1] = text.end_token
    start = starting_tokens(text.tokens)
    before = text.context - 2 - start
    tower = tower.eval().requires_grad_(False)
    return TextReader(tower=tower, ids=ids, start=start, before=before, context=text.context)
