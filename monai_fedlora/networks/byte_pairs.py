"""Learning CLIP's kind of tokens from texts: which pairs of bytes to join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from monai_fedlora import files
from monai_fedlora.errors import DataError
from monai_fedlora.networks.tokens import ALPHABET, END, MERGES, START, VOCABULARY, Pair, Tokens, join, signs_of, words


def learn_tokens(texts: Iterable[str], *, vocabulary: int) -> Tokens:
    """Join the most frequent pair again and again, as Sennrich et al., ACL 2016, do.

    Of equally frequent pairs the first by alphabet is joined.

    Args:
        texts: what the tokens are for; any other text has tokens too, if need be one per byte.
        vocabulary: number of tokens, with one per byte inside and at the end of a word and the two around a text.

    Raises:
        DataError: the texts are too few for so many tokens.
    """
    counts = Counter(word for text in texts for word in words(text))
    split = {word: signs_of(word) for word in counts}
    merges: list[Pair] = []
    while len(merges) < vocabulary - len(ALPHABET) - 2:
        pairs: Counter[Pair] = Counter()
        for word, signs in split.items():
            for pair in pairwise(signs):
                pairs[pair] += counts[word]
        if not pairs:
            raise DataError(
                f"the texts have only {len(merges) + len(ALPHABET) + 2} tokens to learn, not {vocabulary}; give more"
            )
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        split = {word: join(signs, merges[-1]) for word, signs in split.items()}
    tokens = [*ALPHABET, *("".join(pair) for pair in merges), START, END]
    return Tokens({token: number for number, token in enumerate(tokens)}, merges, source="the learned tokens")


def save_tokens(folder: str | Path, tokens: Tokens) -> None:
    """Write ``vocab.json`` and ``merges.txt`` as CLIP checkpoints have them."""
    files.write_json(Path(folder) / VOCABULARY, tokens.vocabulary)
    pairs = "".join(f"{first} {second}\n" for first, second in tokens.ranks)
    files.write_text(Path(folder) / MERGES, f"#version: 0.2\n{pairs}")
