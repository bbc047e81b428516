"""An image comes out of the gradient of a step on it, and noise or a clip of what leaves takes it away."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from monai_fedlora.auditing.inversion import inverted, resemblance, roughness
from monai_fedlora.auditing.small_batches import Sent
from monai_fedlora.encoding import Encoding

_draw = torch.Generator().manual_seed(3)
WEIGHT = torch.randn(3, 36, generator=_draw) / 6
IMAGES = torch.nn.functional.interpolate(torch.randn(8, 1, 3, 3, generator=_draw), size=(6, 6), mode="bilinear")
LABELS = torch.zeros(8, dtype=torch.long)


def gradient_of(labels: Tensor):  # type: ignore[no-untyped-def]
    """Of a linear layer: for one image a multiple of the image itself, by class."""

    def found(images: Tensor) -> Tensor:
        weight = WEIGHT.clone().requires_grad_()
        loss = cross_entropy(images.flatten(1) @ weight.T, labels)
        return torch.autograd.grad(loss, weight, create_graph=True)[0].flatten()

    return found


def test_one_image_comes_out_of_a_linear_layer_s_gradient_and_resembles_itself_most() -> None:
    seen = gradient_of(LABELS[:1])(IMAGES[:1]).detach()
    found = inverted(gradient_of(LABELS[:1]), seen, (1, 1, 6, 6), seed=0)
    like = resemblance(found, IMAGES)
    assert like[0] > 0.9 and int(like.argmax()) == 0


def test_under_noise_nothing_of_it_is_left() -> None:
    gradients = torch.stack([gradient_of(LABELS[:1])(image[None]).detach() for image in IMAGES])
    seen = Sent(clip=1.0, noise=5.0).of(gradients[:1], torch.Generator().manual_seed(0))
    found = inverted(gradient_of(LABELS[:1]), seen, (1, 1, 6, 6), seed=0)
    assert float(resemblance(found, IMAGES)[0]) < 0.7


def test_what_is_sent_is_the_mean_of_clipped_gradients_with_noise_of_the_clip_s_length() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(Sent().of(gradients, generator), torch.tensor([1.65, 2.2]))
    torch.testing.assert_close(Sent(clip=1.0).of(gradients, generator), torch.tensor([0.45, 0.6]))
    many = torch.zeros(2, 20_000)
    noised = Sent(clip=0.5, noise=3.0).of(many, generator)
    assert float(noised.std()) == pytest.approx(0.75, rel=0.02)  # 3 x 0.5, divided by two patients
    eight = Sent(encoding=Encoding(values="int8")).of(gradients, generator)
    torch.testing.assert_close(eight, torch.tensor([1.65, 2.2]), atol=2.2 / 254 + 1e-6, rtol=0)


def test_roughness_and_resemblance_have_closed_forms() -> None:
    steps = torch.arange(4.0).expand(1, 1, 4, 4)
    assert float(roughness(steps)) == 0.5  # one along the last axis, none along the other
    assert float(roughness(torch.zeros(2, 5))) == 0
    found = torch.stack([IMAGES[0], -IMAGES[1]])
    like = resemblance(3 * found + 7, IMAGES[:2])
    assert float(like[0]) == pytest.approx(1) and float(like[1]) < 1
