"""A CLIP with random weights, its tokens and its folder, for the tests that read texts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_fedlora.files import save_tensors
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.networks.clip_text import clip_state
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.tokens import END, START, WORD_END, alphabet
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from tests.helpers import randomise
from tests.networks.published import randomised

SIZE = "clip_demo"
WORDS = ("photo", "of", "melanoma", "naevus", "retina", "mole")
SHIPPED_WORDS = ("keratosis", "lesion", "diabetic", "retinopathy", "proliferative", "moderate", "severe")
TEXTS = ("a photo of melanoma", "A photo  of a Naevus!!", "mole's 12 Röntgen, 'μέ' ☃", "a")


def shapes() -> tuple[TextSettings, ViTSettings]:
    chosen = architecture(SIZE)
    assert chosen.text is not None
    assert isinstance(chosen.shape, ViTSettings)
    return chosen.text, chosen.shape


def tokens_of(words: tuple[str, ...] = WORDS, *, vocabulary: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary in which each of these words is one token, filled up with tokens that no text has."""
    numbers = {token: number for number, token in enumerate(alphabet())}
    merges = []
    for word in words:
        start, *rest = [*word[:-1], word[-1] + WORD_END]
        for part in rest:
            if start + part not in numbers:
                numbers[start + part] = len(numbers)
                merges.append((start, part))
            start += part
    while len(numbers) < vocabulary - 2:
        numbers[f"unused {len(numbers)}"] = len(numbers)
    return numbers | {START: vocabulary - 2, END: vocabulary - 1}, merges


def write_tokens(folder: Path, *, words: tuple[str, ...] = WORDS, vocabulary: int = 896) -> Path:
    numbers, merges = tokens_of(words, vocabulary=vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def clip_model(**changes: Any) -> nn.Module:
    """transformers' CLIP of the demonstration's shape; changes go to its text tower."""
    from transformers import CLIPConfig, CLIPModel

    text, image = shapes()
    text_config = {
        "vocab_size": text.vocabulary,
        "hidden_size": text.dim,
        "intermediate_size": text.dim * text.mlp_ratio,
        "num_hidden_layers": text.depth,
        "num_attention_heads": text.n_heads,
        "max_position_embeddings": text.context,
        "bos_token_id": text.vocabulary - 2,
        "eos_token_id": text.vocabulary - 1,
        "projection_dim": text.embed_dim,
    }
    vision_config = {
        "hidden_size": image.dim,
        "intermediate_size": image.dim * image.mlp_ratio,
        "num_hidden_layers": image.depth,
        "num_attention_heads": image.n_heads,
        "image_size": image.image_size[0],
        "patch_size": image.patch,
        "projection_dim": text.embed_dim,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = CLIPConfig(
            text_config=text_config | changes, vision_config=vision_config, projection_dim=text.embed_dim
        )
        return randomised(CLIPModel(config))


def write_clip(folder: Path, model: nn.Module) -> Path:
    """A folder as ``save_pretrained`` of the model and its tokens writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    return write_tokens(folder)


def write_towers(folder: Path, *, seed: int = 0) -> Path:
    """Two random towers and their tokens without a description, written by this package alone; returns the file."""
    text, image = shapes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = VisionTransformer(image, out_chans=1), TextTransformer(text)
        projection = torch.randn(text.embed_dim, image.dim) / image.dim**0.5
    randomise(towers[1], "token", "position", seed=seed, scale=0.3)
    state = clip_state(*towers, projection=projection, logit_scale=torch.tensor(3.0))
    save_tensors(
        write_tokens(folder, words=(*WORDS, *SHIPPED_WORDS)) / "clip.safetensors", state, {"size": "clip_demo"}
    )
    return folder / "clip.safetensors"


def photographs(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, *shapes()[1].image_size, generator=torch.Generator().manual_seed(4))
