"""Folders as their owners publish them on a hub, in small: weights, descriptions and tokens, with random weights.

Every family has the row of the catalogue that the folder fits, so that a test can give it a name.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.vit import ViTSettings
from tests.networks import towers
from tests.networks.clip import write_tokens
from tests.networks.published import randomised, tensors_file
from tests.networks.test_published_layouts import dinov2, published, registers, timm

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
"""What the files beside the weights say, and no size of the catalogue."""
CONTEXT = 96
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
_SHAPE: dict[str, Any] = {
    "image_size": (towers.SIDE, towers.SIDE),
    "patch": towers.PATCH,
    "dim": towers.WIDTH,
    "n_heads": towers.HEADS,
}
_DINO = ViTSettings(**_SHAPE, depth=3, layer_scale=True)
_TOWER = ViTSettings(**_SHAPE, depth=towers.LAYERS)
_LETTERS = "▁" + string.ascii_lowercase + "-"
_PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": towers.SIDE, "width": towers.SIDE},
}


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A family.

    Attributes:
        write: writes the folder.
        shape: of the image tower.
        text: of the text tower; None where there is none.
    """

    write: Callable[[Path], Any]
    shape: ViTSettings
    text: Any = None

    def row(self, name: str) -> Architecture:
        """What a name stands for, with a normalisation that the files beside the weights contradict."""
        grey = (0.5, 0.5, 0.5)
        return Architecture(name=name, shape=self.shape, text=self.text, mean=grey, std=grey, source="a test")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _dinov3(folder: Path) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    from tests.networks.published import HF

    randomised(DINOv3ViTModel(DINOv3ViTConfig(**HF, num_register_tokens=4))).save_pretrained(folder)
    _write(folder / "preprocessor_config.json", {**_PROCESSOR, "image_processor_type": "DINOv3ViTImageProcessorFast"})


def _registers(folder: Path) -> None:
    randomised(registers()).save_pretrained(folder)
    cropped = {"do_center_crop": True, "crop_size": _PROCESSOR["size"], "size": {"shortest_edge": 2 * towers.SIDE}}
    _write(folder / "preprocessor_config.json", {**_PROCESSOR, **cropped, "image_processor_type": "BitImageProcessor"})


def _uni(folder: Path) -> None:
    state = timm(published(randomised(dinov2()), folder.parent / "as transformers has it"))
    torch.save(state, folder / "pytorch_model.bin")
    cfg = {
        "tag": "uni_mass100k",
        "custom_load": True,
        "input_size": [3, towers.SIDE, towers.SIDE],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 1,
        "crop_mode": "center",
        "mean": MEAN,
        "std": STD,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": [],
        "license": "CC-BY-NC-ND 4.0",
    }
    model_args = {"img_size": towers.SIDE, "init_values": 1, "num_heads": towers.HEADS}
    described = {
        "architecture": "vit_large_patch16_224",
        "num_classes": 0,
        "num_features": towers.WIDTH,
        "global_pool": "token",
        "model_args": model_args,
        "pretrained_cfg": cfg,
    }
    _write(folder / "config.json", described)


def _siglip2(folder: Path) -> None:
    from transformers import Siglip2Tokenizer

    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    for token in (*_LETTERS, "of"):
        vocabulary.setdefault(token, len(vocabulary))
    towers.siglip(vocabulary=len(vocabulary), context=CONTEXT).save_pretrained(folder)
    Siglip2Tokenizer(vocab=vocabulary, merges=[("o", "f")]).save_pretrained(folder)
    _write(folder / "preprocessor_config.json", {**_PROCESSOR, "image_processor_type": "SiglipImageProcessor"})


def _open_clip(folder: Path) -> None:
    text = {"context": CONTEXT, "vocabulary": 896}
    model = towers.open_clip(text=text)
    tensors_file(model, write_tokens(folder)).rename(folder / "open_clip_model.safetensors")
    vision = {"image_size": towers.SIDE, "layers": towers.LAYERS, "width": towers.WIDTH, "patch_size": towers.PATCH}
    vision |= {"head_width": towers.WIDTH // towers.HEADS}
    described = {"context_length": CONTEXT, "vocab_size": 896, "width": towers.WIDTH, "heads": towers.HEADS}
    config = {
        "embed_dim": towers.EMBED,
        "vision_cfg": vision,
        "text_cfg": {**described, "layers": towers.LAYERS},
    }
    said = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    _write(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": said})


def _biomedclip(folder: Path) -> None:
    from transformers import BertTokenizer

    model = towers.biomedclip(vocabulary=len(PIECES), positions=2 * CONTEXT)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    BertTokenizer(vocab={piece: number for number, piece in enumerate(PIECES)}).save_pretrained(folder)
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    config = {
        "embed_dim": towers.EMBED,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_model_kwargs": {"num_heads": towers.HEADS},
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": towers.SIDE,
        },
        "text_cfg": {
            "hf_model_name": name,
            "hf_tokenizer_name": name,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": CONTEXT,
        },
    }
    _write(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}})


DOWNLOADED = {
    "dinov3": Downloaded(
        write=_dinov3,
        shape=replace(_DINO, norm_eps=1e-5, key_bias=False, registers=4, positions="rotary"),
    ),
    "dinov2_registers": Downloaded(write=_registers, shape=replace(_DINO, registers=4)),
    "uni": Downloaded(write=_uni, shape=_DINO),
    "siglip2": Downloaded(
        write=_siglip2,
        shape=replace(_TOWER, activation="gelu_tanh", class_token=False, readout="map", mlp_ratio=60 / towers.WIDTH),
        text=replace(towers.SIGLIP, context=CONTEXT, vocabulary=5 + len(_LETTERS) + 1, tokens="siglip2", pad=0),
    ),
    "open_clip": Downloaded(
        write=_open_clip,
        shape=replace(_TOWER, norm_eps=1e-5, patch_bias=False, pre_norm=True),
        text=replace(towers.CLIP, context=CONTEXT, vocabulary=896),
    ),
    "biomedclip": Downloaded(
        write=_biomedclip,
        shape=_TOWER,
        text=replace(towers.BERT, context=CONTEXT, positions=2 * CONTEXT, vocabulary=len(PIECES)),
    ),
}
WITH_TEXTS = [name for name, family in DOWNLOADED.items() if family.text is not None]


@contextmanager
def named_sizes() -> Iterator[None]:
    """Every family as a size ``small_<family>``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, family in DOWNLOADED.items():
            patch.setitem(IMAGE_SIZES, f"small_{name}", family.row(f"small_{name}"))
        yield


def download(name: str, folder: Path) -> Path:
    """The folder of a family, written."""
    folder.mkdir(parents=True)
    DOWNLOADED[name].write(folder)
    return folder
