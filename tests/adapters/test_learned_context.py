"""Learned words: the texts that the tower reads, what trains, and what is left when they are folded away."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional

from monai_fedlora.adapters.learned_context import ContextHead, ContextSettings, attach_context
from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.text_head import CosineHead
from tests.helpers import randomise, tiny_clip, tiny_photographs, tiny_vit


def learning(**settings: Any) -> Any:
    network = tiny_clip()
    attach_context(network, ContextSettings(**settings))
    return network


def read(network: Any, embedded: list[torch.Tensor]) -> torch.Tensor:
    """The tower's features of embedded texts, one after the other, each with the end token last."""
    tower = network.head.tower
    rows = [tower.encode(text[None], torch.tensor([len(text) - 1])) for text in embedded]
    return functional.normalize(torch.cat(rows), dim=-1)


@pytest.mark.parametrize("vectors", [1, 2, 3])
@torch.no_grad()
def test_before_training_the_logits_are_those_of_the_prompts_own_words(vectors: int) -> None:
    assert torch.equal(learning(vectors=vectors)(tiny_photographs(5)), tiny_clip()(tiny_photographs(5)))


@torch.no_grad()
def test_the_last_words_before_the_class_are_learned_and_all_others_stay() -> None:
    network = learning(vectors=2)
    randomise(network, "context")
    table, context = network.head.tower.token.weight, network.head.context
    front = [table[10], table[1], table[2] + context[0], table[3] + context[1]]
    expected = read(
        network, [torch.stack([*front, *(table[token] for token in rest)]) for rest in ([4, 11], [5, 6, 11])]
    )
    torch.testing.assert_close(network.head.texts(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, tiny_clip().head.text, atol=1e-2)


@pytest.mark.parametrize("vectors", [1, 3, 5])
@torch.no_grad()
def test_random_words_take_the_place_of_the_prompts(vectors: int) -> None:
    network = learning(vectors=vectors, start="random")
    table, context = network.head.tower.token.weight, network.head.context
    rows = [
        torch.cat([table[10:11], context, torch.stack([table[token] for token in rest])])
        for rest in ([4, 11], [5, 6, 11])
    ]
    torch.testing.assert_close(network.head.texts(), read(network, rows), rtol=1e-5, atol=1e-5)
    assert 0 < context.abs().max() < 0.1


def test_the_context_alone_trains_and_the_gradient_comes_through_the_tower() -> None:
    network = learning()
    functional.cross_entropy(network(tiny_photographs(4)), torch.tensor([0, 1, 0, 1])).backward()
    assert [key for key, p in network.named_parameters() if p.requires_grad] == ["head.context"]
    assert [key for key, p in network.named_parameters() if p.grad is not None] == ["head.context"]
    assert network.head.context.grad.abs().sum(dim=1).min() > 0
    assert any(key.startswith("head.tower.") for key in network.state_dict())


def test_what_travels_does_not_depend_on_the_length_of_the_texts() -> None:
    longer = tiny_clip()
    reader = longer.head.reader
    ids = torch.cat([reader.ids, reader.ids[:, -1:]], dim=1)
    longer.head.reader = dataclasses.replace(reader, ids=ids, before=5)
    attach_context(longer, ContextSettings())
    one, other = ({key: value.shape for key, value in n.state_dict().items()} for n in (learning(), longer))
    assert one == other


@torch.no_grad()
def test_folding_leaves_the_learned_texts_and_no_tower() -> None:
    network, x = learning(start="random"), tiny_photographs()
    expected = network(x)
    merge_lora(network)
    assert type(network.head) is CosineHead
    assert network.head.reader is None
    assert network.state_dict().keys() == tiny_clip().state_dict().keys()
    assert torch.equal(network(x), expected)


@torch.no_grad()
def test_texts_are_read_in_full_precision_under_autocast() -> None:
    network = learning(start="random")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network.head.texts()
    assert torch.equal(low, network.head.texts())


def test_more_words_than_the_prompt_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="vectors is 4, and the first prompt has only 3 tokens in front of the class"):
        learning(vectors=4)


def test_more_random_words_than_the_tower_reads_are_refused() -> None:
    """Nine tokens are read; the start, a class of two and the end leave five."""
    learning(vectors=5, start="random")
    with pytest.raises(ConfigError, match="vectors is 6, and the tower has room for 5"):
        learning(vectors=6, start="random")


def test_a_head_that_cannot_be_written_anew_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose a CLIP size"):
        attach_context(tiny_vit(), ContextSettings())
    with pytest.raises(ConfigError, match="this head has none"):
        ContextHead(CosineHead(n_classes=2, embed_dim=4, dim=24), ContextSettings())
