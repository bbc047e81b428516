"""Learning CLIP's kind of tokens from texts: which pairs of bytes to join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from monai_fedlora import files
from monai_fedlora.networks.tokens import ALPHABET, END, MERGES, START, VOCABULARY, Pair, Tokens, join, signs_of, words


def learn_tokens(texts: Iterable[str], *, vocabulary: int) -> Tokens:
    """Join the most frequent pair again and again, as Sennrich et al., ACL 2016, do.

    Of equally frequent pairs the first by alphabet is joined.

    Args:
        texts: what the tokens are for; any other text has tokens too, if need be one per byte.
        vocabulary: number of tokens, more than the 514 for a byte inside a word, for one at its end, and for the start
            and the end of a text. Where the texts have fewer, the rest are tokens that no text has.
    """
    counts = Counter(word for text in texts for word in words(text))
    split = {word: signs_of(word) for word in counts}
    merges: list[Pair] = []
    numbers = {token: number for number, token in enumerate(ALPHABET)}
    while len(numbers) < vocabulary - 2:
        pairs: Counter[Pair] = Counter()
        for word, signs in split.items():
            for pair in pairwise(signs):
                pairs[pair] += counts[word]
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        numbers.setdefault("".join(merges[-1]), len(numbers))
        split = {word: join(signs, merges[-1]) for word, signs in split.items()}
    numbers |= {f"<|unused {number}|>": number for number in range(len(numbers), vocabulary - 2)}
    return Tokens(numbers | {START: vocabulary - 2, END: vocabulary - 1}, merges, source="the learned tokens")


def save_tokens(folder: str | Path, tokens: Tokens) -> None:
    """Write ``vocab.json`` and ``merges.txt`` as CLIP checkpoints have them."""
    files.write_json(Path(folder) / VOCABULARY, tokens.vocabulary)
    pairs = "".join(f"{first} {second}\n" for first, second in tokens.ranks)
    files.write_text(Path(folder) / MERGES, f"#version: 0.2\n{pairs}")
