"""Tokens of text towers other than CLIP's: word pieces of BERT, sentence pieces of SigLIP and of SigLIP 2.

Sources: Devlin et al., "BERT", arXiv 1810.04805; Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv
2303.15343; Tschannen et al., "SigLIP 2", arXiv 2502.14786. They are read from the ``tokenizer.json`` that a checkpoint
is published with, by the library that wrote it; BERT's also from ``vocab.txt``.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, FedLoraError, WeightsError
from monai_fedlora.networks.text import PieceKind
from monai_fedlora.networks.text_tokens import TextTokens
from monai_fedlora.networks.weights_sources import find_beside

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DESCRIPTION, WORDS, SENTENCES = "tokenizer.json", "vocab.txt", "spiece.model"

_UNKNOWN = "[UNK]"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonical(text: str) -> str:
    """A text as SigLIP was trained with: lower-case, without ASCII punctuation, words one blank apart."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceRules:
    """What a kind of pieces adds to what its file says.

    Attributes:
        model: the file's name of how words are taken apart.
        start: the token that starts a text; None for none.
        end: the token that ends it.
        pad: the token that fills a row up.
        clean: what a text goes through before.
    """

    model: str
    start: str | None
    end: str
    pad: str
    clean: Callable[[str], str]


RULES: Mapping[PieceKind, PieceRules] = {
    "word_pieces": PieceRules(model="WordPiece", start="[CLS]", end="[SEP]", pad="[PAD]", clean=str.strip),
    "siglip": PieceRules(model="Unigram", start=None, end="</s>", pad="</s>", clean=canonical),
    "siglip2": PieceRules(model="BPE", start=None, end="<eos>", pad="<pad>", clean=lambda text: text.strip().lower()),
}


class Pieces(TextTokens):
    """Turns texts into the numbers that a text tower reads.

    Args:
        tokenizer: what takes a text apart, without tokens around it.
        rules: of its kind.
        source: what errors name.

    Raises:
        WeightsError: there is no token that starts, ends or fills up.
    """

    def __init__(self, tokenizer: Tokenizer, rules: PieceRules, *, source: str) -> None:
        numbers = tokenizer.get_vocab(with_added_tokens=True)
        needed = [name for name in (rules.start, rules.end, rules.pad) if name is not None]
        if missing := [name for name in dict.fromkeys(needed) if name not in numbers]:
            raise WeightsError(
                f"{source} has no token {missing[0]}, which this text tower needs; it is damaged or another model's"
            )
        self.size = max(numbers.values()) + 1
        self.pad = numbers[rules.pad]
        self._start = [] if rules.start is None else [numbers[rules.start]]
        self.n_start = len(self._start)
        self.end = numbers[rules.end]
        self._special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        self._clean = rules.clean
        self._pieces = tokenizer

    def encode(self, text: str) -> list[int]:
        cleaned = self._clean(text)
        if found := next((name for name in self._special if name in cleaned), None):
            raise ConfigError(f"{text!r} holds {found}, which has a meaning of its own; leave it out")
        return [*self._start, *self._pieces.encode(cleaned, add_special_tokens=False).ids, self.end]


def find_pieces(source: str | Path, kind: PieceKind) -> tuple[Path]:
    """The file beside the weights of a source that says what its tokens are.

    Args:
        source: see :func:`monai_fedlora.networks.weights_sources.find_weights`.
        kind: of tokens.

    Raises:
        WeightsError: there is none.
    """
    if found := find_beside(source, DESCRIPTION):
        return (found,)
    if kind == "word_pieces":
        if found := find_beside(source, WORDS):
            return (found,)
        raise WeightsError(
            f"{source} comes without its tokens: {DESCRIPTION} or {WORDS} must lie beside the weights; copy it from "
            "where the weights are published"
        )
    alone = f" ({SENTENCES} alone is not read)" if find_beside(source, SENTENCES) else ""
    raise WeightsError(
        f"{source} comes without its tokens: {DESCRIPTION} must lie beside the weights{alone}; copy it from where the "
        "weights are published. Methods that read no text do without"
    )


def read_pieces(path: Path, kind: PieceKind) -> Pieces:
    """Read the file that :func:`find_pieces` found.

    Raises:
        WeightsError: it is damaged or of another kind; the message names it.
    """
    rules = RULES[kind]
    if path.name == WORDS:
        return Pieces(_word_pieces(path), rules, source=str(path))
    from tokenizers import Tokenizer

    try:
        content = files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error
    model = content.get("model") if isinstance(content, dict) else None
    found = model.get("type") if isinstance(model, dict) else None
    if found != rules.model:
        raise WeightsError(
            f"{path} describes tokens of type {found}, and this text tower reads {rules.model}; it is another model's"
        )
    try:  # without what fills up and cuts off, which the context decides here
        tokenizer = Tokenizer.from_str(json.dumps(content | {"padding": None, "truncation": None}))
    except Exception as error:  # the library raises plain exceptions
        raise WeightsError(f"{path} is damaged: {error}") from error
    return Pieces(tokenizer, rules, source=str(path))


def _word_pieces(path: Path) -> Tokenizer:
    """BERT's tokens in a list, one a line, for lower-case texts without accents."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    words = _lines(path)
    if len(set(words)) < len(words) or _UNKNOWN not in words:
        raise WeightsError(f"{path} is damaged: it lacks {_UNKNOWN}, or lists a token twice")
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules = RULES["word_pieces"]
    tokenizer.add_special_tokens([name for name in (rules.start, rules.end, rules.pad, _UNKNOWN) if name in words])
    return tokenizer


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
