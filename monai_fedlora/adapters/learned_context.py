"""Texts about classes with learned words in front of the class.

Source: Zhou et al., "Learning to Prompt for Vision-Language Models" (CoOp), arXiv 2109.01134, with one context for
all classes. Where the template has the words w_1 .. w_k in front of the class, whose embeddings in the tower are e(w),
the tower reads

    start, e(w_1) .. e(w_{k-M}), e(w_{k-M+1}) + v_1 .. e(w_k) + v_M, the class, what follows, end

with v_1 .. v_M learned from zero, so that an untrained head compares with the template's own texts; or, without words,

    start, v_1 .. v_M, the class, what follows, end

with v drawn from N(0, 0.02^2). To keep the words' embeddings apart from what is learned is ours: it makes the two ways
of starting one tensor of one shape, which a server can draw without the checkpoint, and lets weight decay pull towards
the words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.adapters.lora import Temporary
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.text_head import CosineHead, full_precision
from monai_fedlora.networks.text_reader import TextReader


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextSettings:
    """How many words are learned, and from where.

    Args:
        vectors: M, at least 1 (ours: 3, the words of "a photo of"; CoOp learns 4 or 16).
        start: "words", those of the first template (ours), or "random" vectors in their place.
    """

    vectors: int = 3
    start: Literal["words", "random"] = "words"

    def __post_init__(self) -> None:
        if type(self.vectors) is not int or self.vectors < 1:
            raise ConfigError(f"vectors is {self.vectors!r}; a context needs a whole number of at least 1")
        if self.start not in ("words", "random"):
            raise ConfigError(f"start is {self.start!r}; it is 'words' or 'random'")


class ContextHead(Temporary):
    """Map pooled features (B, D) to the scaled cosines (B, C) with texts whose context is learned.

    Only ``context`` (M, width of the text tower) trains. Texts are read in float32, also under autocast.

    Args:
        head: what the texts are compared by; it has a reader.
        settings: of the context.

    Raises:
        ConfigError: the first template has fewer words in front of the class than shall be learned, or with so many
            random ones a text is longer than the tower reads.
    """

    ids: Tensor

    def __init__(self, head: CosineHead, settings: ContextSettings) -> None:
        super().__init__()
        reader = head.reader
        if reader is None:
            raise ConfigError("a context is learned where a text tower reads it, and this head has none")
        self.first, ids = _placed(reader, settings)
        self.on_words = settings.start == "words"
        self.tower = reader.tower
        self.context = nn.Parameter(torch.zeros(settings.vectors, reader.tower.settings.dim))
        if not self.on_words:
            nn.init.normal_(self.context, std=0.02)
        self.register_buffer("ids", ids, persistent=False)
        head.reader = None
        self.cosine = head

    def texts(self) -> Tensor:
        """The classes' text features (C, E), of length 1."""
        with full_precision(self.context):
            embedded, last = self.tower.token(self.ids), self.first + len(self.context)
            words = embedded[:, self.first : last] if self.on_words else 0.0
            parts = [embedded[:, : self.first], words + self.context.expand(len(embedded), -1, -1), embedded[:, last:]]
            read = self.tower.encode(torch.cat(parts, dim=1), self.tower.ends(self.ids))
            return functional.normalize(read, dim=-1)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.cosine.compare(self.cosine.embed(pooled), self.texts())

    @torch.no_grad()
    def plain(self) -> CosineHead:
        """The head that compares with the learned texts and has no tower."""
        self.cosine.text.copy_(self.texts())
        return self.cosine


def _placed(reader: TextReader, settings: ContextSettings) -> tuple[int, Tensor]:
    """Where the context begins, and the tokens with places for it."""
    count, ids = settings.vectors, reader.ids
    if settings.start == "words":
        if reader.before < count:
            raise ConfigError(
                f"vectors is {count}, and the first prompt has only {reader.before} tokens in front of the class; "
                "lower vectors, write more words there, or set start to random"
            )
        return reader.start + reader.before - count, ids
    if count > (room := reader.context - ids.shape[1] + reader.before):
        raise ConfigError(
            f"vectors is {count}, and the tower has room for {max(room, 0)} beside the longest class text; lower it"
        )
    gap = ids[:, :1].expand(-1, count)
    start = reader.start
    return start, torch.cat([ids[:, :start], gap, ids[:, start + reader.before :]], dim=1)


def attach_context(network: Any, settings: ContextSettings) -> None:
    """Freeze ``network`` and let it learn the context of the texts that its head compares with, in place.

    Raises:
        ConfigError: its head has no texts that could be written anew; or see :class:`ContextHead`.
    """
    network.requires_grad_(False)
    head = getattr(network, "head", None)
    if not isinstance(head, CosineHead):
        raise ConfigError(
            "the context of texts can be learned where images are compared with texts; choose a CLIP size"
        )
    network.head = ContextHead(head, settings)
