"""Learning CLIP's kind of tokens from texts: which pairs of bytes to join."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from monai_fedlora import files
from monai_fedlora.networks.tokens import END, MERGES, START, VOCABULARY, WORD_END, Tokens, alphabet, byte_pairs


def learn_tokens(texts: Iterable[str], *, vocabulary: int) -> Tokens:
    """Join the most frequent pair again and again, as Sennrich et al., ACL 2016, do.

    Of equally frequent pairs the one with the smaller numbers is joined.

    Args:
        texts: what the tokens are for; any other text has tokens too, if need be one per byte.
        vocabulary: number of tokens, more than the 514 for a byte inside a word, for one at its end, and for the start
            and the end of a text. Where the texts have fewer, the rest are tokens that no text has.
    """
    from tokenizers.trainers import BpeTrainer

    learned = byte_pairs({}, [])
    learned.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=vocabulary - 2,
            special_tokens=list(alphabet()),  # the first numbers, in this order
            end_of_word_suffix=WORD_END,
            show_progress=False,
        ),
    )
    model = json.loads(learned.to_str())["model"]
    numbers: dict[str, int] = model["vocab"]
    numbers |= {f"<|unused {number}|>": number for number in range(len(numbers), vocabulary - 2)}
    merges = [(first, second) for first, second in model["merges"]]
    return Tokens(numbers | {START: vocabulary - 2, END: vocabulary - 1}, merges, source="the learned tokens")


def save_tokens(folder: str | Path, tokens: Tokens) -> None:
    """Write ``vocab.json`` and ``merges.txt`` as CLIP checkpoints have them."""
    files.write_json(Path(folder) / VOCABULARY, tokens.vocabulary)
    pairs = "".join(f"{first} {second}\n" for first, second in tokens.merges)
    files.write_text(Path(folder) / MERGES, f"#version: 0.2\n{pairs}")
