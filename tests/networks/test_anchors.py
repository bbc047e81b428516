"""Text features are those of transformers, are computed once, and come back only whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks import anchors as module
from monai_fedlora.networks.anchors import TextAnchors, text_anchors, text_shape
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from tests.networks.clip import SIZE, shapes, write_tokens
from tests.networks.conftest import Checkpoint
from tests.networks.downloaded import download, named_sizes
from tests.networks.published import fuzz

CLASSES = ("NV", "MEL")
PROMPTS = Prompts(
    templates=("a photo of {class}", "{class}, close up"), class_texts={"NV": "a mole", "MEL": "melanoma", "X": "x"}
)


def anchors(source: Path, cache: Path | None = None, **changes: Any) -> TextAnchors:
    return text_anchors(source, **{"size": SIZE, "classes": CLASSES, "prompts": PROMPTS, "cache": cache, **changes})


def same(one: TextAnchors, other: TextAnchors) -> bool:
    tensors = torch.equal(one.features, other.features) and torch.equal(one.projection, other.projection)
    return tensors and (one.logit_scale, one.digest) == (other.logit_scale, other.digest)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints whose text tower is read from now on."""
    read, load = [], module.load_clip_text

    def watched(stored: Any, *args: Any, **options: Any) -> Any:
        read.append(stored.path)
        return load(stored, *args, **options)

    monkeypatch.setattr(module, "load_clip_text", watched)
    return read


def test_an_ensemble_is_the_mean_of_directions(checkpoint: Checkpoint) -> None:
    text, _ = shapes()
    found = anchors(checkpoint.folder)
    ids = read_tokens(find_tokens(checkpoint.folder)).rows(
        dict(zip(CLASSES, PROMPTS.texts(CLASSES), strict=True)), context=text.context
    )
    with torch.no_grad():
        each = checkpoint.model.text_projection(checkpoint.model.text_model(input_ids=ids).pooler_output)
        each = (each / each.norm(dim=-1, keepdim=True)).reshape(2, 2, -1).mean(1)
    torch.testing.assert_close(found.features, each / each.norm(dim=-1, keepdim=True), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.features.norm(dim=-1), torch.ones(2))
    assert not found.features.requires_grad


def test_a_kept_entry_equals_a_computed_one(checkpoint: Checkpoint, tmp_path: Path, unread: list[Path]) -> None:
    computed, kept, recalled = (anchors(checkpoint.folder, cache) for cache in (None, tmp_path / "c", tmp_path / "c"))
    assert same(computed, kept)
    assert same(kept, recalled)
    assert len(unread) == 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == [f"{kept.digest}.safetensors"]


def test_an_entry_is_its_owners_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    digest = anchors(checkpoint.folder, tmp_path / "a" / "c").digest
    folder = tmp_path / "a" / "c"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{digest}.safetensors").stat().st_mode) == 0o600


@pytest.mark.slow
def test_from_the_cache_nothing_is_imported_that_reads_texts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = tmp_path / "clip.safetensors"
    shutil.copy(checkpoint.folder / "model.safetensors", weights)
    write_tokens(tmp_path)
    anchors(weights, tmp_path / "c")
    program = f"""
import sys
from pathlib import Path
from monai_fedlora.networks import anchors
anchors.load_clip_text = anchors.read_tokens = None
found = anchors.text_anchors({str(weights)!r}, size={SIZE!r}, classes={CLASSES!r}, cache=Path({str(tmp_path / "c")!r}),
    prompts=anchors.Prompts(templates={PROMPTS.templates!r}, class_texts={dict(PROMPTS.class_texts)!r}))
print(found.digest, *(name for name in ("transformers", "tokenizers") if name in sys.modules))
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [anchors(weights).digest]


def test_whatever_decides_the_features_is_in_the_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = anchors(checkpoint.folder, tmp_path).digest
    other_text = Prompts(templates=PROMPTS.templates, class_texts={"NV": "a naevus", "MEL": "melanoma"})
    other_order = Prompts(templates=PROMPTS.templates[::-1], class_texts=PROMPTS.class_texts)
    others = {
        anchors(checkpoint.folder, tmp_path, **changes).digest
        for changes in ({"classes": CLASSES[::-1]}, {"prompts": other_text}, {"prompts": other_order})
    }
    copied = tmp_path / "copy"
    shutil.copytree(checkpoint.folder, copied)
    assert anchors(copied, tmp_path).digest == base
    with (copied / "merges.txt").open("a") as stream:
        stream.write("\n")
    others.add(anchors(copied, tmp_path).digest)
    write_tokens(copied)
    tensors, _ = files.load_tensors(copied / "model.safetensors")
    tensors["logit_scale"] += 1
    files.save_tensors(copied / "model.safetensors", tensors)
    others.add(anchors(copied, tmp_path).digest)
    assert len(others | {base}) == 6
    unused = Prompts(templates=PROMPTS.templates, class_texts={**PROMPTS.class_texts, "Y": "y"})
    assert anchors(checkpoint.folder, tmp_path, prompts=unused).digest == base


def entry_of(folder: Path) -> Path:
    (entry,) = folder.glob("*.safetensors")
    return entry


def assert_recomputed(checkpoint: Checkpoint, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = anchors(checkpoint.folder)
    with caplog.at_level(logging.WARNING):
        assert same(anchors(checkpoint.folder, folder), expected)
    assert f"{entry_of(folder)} is damaged or not what its name says" in caplog.text
    caplog.clear()
    assert same(anchors(checkpoint.folder, folder), expected)
    assert not caplog.text


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_a_damaged_entry_is_computed_again(data: st.DataObject, checkpoint: Checkpoint, tmp_path: Path) -> None:
    expected = anchors(checkpoint.folder, tmp_path)
    entry = entry_of(tmp_path)
    content = bytearray(entry.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    entry.write_bytes(content)
    assert same(anchors(checkpoint.folder, tmp_path), expected)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_file_of_another_format_is_replaced(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    digest = anchors(checkpoint.folder).digest
    (tmp_path / f"{digest}.safetensors").write_bytes(content)
    assert_recomputed(checkpoint, tmp_path, caplog)


def test_an_entry_of_another_name_is_replaced(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    anchors(checkpoint.folder, tmp_path, classes=CLASSES[::-1])
    os.rename(entry_of(tmp_path), tmp_path / f"{anchors(checkpoint.folder).digest}.safetensors")
    assert_recomputed(checkpoint, tmp_path, caplog)


def test_an_entry_of_other_shapes_is_replaced(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    anchors(checkpoint.folder, tmp_path)
    tensors, metadata = files.load_tensors(entry_of(tmp_path))
    tensors["features"] = tensors["features"][:1]
    metadata["checksum"] = module._checksum(tensors)
    files.save_tensors(entry_of(tmp_path), tensors, metadata)
    assert_recomputed(checkpoint, tmp_path, caplog)


def test_a_cache_that_cannot_be_written_is_done_without(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert same(anchors(checkpoint.folder, tmp_path / "file" / "c"), anchors(checkpoint.folder))
    assert "the text features are not kept" in caplog.text


def test_a_long_text_names_its_class_and_keeps_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompts = Prompts(class_texts={"NV": "a mole", "MEL": "x-" * 20})
    with pytest.raises(ConfigError, match=r"the text of class 'MEL' is too long: .* reads 32"):
        anchors(checkpoint.folder, tmp_path, prompts=prompts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("vit_demo", r"a vit_demo network cannot read texts; choose a size that can: clip_demo, clip_base_32, "),
        ("small", "a small network cannot read texts"),
        ("clip", "no network size is called 'clip'"),
    ],
)
def test_only_a_clip_reads_texts(checkpoint: Checkpoint, size: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        anchors(checkpoint.folder, size=size)


def test_published_text_towers_have_the_published_number_of_parameters() -> None:
    from monai_fedlora.networks.text import TextTransformer

    # Tokens, positions, blocks of 12 D^2 + 13 D, the last norm and the projection.
    for size, expected in (("clip_base_32", 63_428_096), ("clip_base_16", 63_428_096), ("clip_large_14", 123_650_304)):
        with torch.device("meta"):
            tower = TextTransformer(text_shape(size)[0])
        assert sum(parameter.numel() for parameter in tower.parameters()) == expected


def test_another_file_than_the_image_towers_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    digest = files.sha256(checkpoint.folder / "model.safetensors")
    assert same(anchors(checkpoint.folder, sha256=digest.upper()), anchors(checkpoint.folder))
    with pytest.raises(WeightsError, match=f"read by .*{digest}.* both towers must come from one checkpoint"):
        anchors(checkpoint.folder, sha256="0" * 64)


def test_tokens_of_another_checkpoint_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copy(checkpoint.folder / "model.safetensors", tmp_path / "clip.safetensors")
    write_tokens(tmp_path, vocabulary=800)
    with pytest.raises(WeightsError, match="comes with 800 tokens, and a clip_demo text tower reads 896"):
        anchors(tmp_path / "clip.safetensors")


def another_models(folder: Path, family: str, changes: dict[str, int], *, more: int = 0) -> Path:
    """A family's folder with a tokenizer in which some tokens have other numbers, and some words are too many."""
    from transformers import BertTokenizer, Siglip2Tokenizer

    download(family, folder)
    path = folder / "tokenizer.json"
    numbers: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
    kept = [token for token in sorted(numbers, key=numbers.__getitem__) if token not in changes]
    kept += [f"zz{number}" for number in range(more)] if more > 0 else []
    kept = kept[: len(kept) + min(more, 0)]
    for token, number in sorted(changes.items(), key=lambda item: item[1]):
        kept.insert(number, token)
    path.unlink()
    vocabulary = {token: number for number, token in enumerate(kept)}
    theirs = BertTokenizer(vocab=vocabulary) if family == "biomedclip" else Siglip2Tokenizer(vocab=vocabulary)
    theirs.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "changes", "more", "message"),
    [
        ("biomedclip", {"[SEP]": 40}, 0, "of which number 40 ends a text, .* reads 3 there"),
        ("biomedclip", {}, 5, "comes with 62 tokens, .* reads 57"),
        ("biomedclip", {}, -5, "comes with 52 tokens, .* reads 57"),
        ("siglip2", {"<pad>": 1, "<eos>": 0}, 0, "of which number 0 ends a text, .* reads 1 there"),
        ("siglip2", {"<pad>": 7}, 0, "of which number 0 ends a text, .* reads 1 there"),
        ("siglip2", {"<pad>": 2, "<bos>": 0}, 0, "of which number 2 fills up a text, .* reads 0 there"),
        ("siglip2", {}, 3, "comes with 37 tokens, .* reads 34"),
    ],
)
def test_another_models_tokens_are_refused(
    family: str, changes: dict[str, int], more: int, message: str, tmp_path: Path
) -> None:
    folder = another_models(tmp_path / family, family, changes, more=more)
    with named_sizes(), pytest.raises(WeightsError, match=f"{message}; they are of different checkpoints"):
        module.read_clip(folder, f"small_{family}")


def test_the_same_models_tokens_written_again_are_read(tmp_path: Path) -> None:
    """What is refused above is refused for its changes."""
    for family in ("biomedclip", "siglip2"):
        with named_sizes():
            module.read_clip(another_models(tmp_path / family, family, {}), f"small_{family}")


def test_shapes_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"text features \(2, 4\) and a projection \(5, 6\) cannot be compared"):
        TextAnchors(features=torch.ones(2, 4), projection=torch.ones(5, 6), logit_scale=1.0, digest="")
