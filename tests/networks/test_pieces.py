"""Tokens of BERT and of SigLIP are those of the library that checkpoints are published with."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.pieces import canonical, find_pieces, read_pieces
from monai_fedlora.networks.token_files import find_token_files, read_token_files, starting_tokens
from monai_fedlora.networks.tokens import END, START
from tests.networks.clip import write_tokens
from tests.networks.published import fuzz

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "photo", "of", "mel", "##ano", "##ma", "naevus", "-", "'", "s", "mole"]
TEXTS = ("a photo of melanoma", "A Naévus' mole!", " mole-melanoma ☃", "")


def word_list(folder: Path) -> Path:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder / "vocab.txt"


def unigram(folder: Path) -> dict[str, Any]:
    """A ``tokenizer.json`` as SigLIP has it, in small."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import Unigram

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -2.0), ("▁photo", -2.0), ("▁of", -2.0)]
    pieces += [("▁mel", -3.0), ("anoma", -3.0), ("▁", -4.0), *((letter, -9.0) for letter in "aehlmnopsu")]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.enable_padding(length=64, pad_id=1, pad_token="</s>")
    tokenizer.save(str(folder / "tokenizer.json"))
    return json.loads((folder / "tokenizer.json").read_text())


@pytest.mark.parametrize("saved", [False, True])
def test_word_pieces_equal_transformers(tmp_path: Path, saved: bool) -> None:
    from transformers import BertTokenizer

    path = word_list(tmp_path)
    theirs = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    if saved:
        theirs.save_pretrained(tmp_path)
        path = tmp_path / "tokenizer.json"
    assert find_pieces(tmp_path / "weights.bin", "word_pieces") == (path,)
    pieces = read_pieces(path, "word_pieces")
    for text in TEXTS:
        assert pieces.encode(text) == theirs(text).input_ids
    assert (pieces.size, pieces.pad, pieces.n_start) == (len(WORDS), 0, 1)


def test_siglip_reads_lower_case_words_without_punctuation(tmp_path: Path) -> None:
    unigram(tmp_path)
    (path,) = find_pieces(tmp_path, "siglip")
    pieces = read_pieces(path, "siglip")
    assert pieces.encode("A photo, of  Melanoma.") == [3, 4, 5, 6, 7, 1]
    assert pieces.encode("photo") == [4, 1]
    assert pieces.rows({"": ["photo"]}, context=5).tolist() == [[4, 1, 1, 1, 1]]
    assert (pieces.size, pieces.n_start) == (19, 0)
    assert canonical(" A 'photo'\tof\nÄ-b ") == "a photo of äb"


def transformers_canonical(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What transformers' tokenizer of SigLIP does to a text first; the library that it needs afterwards is left out."""
    name = "transformers.models.siglip.tokenization_siglip"
    monkeypatch.setitem(sys.modules, "sentencepiece", ModuleType("sentencepiece"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    theirs = importlib.import_module(name).SiglipTokenizer
    monkeypatch.delitem(sys.modules, name)
    blank = theirs.__new__(theirs)
    vars(blank)["do_lower_case"] = True
    return lambda text: theirs.canonicalize_text(blank, text)


def test_siglip_cleans_texts_as_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = transformers_canonical(monkeypatch)

    @fuzz
    @given(st.one_of(st.text(), st.text("aÄİß .,'-_\u2019\u00a0\u2003\t\n\x1c")))
    def check(text: str) -> None:
        assert canonical(text) == theirs(text)

    check()


def test_siglip_2_equals_transformers(tmp_path: Path) -> None:
    from transformers import Siglip2Tokenizer

    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    for token in (*"aehlmnopstu▁", "mo", "mole", "mol", "▁mole"):
        vocabulary[token] = len(vocabulary)
    merges = [("m", "o"), ("mo", "l"), ("mol", "e"), ("▁", "mole")]
    theirs = Siglip2Tokenizer(vocab=vocabulary, merges=merges)
    theirs.save_pretrained(tmp_path)
    pieces = read_pieces(tmp_path / "tokenizer.json", "siglip2")
    for text in ("a Mole", "MOLE mole, a", "ethos"):
        expected = theirs(text, add_special_tokens=False).input_ids
        assert pieces.encode(text) == [*expected, 1]
    # Its authors, and the folders that they publish, fill up on the right.
    padded = theirs("mole<eos>", padding="max_length", max_length=4, padding_side="right").input_ids
    assert pieces.rows({"": ["Mole"]}, context=4).tolist() == [padded] == [[vocabulary["mole"], 1, 0, 0]]


def test_a_text_with_a_token_of_its_own_meaning_is_refused(tmp_path: Path) -> None:
    pieces = read_pieces(word_list(tmp_path), "word_pieces")
    with pytest.raises(ConfigError, match=r"'a \[SEP\]' holds \[SEP\], which has a meaning of its own"):
        pieces.encode("a [SEP]")


def test_a_text_that_is_too_long_is_refused_by_its_class(tmp_path: Path) -> None:
    pieces = read_pieces(word_list(tmp_path), "word_pieces")
    with pytest.raises(ConfigError, match="the text of class 'MEL' is too long: 'a mole' has 4 tokens"):
        pieces.rows({"NV": ["a"], "MEL": ["a mole"]}, context=3)


def test_missing_files_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer\.json or vocab\.txt must lie beside"):
        find_token_files(tmp_path, "word_pieces")
    with pytest.raises(WeightsError, match=r"tokenizer\.json must lie beside the weights; copy it"):
        find_token_files(tmp_path, "siglip")
    (tmp_path / "spiece.model").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"\(spiece\.model alone is not read\).* Methods that read no text do"):
        find_token_files(tmp_path, "siglip2")


@pytest.mark.parametrize("words", [WORDS[2:], [*WORDS, "a"], [word for word in WORDS if word != "[SEP]"]])
def test_a_damaged_list_of_words_is_named(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"vocab\.txt (is damaged|has no token \[SEP\])"):
        read_pieces(tmp_path / "vocab.txt", "word_pieces")


def test_a_list_of_words_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match=r"vocab\.txt cannot be read"):
        read_pieces(tmp_path / "vocab.txt", "word_pieces")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    content = unigram(tmp_path)
    path = tmp_path / "tokenizer.json"
    with pytest.raises(WeightsError, match="describes tokens of type Unigram, and this text tower reads WordPiece"):
        read_pieces(path, "word_pieces")
    path.write_text(json.dumps(content | {"normalizer": {"type": "nonsense"}}))
    with pytest.raises(WeightsError, match=r"tokenizer\.json is damaged"):
        read_pieces(path, "siglip")
    path.write_text("[1]")
    with pytest.raises(WeightsError, match="of type None"):
        read_pieces(path, "siglip")
    path.write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        read_pieces(path, "siglip")


def test_the_kind_decides_what_reads_the_files(tmp_path: Path) -> None:
    write_tokens(tmp_path)
    tokens = read_token_files(find_token_files(tmp_path, "byte_pairs"), "byte_pairs")
    row = tokens.rows({"": ["photo"]}, context=4)[0].tolist()
    assert row[0] == 894 and row[2:] == [895, 895], (START, END)
    assert [starting_tokens(kind) for kind in ("byte_pairs", "word_pieces", "siglip", "siglip2")] == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["word_pieces", "byte_pairs"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"padding_side": "left"}', "says padding_side 'left', and texts are read here with 'right'"),
        ('{"do_lower_case": false}', "says do_lower_case False, and texts are read here with True"),
        ("[]", "is damaged"),
        ("{", "tokenizer_config.json"),
    ],
)
def test_tokens_that_are_filled_up_or_spelt_otherwise_are_refused(
    kind: Any, content: str, named: str, tmp_path: Path
) -> None:
    word_list(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "tokenizer_config.json").write_text('{"padding_side": "right", "do_lower_case": true, "unk_token": ""}')
    assert find_token_files(tmp_path, kind)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(WeightsError, match=named):
        find_token_files(tmp_path, kind)
