"""The packaged CLIP is a whole checkpoint, reads any words, and knows what it was shown without further training."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from monai_fedlora.data.photo_phantom.captions import CLASS_NAMES
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.networks.anchors import text_anchors
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.text_head import CosineHead, put_head
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.networks.clip import SIZE, clip_model, photographs, shapes

KIND = KINDS["dermoscopy"]


def weights() -> Path:
    path = demo_weights(SIZE)
    assert path is not None
    return path


def network(templates: tuple[str, ...] = ("a photo of {class}",)) -> VisionTransformer:
    texts = {name: CLASS_NAMES[name][0] for name in KIND.demo}
    prompts = Prompts(templates=templates, class_texts=texts)
    built = build_backbone(SIZE, out_chans=len(KIND.demo)).eval()
    assert isinstance(built, VisionTransformer)
    load_backbone(built, weights())
    put_head(built, CosineHead.of(text_anchors(weights(), size=SIZE, classes=KIND.demo, prompts=prompts)))
    return built


@cache
def skin(camera: str, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of the demonstration's classes that no training has seen, and their labels."""
    prepare = preprocessing(size=SIZE, style="dermoscopy").transforms[1]
    images, labels = [], []
    for label, group in enumerate(KIND.demo):
        for number in range(count):
            stored = KIND.file(group, KIND.cameras[camera], (77, label, number), shot=0, size=120, suffix=".jpg")
            pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(stored)).tobytes()), dtype=torch.uint8)
            picture = pixels.reshape(120, -1, 3).permute(2, 0, 1) / 255
            images.append(prepare({"image": picture})["image"])
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


@torch.no_grad()
def test_transformers_reads_the_same_from_it() -> None:
    model = clip_model()
    state = {key: value.float() for key, value in load_file(weights()).items()}
    model.load_state_dict(state)
    own, x = network(), photographs()
    texts = [f"a photo of {CLASS_NAMES[name][0]}" for name in KIND.demo]
    ids = read_tokens(find_tokens(weights())).rows({"": texts}, context=shapes()[0].context)
    torch.testing.assert_close(own(x), model(input_ids=ids, pixel_values=x).logits_per_image, rtol=1e-4, atol=1e-4)


def test_its_tokens_are_those_of_transformers_for_any_words() -> None:
    from transformers import CLIPTokenizer

    own, theirs = read_tokens(find_tokens(weights())), CLIPTokenizer.from_pretrained(weights().parent)
    for text in ("a photo of melanocytic naevus", "Herzinsuffizienz, 3 Äste", "\u5fc3\u81d3 \U0001fac0", "x" * 50):
        assert own.encode(text) == theirs(text).input_ids
    assert len(own.encode("a photo of melanocytic naevus")) == 7


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("camera", ["A", "F"])
def test_it_tells_skin_lesions_apart_without_training(camera: str) -> None:
    images, labels = skin(camera)
    right = (network()(images).argmax(1) == labels).float()
    assert right.mean() > 0.5, "chance is 0.25"


@pytest.mark.slow
@torch.no_grad()
def test_other_templates_mean_the_same() -> None:
    images, labels = skin("A")
    ensemble = ("a photo of a {class}", "an image of {class}", "this is {class}", "a dermoscopic image of {class}")
    right = (network(ensemble)(images).argmax(1) == labels).float()
    assert right.mean() > 0.5, "chance is 0.25"
