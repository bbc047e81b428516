"""The tokens of one text per class, beside the tower that reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import text_anchors
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.text_reader import TextReader, read_texts, unread_texts
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from tests.networks.clip import SIZE, shapes
from tests.networks.conftest import Checkpoint

CLASSES = ("NV", "MEL")
TEXTS = {"NV": "a mole", "MEL": "melanoma naevus retina"}


def reader(checkpoint: Checkpoint, *templates: str, **changes: Any) -> TextReader:
    prompts = Prompts(templates=templates or ("a photo of {class}",), class_texts=TEXTS)
    return read_texts(checkpoint.folder, **{"size": SIZE, "classes": CLASSES, "prompts": prompts, **changes})


def test_the_tokens_are_those_of_the_first_template_without_needless_ends(checkpoint: Checkpoint) -> None:
    found = reader(checkpoint, "a photo of {class} of a retina", "{class}")
    encode = read_tokens(find_tokens(checkpoint.folder)).encode
    nv, mel = (encode(f"a photo of {TEXTS[name]} of a retina") for name in CLASSES)
    assert found.ids.tolist() == [nv + [nv[-1]] * (len(mel) - len(nv)), mel]
    assert encode("a photo of") == [found.ids[0, 0].item(), *found.ids[0, 1 : 1 + found.before].tolist(), mel[-1]]
    assert found.context == shapes()[0].context


@torch.no_grad()
def test_what_it_reads_are_the_anchors(checkpoint: Checkpoint) -> None:
    found = reader(checkpoint)
    prompts = Prompts(class_texts=TEXTS)
    expected = text_anchors(checkpoint.folder, size=SIZE, classes=CLASSES, prompts=prompts).features
    torch.testing.assert_close(functional.normalize(found.tower(found.ids), dim=-1), expected, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in found.tower.parameters())


@pytest.mark.parametrize(("template", "before"), [("{class}", 0), ("{class} of a retina", 0), ("photo - {class}", 2)])
def test_the_words_before_the_class_are_counted(checkpoint: Checkpoint, template: str, before: int) -> None:
    start = read_tokens(find_tokens(checkpoint.folder)).encode(template.partition("{")[0])[:-1]
    assert reader(checkpoint, template).before == len(start) - 1 >= before


def test_a_class_that_runs_into_the_words_before_it_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="class 'MEL' runs into the word in front of it; put a blank"):
        reader(
            checkpoint,
            "a photo{class}",
            prompts=Prompts(templates=("a photo{class}",), class_texts=TEXTS | {"NV": "- a mole"}),
        )


def test_a_text_that_is_too_long_is_refused_with_its_class(checkpoint: Checkpoint) -> None:
    prompts = Prompts(class_texts=TEXTS | {"MEL": "n " * 60})
    with pytest.raises(ConfigError, match="class 'MEL' is too long"):
        reader(checkpoint, prompts=prompts)


def test_a_size_without_texts_is_refused(checkpoint: Checkpoint) -> None:
    for build in (lambda: reader(checkpoint, size="vit_demo"), lambda: unread_texts("vit_demo", 2)):
        with pytest.raises(ConfigError, match="cannot read texts"):
            build()


@torch.no_grad()
def test_shapes_can_be_had_without_a_checkpoint(checkpoint: Checkpoint) -> None:
    found, state = unread_texts(SIZE, 3), torch.get_rng_state()
    own = reader(checkpoint).tower.state_dict()
    assert {key: value.shape for key, value in found.tower.state_dict().items()} == {
        key: value.shape for key, value in own.items()
    }
    assert torch.equal(found.tower(found.ids), torch.zeros(3, 64))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.device("meta"):
        empty = unread_texts(SIZE, 3)
        assert empty.tower(empty.ids).shape == (3, 64)
