from __future__ import annotations

import math

import pytest
import torch

from monai_fedlora.networks.cinema import convunetr, convvit
from monai_fedlora.networks.heart_supervision import HeartSupervision, mask_loss


def shares_of(labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([labels == 1, labels == 2], 2).float()


def test_mask_loss_is_twice_the_entropy_and_the_missing_dice() -> None:
    shares = shares_of(torch.randint(0, 3, (2, 2, 4, 4, 2), generator=torch.Generator().manual_seed(0)))
    uniform = torch.zeros(2, 2, 3, 4, 4, 2)
    size, n = shares.sum((0, 3, 4, 5)), 2 * 4 * 4 * 2
    dice = (2 * size / 3 / (n / 3 + size)).mean()
    assert float(mask_loss(uniform, shares)) == pytest.approx(2 * math.log(3) + 1 - float(dice), rel=1e-5)


def test_mask_loss_of_a_perfect_answer_is_nothing() -> None:
    shares = shares_of(torch.randint(0, 3, (2, 2, 4, 4, 2), generator=torch.Generator().manual_seed(0)))
    sure = torch.cat([1 - shares.sum(2, keepdim=True), shares], 2) * 100
    assert float(mask_loss(sure, shares)) == pytest.approx(0, abs=1e-5)


def test_a_structure_that_is_nowhere_costs_what_is_claimed_of_it() -> None:
    nothing = torch.zeros(1, 1, 1, 4, 4, 2)
    certain = torch.stack([torch.full((1, 1, 4, 4, 2), 50.0), torch.zeros(1, 1, 4, 4, 2)], 2)
    assert math.isfinite(float(mask_loss(certain, nothing)))


SIZE = (16, 16, 2)


@pytest.fixture
def network() -> HeartSupervision:
    torch.manual_seed(0)
    classifier = convvit("small", out_chans=1, image_size=SIZE)
    return HeartSupervision(classifier, convunetr("small", out_chans=4, image_size=SIZE), numbers=2, classes=5)


def batch(label: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(2, 2, 3, *SIZE, generator=generator) / 3
    return torch.rand(2, 2, *SIZE, generator=generator), shares, torch.ones(2, 2), torch.full((2,), label)


def test_everything_but_the_classifiers_head_learns(network: HeartSupervision) -> None:
    network(*batch()).backward()
    idle = {key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {key for key, _ in network.named_parameters() if key.startswith("classifier.pred_head_dict.")}


def test_a_heart_between_the_classes_has_no_class_loss(network: HeartSupervision) -> None:
    network(*batch(label=-1))
    assert not network.parts["class"].any()
    network(*batch(label=3))
    assert network.parts["class"].all()


def test_classifier_and_segmenter_read_as_they_do_alone(network: HeartSupervision) -> None:
    network.eval()
    image = batch()[0]
    decoded, fused, pooled = network.read(image)
    torch.testing.assert_close(decoded, network.segmenter(image))
    heads = network.classifier.pred_head_dict
    both = (heads["sax"](fused.mean(1)) + heads["cls"](pooled[:, fused.shape[2] :])) / 2
    torch.testing.assert_close(both, network.classifier(image))


def test_one_state_serves_both_networks(network: HeartSupervision) -> None:
    state = network.backbone_state()
    classifier, segmenter = (
        convvit("small", out_chans=2, image_size=SIZE),
        convunetr("small", out_chans=4, image_size=SIZE),
    )
    assert set(segmenter.state_dict()) <= set(state)
    heads = segmenter.head_prefixes
    encoder = {key: value for key, value in state.items() if not key.startswith(heads)}
    missing = classifier.load_state_dict(encoder, strict=False).missing_keys
    assert missing == [key for key in classifier.state_dict() if key.startswith(classifier.head_prefixes)]
    segmenter.load_state_dict({key: state[key] for key in segmenter.state_dict()})
    image = batch()[0]
    torch.testing.assert_close(segmenter.eval()(image), network.eval().segmenter(image))


def test_token_shares_are_the_mean_over_each_tokens_voxels(network: HeartSupervision) -> None:
    shares = batch()[1]
    found = network._token_shares(shares)
    x, y, z = 1, 0, 1
    number = (x * 2 + y) * 2 + z
    expected = shares[:, :, :, 8:16, 0:8, 1].mean((3, 4)).flatten(1)
    torch.testing.assert_close(found[:, number], expected)
