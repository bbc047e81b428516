"""The text tower equals transformers' stage by stage, and reads no further than a text's end."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.clip_text import load_clip_text
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.clip import TEXTS, shapes
from tests.networks.conftest import Checkpoint

TINY = {"context": 8, "vocabulary": 20, "dim": 16, "depth": 2, "n_heads": 2, "embed_dim": 6}


def tiny(seed: int = 0) -> TextTransformer:
    torch.manual_seed(seed)
    return TextTransformer(TextSettings(**TINY)).eval()


def test_every_stage_equals_transformers(checkpoint: Checkpoint) -> None:
    text, image = shapes()
    tower = load_clip_text(find_weights(checkpoint.folder), text, dim=image.dim).tower
    ids = read_tokens(find_tokens(checkpoint.folder)).rows({"": TEXTS}, context=text.context)
    theirs = checkpoint.model.text_model
    with torch.no_grad():
        expected = theirs(input_ids=ids, output_hidden_states=True)
        x = tower.token(ids) + tower.position
        for block, hidden in zip([*tower.blocks, None], expected.hidden_states, strict=True):
            torch.testing.assert_close(x, hidden, rtol=1e-5, atol=1e-5)
            x = block(x) if block is not None else x
        torch.testing.assert_close(tower.norm(x), expected.last_hidden_state, rtol=1e-5, atol=1e-5)
        projected = checkpoint.model.text_projection(expected.pooler_output)
        torch.testing.assert_close(tower(ids), projected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_follows_the_end_changes_nothing() -> None:
    tower = tiny()
    end = tower.settings.end_token
    short = torch.tensor([[18, 3, 4, end]])
    padded = torch.tensor([[18, 3, 4, end, end, end, 7, 2]])
    torch.testing.assert_close(tower(short), tower(padded))
    assert tower.ends(torch.cat([padded, padded.roll(1, 1)])).tolist() == [3, 4]


@torch.no_grad()
def test_a_token_sees_only_those_before_it() -> None:
    tower = tiny()
    one, other = torch.tensor([[18, 3, 4, 5, 19]]), torch.tensor([[18, 3, 9, 5, 19]])
    before, after = (tower.blocks[0](tower.token(ids)) for ids in (one, other))
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2:], after[:, 2:]).all(-1).any()


@torch.no_grad()
def test_vectors_may_stand_where_tokens_were() -> None:
    tower = tiny()
    ids = torch.tensor([[18, 3, 4, 19], [18, 5, 19, 19]])
    torch.testing.assert_close(tower.encode(tower.token(ids), tower.ends(ids)), tower(ids))


def test_the_seed_decides_what_is_drawn() -> None:
    one, same, other = (tiny(seed).state_dict() for seed in (1, 1, 2))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one["token.weight"], other["token.weight"])
    assert 0.015 < float(one["token.weight"].std()) < 0.025


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 2}, "context must be at least 3, not 2"),
        ({"vocabulary": 1}, "vocabulary must be at least 2"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"n_heads": 0}, "n_heads must be at least 1"),
        ({"embed_dim": 0}, "embed_dim must be at least 1"),
        ({"dim": 15}, "dim 15 must be positive and a multiple of n_heads 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextSettings(**(TINY | changes))
