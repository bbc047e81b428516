"""Tokens are those of transformers' own CLIP tokeniser, and damaged files are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks import weights_sources
from monai_fedlora.networks.tokens import END, START, Tokens, find_tokens, read_tokens
from tests.networks.clip import TEXTS, WORDS, tokens_of, write_tokens
from tests.networks.published import fuzz

VOCABULARY = 560
SIGNS = st.text(
    st.sampled_from("abcdefgmo nprst'ABÉéßΣςİΩжÅ12²½Ⅷ一,.!?-_()\u0301☃\U0001f9ec "), min_size=1, max_size=30
).filter(lambda text: text.strip() != "")


def tokens(words: tuple[str, ...] = WORDS) -> Tokens:
    return Tokens(*tokens_of(words, vocabulary=VOCABULARY), source="the test's tokens")


@pytest.fixture(scope="module")
def reference() -> Callable[[str], list[int]]:
    from transformers import CLIPTokenizer

    vocabulary, merges = tokens_of(vocabulary=VOCABULARY)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    return lambda text: tokenizer(text).input_ids


def test_texts_have_the_tokens_of_transformers(reference: Callable[[str], list[int]]) -> None:
    for text in TEXTS:
        assert tokens().encode(text) == reference(text)


@given(text=SIGNS)
@example(text="can't won't it's we've I'm they'll he'd you're 'S 'sun ''s !'s")
@example(text="e\u0301 \u00e9")
def test_any_text_has_the_tokens_of_transformers(text: str, reference: Callable[[str], list[int]]) -> None:
    assert tokens().encode(text) == reference(text)


def test_pairs_are_joined_in_the_order_of_the_merges() -> None:
    vocabulary, _ = tokens_of((), vocabulary=VOCABULARY)
    for number, token in enumerate(("ab", "bc</w>", "ca", "ab" * 2)):
        vocabulary[token] = vocabulary.pop(f"unused {512 + number}")
    ranked = [("b", "c</w>"), ("a", "b"), ("ab", "ab"), ("c", "a")]
    read = Tokens(vocabulary, ranked, source="")
    names = {number: token for token, number in vocabulary.items()}
    pieces = {text: [names[n] for n in read.encode(text)[1:-1]] for text in ("abc", "ababca", "cab")}
    assert pieces == {"abc": ["a", "bc</w>"], "ababca": ["abab", "c", "a</w>"], "cab": ["ca", "b</w>"]}


def test_rows_are_filled_up_with_end_tokens() -> None:
    read = tokens()
    rows = read.rows({"NV": ["a mole", "a"], "MEL": ["melanoma"]}, context=6)
    end = read.vocabulary[END]
    assert rows.dtype == torch.long
    assert rows.tolist() == [row + [end] * (6 - len(row)) for row in map(read.encode, ("a mole", "a", "melanoma"))]


def test_a_text_longer_than_the_context_names_its_class() -> None:
    with pytest.raises(ConfigError, match=r"the text of class 'NV' is too long: 'a mole' has 4 tokens.* reads 3"):
        tokens().rows({"MEL": ["a"], "NV": ["a", "a mole"]}, context=3)


@pytest.mark.parametrize("text", [f"a {START} photo", f"a photo{END}", "<|EndOfText|>"])
def test_a_text_with_the_name_of_a_special_token_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a meaning of its own"):
        tokens().encode(text)


def json_file(folder: Path, *, merges_as_lists: bool = False, **changes: Any) -> Path:
    vocabulary, merges = tokens_of(vocabulary=VOCABULARY)
    pairs: list[Any] = [list(pair) for pair in merges] if merges_as_lists else [" ".join(pair) for pair in merges]
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": pairs} | changes
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    return folder / "tokenizer.json"


@pytest.mark.parametrize("merges_as_lists", [False, True])
def test_one_file_says_the_same_as_two(tmp_path: Path, merges_as_lists: bool) -> None:
    two, one = write_tokens(tmp_path, vocabulary=VOCABULARY), json_file(tmp_path, merges_as_lists=merges_as_lists)
    assert find_tokens(two) == (two / "vocab.json", two / "merges.txt")
    a, b = read_tokens(find_tokens(two)), read_tokens([one])
    assert (a.vocabulary, a.merges) == (b.vocabulary, b.merges)
    (two / "merges.txt").unlink()
    assert find_tokens(two) == (one,)


def test_what_transformers_saves_is_read(tmp_path: Path, reference: Callable[[str], list[int]]) -> None:
    from transformers import CLIPTokenizer

    vocabulary, merges = tokens_of(vocabulary=VOCABULARY)
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
    read = read_tokens(find_tokens(tmp_path))
    assert [read.encode(text) for text in TEXTS] == [reference(text) for text in TEXTS]


def test_tokens_lie_beside_a_weights_file_or_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokens(tmp_path)
    (tmp_path / "weights.safetensors").touch()
    assert find_tokens(tmp_path / "weights.safetensors") == find_tokens(tmp_path)
    asked = []

    def download(source: str, repo: str, name: str, *, optional: bool = False) -> Path:
        asked.append((repo, name, optional))
        return tmp_path / Path(name).name

    monkeypatch.setattr(weights_sources, "_download", download)
    assert find_tokens("hf://openai/clip") == find_tokens(tmp_path)
    assert find_tokens("hf://lab/models/clip/b16/weights.safetensors") == find_tokens(tmp_path)
    assert asked == [
        ("openai/clip", "vocab.json", True),
        ("openai/clip", "merges.txt", True),
        ("lab/models", "clip/b16/vocab.json", True),
        ("lab/models", "clip/b16/merges.txt", True),
    ]


def test_weights_without_tokens_are_refused(tmp_path: Path) -> None:
    write_tokens(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(WeightsError, match=r"comes without its tokens: vocab\.json and merges\.txt"):
        find_tokens(tmp_path)


def damaged(folder: Path, change: Callable[[dict[str, Any]], Any]) -> tuple[Path, ...]:
    vocabulary = json.loads((write_tokens(folder, vocabulary=VOCABULARY) / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(change(vocabulary)))
    return find_tokens(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {**v, END: 0}, "not numbered from 0 on"),
        (lambda v: {**v, "a": -1}, "not numbered from 0 on"),
        (lambda v: {**v, "a": "1"}, "not numbered from 0 on"),
        (lambda v: {**v, "a": True}, "not numbered from 0 on"),
        (
            lambda v: {k: n for k, n in v.items() if n < len(v) - 1},
            "lacks the tokens '<|endoftext|>'".replace("|", r"\|"),
        ),
        (lambda v: {"no such" if k == "a</w>" else k: n for k, n in v.items()}, "lacks the tokens 'a</w>'"),
        (lambda v: {"no such" if k == "photo</w>" else k: n for k, n in v.items()}, "lacks the tokens 'photo</w>'"),
        (lambda v: {**v, "more": len(v)}, "has tokens after"),
        (lambda v: list(v), "does not say the number of every token"),
        (lambda v: {}, "lacks the tokens"),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        read_tokens(damaged(tmp_path, change))
    assert str(tmp_path / "vocab.json") in str(error.value)


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", " b", "a ", "\x00"])
def test_a_damaged_line_of_merges_is_refused(tmp_path: Path, line: str) -> None:
    write_tokens(tmp_path, vocabulary=VOCABULARY)
    with (tmp_path / "merges.txt").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(WeightsError, match=r"merges\.txt is damaged: .* is no pair of tokens to join"):
        read_tokens(find_tokens(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end_of_word_suffix": None}, "does not describe CLIP's tokens"),
        ({"merges": None}, "'None' is no pair"),
        ({"merges": [["p", "h", "o"]]}, "is no pair"),
        ({"merges": [1]}, "'1' is no pair"),
        ({"vocab": None}, "does not say the number of every token"),
    ],
)
def test_a_damaged_tokenizer_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        read_tokens([json_file(tmp_path, **changes)])
    assert str(tmp_path / "tokenizer.json") in str(error.value)


@fuzz
@given(content=st.binary(max_size=200), name=st.sampled_from(["vocab.json", "merges.txt", "tokenizer.json"]))
def test_any_content_is_read_or_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    if name != "tokenizer.json":
        write_tokens(tmp_path, vocabulary=VOCABULARY)
    (tmp_path / name).write_bytes(content)
    try:
        read_tokens(find_tokens(tmp_path))
    except WeightsError as error:
        assert str(tmp_path) in str(error)


@fuzz
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), name=st.sampled_from(["vocab.json", "merges.txt"]))
def test_a_changed_byte_is_harmless_or_refused_by_name(tmp_path: Path, place: int, byte: int, name: str) -> None:
    content = bytearray((write_tokens(tmp_path, vocabulary=VOCABULARY) / name).read_bytes())
    content[place % len(content)] = byte
    (tmp_path / name).write_bytes(content)
    try:
        read_tokens(find_tokens(tmp_path)).encode("a photo of a mole")
    except WeightsError as error:
        assert str(tmp_path) in str(error)
