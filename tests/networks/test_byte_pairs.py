"""Learned tokens are those of a second implementation, and read back as what was saved."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.networks.byte_pairs import learn_tokens, save_tokens
from monai_fedlora.networks.tokens import END, START, alphabet, find_tokens, read_tokens

TEXTS = ("low low low low low", "lower lower", "newest newest newest newest newest newest", "widest widest widest")
BYTES = len(alphabet())


def test_the_most_frequent_pairs_are_joined_first() -> None:
    """The example of Sennrich et al., ACL 2016, Algorithm 1, with this package's mark for the end of a word."""
    learned = learn_tokens(TEXTS, vocabulary=BYTES + 6)
    assert list(learned.merges) == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w")]
    assert list(learned.vocabulary)[:BYTES] == list(alphabet())
    assert list(learned.vocabulary)[BYTES:] == ["es", "est</w>", "lo", "ew", START, END]


def by_text(texts: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    """The same with words as strings of blanks and tokens, joined by replacing."""
    words = Counter(" ".join([*word[:-1], word[-1] + "</w>"]) for text in texts for word in text.split())
    merges: list[tuple[str, str]] = []
    numbers = {sign: number for number, sign in enumerate(alphabet())}
    while len({"".join(pair) for pair in merges}) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            parts = word.split(" ")
            for pair in pairwise(parts):
                pairs[pair] += times
        if not pairs:
            break
        best = sorted(pairs, key=lambda pair: (-pairs[pair], numbers[pair[0]], numbers[pair[1]]))[0]
        merges.append(best)
        numbers.setdefault("".join(best), len(numbers))
        joined: Counter[str] = Counter()
        for word, times in words.items():
            parts, new = word.split(" "), []
            while parts:
                if tuple(parts[:2]) == best:
                    new.append("".join(best))
                    del parts[:2]
                else:
                    new.append(parts.pop(0))
            joined[" ".join(new)] += times
        words = joined
    return merges


@given(texts=st.lists(st.text("abcd ", min_size=8, max_size=20), min_size=2, max_size=5).map(tuple))
def test_the_merges_are_those_of_a_second_implementation(texts: tuple[str, ...]) -> None:
    learned = learn_tokens(texts, vocabulary=BYTES + 7)
    assert list(learned.merges) == by_text(texts, 5)
    assert len(learned.vocabulary) == BYTES + 7


def test_texts_read_back_as_they_were_saved(tmp_path: Path) -> None:
    learned = learn_tokens(TEXTS, vocabulary=BYTES + 10)
    save_tokens(tmp_path, learned)
    read = read_tokens(find_tokens(tmp_path))
    for text in (*TEXTS, "slowest!", "Größe ☃"):
        assert read.encode(text) == learned.encode(text)


def test_transformers_reads_what_was_saved(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    learned = learn_tokens(TEXTS, vocabulary=BYTES + 10)
    save_tokens(tmp_path, learned)
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS, "slowest!", "größe ☃"):
        assert theirs(text).input_ids == learned.encode(text)


def test_a_vocabulary_that_the_texts_do_not_fill_has_tokens_without_use() -> None:
    learned = learn_tokens(["ab ab"], vocabulary=BYTES + 6)
    assert list(learned.merges) == [("a", "b</w>")]
    assert list(learned.vocabulary)[BYTES:] == ["ab</w>", *(f"<|unused {BYTES + n}|>" for n in (1, 2, 3)), START, END]
    assert learned.encode(f"<|unused {BYTES + 1}|>")[1:-1] != [BYTES + 1]
