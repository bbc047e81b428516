import pytest
import torch
from monai.inferers import SimpleInferer

from monai_fedlora.engines.features import FrozenPrefixInferer, first_trained_block, frozen_prefix_inferer
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import get_method
from monai_fedlora.networks.cinema import ConvViT


def network(method: str = "dual_lora", **settings) -> ConvViT:
    torch.manual_seed(0)
    built = ConvViT(
        image_size=(16, 16, 2),
        n_frames=2,
        out_chans=2,
        patch_size=(2, 2, 1),
        scale_factor=(2, 2, 1),
        conv_chans=(4, 8),
        conv_n_blocks=1,
        embed_dim=24,
        depth=3,
        n_heads=2,
    )
    get_method(method, settings).attach(built)
    return built


def count_prefixes(built: ConvViT, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    prefix = built.prefix
    monkeypatch.setattr(built, "prefix", lambda x, block: calls.append(block) or prefix(x, block))
    return calls


def test_logits_and_gradients_equal_the_whole_network() -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    trained = [p for p in built.parameters() if p.requires_grad]
    whole = built(images)
    expected = torch.autograd.grad(whole.square().sum(), trained)
    kept = FrozenPrefixInferer()(images, built)
    torch.testing.assert_close(kept, whole)
    for one, other in zip(torch.autograd.grad(kept.square().sum(), trained), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_each_image_passes_the_frozen_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built, images, inferer = network(), torch.rand(3, 2, 16, 16, 2), FrozenPrefixInferer()
    calls = count_prefixes(built, monkeypatch)
    for batch in (images[:2], images, images.flip(0)):
        inferer(batch, built)
    assert calls == [1, 1, 1]


def test_features_do_not_depend_on_the_batch_they_came_in() -> None:
    built, images = network(), torch.rand(4, 2, 16, 16, 2)
    one, other = FrozenPrefixInferer(), FrozenPrefixInferer()
    for image in images:
        one(image.unsqueeze(0), built)
    assert torch.equal(one(images, built), other(images, built))


def test_another_network_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    images, inferer = torch.rand(1, 2, 16, 16, 2), FrozenPrefixInferer()
    inferer(images, network())
    second = network()
    calls = count_prefixes(second, monkeypatch)
    inferer(images, second)
    assert len(calls) == 1


@pytest.mark.parametrize(("blocks", "first"), [(1, 2), (2, 1), (0, 0)])
def test_the_cut_is_before_the_first_block_that_trains(blocks: int, first: int) -> None:
    assert first_trained_block(network(blocks=blocks)) == first


def test_a_method_that_trains_the_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="frozen embedding"):
        first_trained_block(network("fedavg"))


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear"):
        FrozenPrefixInferer()(torch.rand(1, 4), torch.nn.Linear(4, 2))


def test_it_is_off_unless_asked_for_and_refuses_augmentation() -> None:
    assert isinstance(frozen_prefix_inferer(enabled=False, augment=True), SimpleInferer)
    assert isinstance(frozen_prefix_inferer(enabled=True), FrozenPrefixInferer)
    with pytest.raises(ConfigError, match="augment"):
        frozen_prefix_inferer(enabled=True, augment=True)
