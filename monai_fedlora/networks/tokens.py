"""CLIP's tokens: byte pairs of lower-case words, from the files that a checkpoint is published with.

Source: Radford et al., arXiv 2103.00020; Sennrich et al., "Neural Machine Translation of Rare Words with Subword
Units", ACL 2016. A word is a run of letters, one digit, a run of other signs, or an English contraction; its UTF-8
bytes are joined pair by pair in the order of the merges. The last piece of a word carries the mark ``</w>``. Signs are
taken as they are, as transformers does; the code of OpenAI and of OpenCLIP makes curly quotes straight before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, FedLoraError, WeightsError
from monai_fedlora.networks.checkpoint_files import listed
from monai_fedlora.networks.text_tokens import TextTokens
from monai_fedlora.networks.weights_sources import find_beside

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
VOCABULARY, MERGES, BOTH = "vocab.json", "merges.txt", "tokenizer.json"

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
Pair = tuple[str, str]


@cache
def alphabet() -> tuple[str, ...]:
    """A printable sign for every byte inside a word, and the same for its end, so that any text has tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return tuple(sign + end for end in ("", WORD_END) for sign in sorted(ByteLevel.alphabet()))


def byte_pairs(vocabulary: Mapping[str, int], merges: Sequence[Pair]) -> Tokenizer:
    """What splits texts into words as CLIP does and joins their bytes.

    The signs of a text are composed (NFC) and made lower-case before.

    Args:
        vocabulary: the number of every token; may be empty, to be learned.
        merges: pairs of tokens to join, the most important first.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    pairs = Tokenizer(BPE(dict(vocabulary), list(merges), end_of_word_suffix=WORD_END))
    pairs.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return pairs


class Tokens(TextTokens):
    """Turns texts into the numbers that a text tower reads.

    Args:
        vocabulary: the number of every token.
        merges: pairs of tokens to join, the most important first.
        source: what errors name.

    Raises:
        WeightsError: the numbers are not 0, 1, 2 and so on up to the end token; or a byte or a joined pair has none.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[Pair], *, source: str) -> None:
        self.vocabulary = dict(vocabulary)
        self.merges = tuple(merges)
        numbers = self.vocabulary.values()
        if any(type(number) is not int for number in numbers) or set(numbers) != set(range(len(numbers))):
            raise WeightsError(f"{source} is damaged: its tokens are not numbered from 0 on, each number once")
        needed = [START, END, *alphabet(), *(part for pair in merges for part in (*pair, "".join(pair)))]
        if missing := list(dict.fromkeys(part for part in needed if part not in self.vocabulary)):
            raise WeightsError(
                f"{source} is no complete CLIP vocabulary: it lacks the tokens {listed([repr(m) for m in missing], 3)}"
            )
        if self.vocabulary[END] != len(numbers) - 1:
            raise WeightsError(f"{source} has tokens after {END}, with which CLIP ends a text; this is not supported")
        self.size, self.n_start = len(numbers), 1
        self.end = self.pad = self.vocabulary[END]
        self._pairs = byte_pairs(self.vocabulary, self.merges)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, from the one that starts it to the one that ends it.

        Raises:
            ConfigError: the text holds the name of one of these two.
        """
        for special in (START, END):
            if special in text.lower():
                raise ConfigError(f"{text!r} holds {special}, which has a meaning of its own; leave it out")
        return [self.vocabulary[START], *self._pairs.encode(text).ids, self.vocabulary[END]]


def find_tokens(source: str | Path) -> tuple[Path, ...]:
    """The files beside the weights of a source that say what its tokens are.

    Args:
        source: see :func:`monai_fedlora.networks.weights_sources.find_weights`.

    Returns:
        ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``.

    Raises:
        WeightsError: there are none.
    """
    pair = find_beside(source, VOCABULARY), find_beside(source, MERGES)
    if pair[0] and pair[1]:
        return pair[0], pair[1]
    if both := find_beside(source, BOTH):
        return (both,)
    raise WeightsError(
        f"{source} comes without its tokens: {VOCABULARY} and {MERGES}, or {BOTH}, must lie beside the weights; copy "
        "them from where the weights are published"
    )


def read_tokens(paths: Sequence[Path]) -> Tokens:
    """Read the files that :func:`find_tokens` found.

    Raises:
        WeightsError: one of them is damaged or not CLIP's; the message names it.
    """
    if len(paths) == 1:
        model = _json(paths[0])
        model = model.get("model") if isinstance(model, dict) else None
        if not isinstance(model, dict) or model.get("end_of_word_suffix") != WORD_END:
            raise WeightsError(
                f"{paths[0]} does not describe CLIP's tokens, byte pairs with {WORD_END} at a word's end"
            )
        pairs = model.get("merges")
        lines = [" ".join(pair) if _is_pair(pair) else pair for pair in pairs] if isinstance(pairs, list) else None
        return Tokens(_numbers(paths[0], model.get("vocab")), _pairs(paths[0], lines), source=str(paths[0]))
    vocabulary, merges = paths
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{merges} cannot be read: {error}") from error
    lines = [line for line in lines[lines[0].startswith("#version") :] if line]
    return Tokens(_numbers(vocabulary, _json(vocabulary)), _pairs(merges, lines), source=str(vocabulary))


def _json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error


def _numbers(path: Path, value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise WeightsError(f"{path} does not say the number of every token; it is damaged or of another format")
    return value


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _pairs(path: Path, lines: Sequence[Any] | None) -> list[Pair]:
    pairs: list[Pair] = []
    for line in [None] if lines is None else lines:
        parts = line.split(" ") if isinstance(line, str) else []
        if len(parts) != 2 or not all(parts):
            raise WeightsError(f"{path} is damaged: {str(line)[:40]!r} is no pair of tokens to join")
        pairs.append((parts[0], parts[1]))
    return pairs
