"""Methods on networks of one's own, in a training loop of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import monai_fedlora as fl
from monai_fedlora.adapters.lora import lora_layers
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.methods.base import Phase
from monai_fedlora.networks.opened import logits_of
from tests.helpers import randomise, tiny_network, tiny_photographs, tiny_vit
from tests.own_networks import OWN, Own

WITHOUT_TEXTS = [name for name in method_names() if not get_method(name).reads_text] + ["pfedst"]
LABELS = torch.tensor([0, 1])


def choice(own: Own, name: str, **words: Any) -> fl.MethodChoice:
    """A method on the places of a network that it knows."""
    places: dict[str, Any] = {"head": own.head, "blocks": own.blocks}
    if hasattr(get_method(name), "targets"):
        places |= {"targets": own.targets, "rank": 2}
    if name == "pfedst":
        places |= {"classifier": "linear", "heads": 2, "rank": 2}
    return fl.method(name, **places, **words)


def attached(own: Own, name: str, *, seed: int = 0, **words: Any) -> fl.Attached:
    return fl.attach(own.network(), choice(own, name, **words), seed=seed).eval()


def step(site: fl.Attached, own: Own, *, seed: int) -> set[str]:
    """A training loop of one's own: one step in each of the method's phases, with its penalty.

    Returns:
        The names of the parameters that had a gradient.
    """
    moved: set[str] = set()
    images = own.images(2, seed=seed)
    rate = 0.01 + 0.001 * seed  # a first step of Adam is as long as this, whatever the images are
    optimizer = torch.optim.AdamW(site.trainable().values(), lr=rate, weight_decay=0.1)
    site.train()
    with site.penalty() as penalty:
        for phase in site.phases() or [Phase(share=1.0, trains=lambda name: True)]:
            optimizer.zero_grad()
            with phase.view():
                (functional.cross_entropy(site(images), LABELS) + penalty()).backward()
            for name, parameter in site.trainable().items():
                if not phase.trains(name):
                    parameter.grad = None
                elif parameter.grad is not None and parameter.grad.any():
                    moved.add(name)
            optimizer.step()
    site.eval()
    return moved


def values(site: fl.Attached) -> dict[str, Any]:
    return {key: value.clone() for key, value in site.opened.state_dict().items()}


EVERY_METHOD = [
    (own, name) for own in ("monai-vit", "cnn") for name in WITHOUT_TEXTS if own != "cnn" or name != "pfedst"
]
SOME_METHODS = [(own, name) for own in OWN for name in ("dual_lora", "ditto", "fedbn")]
PAIRS = list(dict.fromkeys([*EVERY_METHOD, *SOME_METHODS]))
SLOW = [pair for place, pair in enumerate(PAIRS[len(EVERY_METHOD) :]) if place % 3]


@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(*pair, marks=pytest.mark.slow if pair in SLOW else ()) for pair in PAIRS]
)
def test_a_method_does_on_any_network_what_it_promises(kind: str, name: str) -> None:
    own, images = OWN[kind], OWN[kind].images()
    plain = own.network()
    original = logits_of(plain(images), batch=2)
    sites = [attached(own, name, seed=seed) for seed in (1, 2)]
    site = sites[0]

    assert torch.equal(site(images), original)
    site.begin_round(0)
    assert torch.equal(site(images), original)

    up, stays = set(site.manifest.up.entries), set(site.private())
    assert set(site.trainable()) == up | stays
    assert set(site.shared()) == up
    sent = site.initial()
    for number, one in enumerate(sites):
        one.load_shared(sent)
        one.begin_round(0)
        before = values(one)
        moved = step(one, own, seed=number + 5)
        changed = {key for key, value in one.opened.state_dict().items() if not torch.equal(value, before[key])}
        assert moved <= changed <= set(one.trainable())
        assert changed & up or not up
        assert changed & stays or not stays

    back = site.combine([(0.5, one.shared()) for one in sites], sent)
    for one in sites:
        one.load_shared(back)
        one.begin_round(1)
    first, second = values(sites[0]), values(sites[1])
    assert [key for key in site.manifest.entries if not torch.equal(first[key], second[key])] == []
    assert [key for key in moved & stays if torch.equal(first[key], second[key])] == []

    with torch.no_grad():
        for key, parameter in site.trainable().items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key))))
    if site.opened.side is None:
        merged = site.merged()
        assert type(merged) is type(plain)
        assert list(merged.state_dict()) == list(plain.state_dict())
        assert [type(module) for module in merged.modules()] == [type(module) for module in plain.modules()]
        torch.testing.assert_close(logits_of(merged(images), batch=2), site(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(site(images), original, atol=1e-3)


@pytest.mark.parametrize("name", ["dual_lora", "feddpa", "ditto", "linear_probe"])
def test_the_shared_view_does_not_depend_on_what_is_private(name: str) -> None:
    own = OWN["monai-vit"]
    site, images = attached(own, name), own.images()
    randomise(site.opened, *site.trainable())
    with site.shared_view():
        shared = site(images)
    with site.personal():
        personal = site(images)
    randomise(site.opened, *(site.private() or ["nothing"]), seed=9)
    with site.shared_view():
        assert torch.equal(site(images), shared)
    assert torch.equal(site(images), personal) == (name == "linear_probe")


def test_a_method_without_a_model_for_a_new_site_says_so() -> None:
    with pytest.raises(ConfigError, match="fedper has no model without its private part"):
        attached(OWN["cnn"], "fedper").shared_view()


def test_a_penalty_is_that_of_the_method_and_zero_without_one() -> None:
    own = OWN["cnn"]
    with attached(own, "dual_lora").penalty() as penalty:
        assert penalty() == 0
    near = attached(own, "fedprox", mu=2.0)
    with near.penalty() as penalty, torch.no_grad():
        near.trainable()["module.classifier.bias"].add_(torch.tensor([3.0, 4.0]))
        assert penalty().item() == pytest.approx(25.0)
    apart = attached(own, "fedopal", weight=1.0)
    randomise(apart.opened, "lora_")
    with apart.penalty() as penalty:
        a, b = (apart.opened.get_parameter(f"module.hidden.lora_A.{name}.weight") for name in ("shared", "private"))
        expected = functional.cosine_similarity(a[:, None], b[None], dim=2).square().sum()
        torch.testing.assert_close(penalty(), expected, rtol=1e-5, atol=1e-6)


def test_phases_name_what_trains_in_them() -> None:
    site = attached(OWN["cnn"], "fedrep")
    first, second = site.phases()
    head = {"module.classifier.weight", "module.classifier.bias"}
    assert {name for name in site.trainable() if first.trains(name)} == head
    assert {name for name in site.trainable() if second.trains(name)} == set(site.trainable()) - head
    assert attached(OWN["cnn"], "dual_lora").phases() == ()


def test_private_tensors_come_back_and_others_are_refused() -> None:
    own = OWN["cnn"]
    one, other = attached(own, "dual_lora", seed=1), attached(own, "dual_lora", seed=2)
    randomise(one.opened, *one.trainable())
    other.load_private(one.private())
    other.load_shared(one.shared())
    assert torch.equal(one(own.images()), other(own.images()))
    with pytest.raises(PrivacyError):
        other.load_private(attached(own, "fedper").private())


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_is_not_exactly_what_the_manifest_says_is_never_loaded(data: st.DataObject) -> None:
    site = _SITE
    before = values(site)
    tensors: dict[str, Any] = dict(site.shared())
    key = data.draw(st.sampled_from(sorted(tensors)))
    fault = data.draw(st.sampled_from(["missing", "unknown", "private", "shape", "nan"]))
    if fault == "missing":
        del tensors[key]
    elif fault == "unknown":
        tensors[data.draw(st.text(max_size=5))] = tensors[key]
    elif fault == "private":
        tensors |= site.private()
    elif fault == "shape":
        tensors[key] = np.zeros((*tensors[key].shape, 1), np.float32)
    else:
        tensors[key] = np.full_like(tensors[key], np.nan)
    with pytest.raises(PrivacyError):
        site.load_shared(tensors)
    after = values(site)
    assert all(torch.equal(after[name], value) for name, value in before.items())


_SITE = attached(OWN["cnn"], "dual_lora")


def test_means_of_tensors_can_be_loaded_as_they_are() -> None:
    own = OWN["cnn"]
    site = attached(own, "dual_lora")
    wide = {key: torch.from_numpy(value).double() + 1 for key, value in site.shared().items()}
    site.load_shared(wide)
    for key, value in site.shared().items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, wide[key], rtol=1e-6)


def test_a_network_in_bfloat16_shares_what_every_wire_can_carry() -> None:
    own = OWN["cnn"]
    site = fl.attach(own.network().bfloat16(), choice(own, "fedavg"))
    sent = {key: value + 1 for key, value in site.shared().items()}
    assert {value.dtype for value in sent.values()} == {np.dtype("float32")}
    site.load_shared({key: torch.from_numpy(value).bfloat16() for key, value in sent.items()})
    state = site.opened.state_dict()
    for key, value in site.shared().items():
        assert torch.equal(torch.from_numpy(value), torch.from_numpy(sent[key]).bfloat16().float())
        assert state[key].dtype is torch.bfloat16 and torch.equal(state[key].float(), torch.from_numpy(value))


@pytest.mark.parametrize(
    ("build", "pattern"), [(tiny_network, r"encoder\.blocks\.[02]\.attn\.q"), (tiny_vit, r"blocks\.[02]\.attn\.q")]
)
def test_our_own_backbones_take_a_pattern_and_keep_their_names(build: Any, pattern: str) -> None:
    site = fl.attach(build(), fl.method("dual_lora", targets=pattern))
    plain = build()
    where = "encoder." if build is tiny_network else ""
    assert list(lora_layers(site.opened)) == [f"{where}blocks.{number}.attn.q" for number in (0, 2)]
    assert site.method.targets == tuple(lora_layers(site.opened))  # type: ignore[attr-defined]
    assert list(site.merged().state_dict()) == list(plain.state_dict())
    with pytest.raises(ConfigError, match="knows its head"):
        fl.attach(build(), fl.method("dual_lora", head="head"))


def test_a_segmentation_network_takes_adapters() -> None:
    from monai.networks.nets import SwinUNETR

    def network() -> nn.Module:
        torch.manual_seed(0)
        return SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2).eval()

    images = torch.randn(1, 1, 64, 64)
    chosen = fl.method("dual_lora", rank=2, targets=r"swinViT\.layers4\..*\.qkv", head="out")
    site = fl.attach(network(), chosen).eval()
    plain = network()
    with torch.no_grad():
        assert torch.equal(site(images), plain(images))
        assert site(images).shape == (1, 2, 64, 64)
        assert {key.partition(".lora_")[0] for key in site.private()} == {
            f"module.swinViT.layers4.0.blocks.{block}.attn.qkv" for block in (0, 1)
        }
        randomise(site.opened, *site.trainable())
        merged = site.merged()
        assert list(merged.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(merged(images), site(images), rtol=1e-4, atol=1e-4)


def vit_of_volumes() -> tuple[nn.Module, str]:
    from monai.networks.nets import ViT

    sizes: dict[str, Any] = {"hidden_size": 16, "mlp_dim": 32, "num_layers": 2, "num_heads": 2}
    images: dict[str, Any] = {"in_channels": 1, "img_size": (8, 8, 8), "patch_size": (4, 4, 4), "spatial_dims": 3}
    head: dict[str, Any] = {"classification": True, "num_classes": 3, "post_activation": None}
    return ViT(**sizes, **images, **head).eval(), r"blocks\..*\.qkv"


def beit() -> tuple[nn.Module, str]:
    from transformers import BeitConfig, BeitForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BeitConfig(**sizes, image_size=8, patch_size=4, num_labels=3, use_relative_position_bias=True)
    return BeitForImageClassification(config).eval(), r".*layers\.\d+\.attention\.q_proj"


@pytest.mark.parametrize(
    ("build", "head", "shape"),
    [
        (vit_of_volumes, "classification_head", (2, 1, 8, 8, 8)),
        (beit, "classifier", (2, 3, 8, 8)),
    ],
    ids=["a ViT of volumes", "BEiT"],
)
def test_transformers_that_no_size_fits_take_adapters(build: Any, head: str, shape: tuple[int, ...]) -> None:
    network, pattern = build()
    images = torch.randn(shape)
    with torch.no_grad():
        expected = logits_of(network(images), batch=2)
        site = fl.attach(network, fl.method("dual_lora", rank=2, targets=pattern, head=head)).eval()
        torch.testing.assert_close(site(images), expected)
        assert len([key for key in site.private() if "lora_" in key]) == 4
        randomise(site.opened, *site.trainable())
        trained = site(images)
        torch.testing.assert_close(logits_of(site.merged()(images), batch=2), trained)
        assert not torch.allclose(trained, expected)


def test_batch_normalisation_keeps_its_statistics_whatever_trains(caplog: pytest.LogCaptureFixture) -> None:
    own = OWN["cnn"]
    attached(own, "dual_lora")
    assert "statistics" not in caplog.text
    site = attached(own, "fedavg").train()
    assert "2 layers of batch normalisation train" in caplog.text
    before = {key: value.clone() for key, value in site.opened.named_buffers()}
    site(own.images(4))
    assert all(torch.equal(value, before[key]) for key, value in site.opened.named_buffers())
    assert site.network.get_submodule("drop").training


def test_a_frozen_network_stays_in_evaluation_mode() -> None:
    own = OWN["monai-vit"]
    site = attached(own, "dual_lora")
    expected = site(own.images())
    assert torch.equal(site.train()(own.images()), expected)
    assert {name for name, module in site.opened.named_modules() if module.training} >= {"module.classification_head"}


@pytest.mark.parametrize("name", [name for name in method_names() if get_method(name).reads_text])
def test_methods_that_compare_with_texts_say_why_they_cannot(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} compares images with texts, and this network does not"):
        fl.attach(OWN["cnn"].network(), fl.method(name))
    with pytest.raises(ConfigError, match="compares images with texts"):
        fl.attach(tiny_vit(), fl.method(name))


def test_a_side_network_needs_blocks_of_a_transformer() -> None:
    own = OWN["cnn"]
    with pytest.raises(ConfigError, match="no list of blocks that is known"):
        fl.attach(own.network(), fl.method("pfedst", classifier="linear", head=own.head))
    with pytest.raises(ConfigError, match="no layer that makes queries"):
        fl.attach(own.network(), fl.method("pfedst", classifier="linear", head=own.head, blocks="body"))


def test_a_side_network_beside_a_network_of_ones_own_reads_its_blocks() -> None:
    own = OWN["timm-vit"]
    site, images = attached(own, "pfedst"), own.images()
    randomise(site.opened, "side.")
    assert not torch.allclose(site(images), own.network()(images), atol=1e-3)
    taps = site.opened.taps(images)
    assert torch.equal(site.opened(taps), site(images))
    with pytest.raises(ConfigError, match="computes with a network beside yours"):
        site.merged()


@pytest.mark.parametrize("name", ["linear_probe", "fedper", "fedrep"])
def test_methods_about_the_head_need_its_name(name: str) -> None:
    words = {"targets": "hidden"} if name != "linear_probe" else {}
    with pytest.raises(ConfigError, match=f'{name} needs to know.*head="classifier"'):
        fl.attach(OWN["cnn"].network(), fl.method(name, **words))


def test_a_private_head_needs_its_name() -> None:
    with pytest.raises(ConfigError, match="private head needs to know"):
        fl.attach(OWN["cnn"].network(), fl.method("dual_lora", targets="hidden", head="private"))
    site = fl.attach(
        OWN["cnn"].network(), fl.method("dual_lora", targets="hidden", head="classifier", share_head=False)
    )
    assert "module.classifier.bias" in site.private()


def test_a_network_that_has_a_method_cannot_get_another() -> None:
    site = attached(OWN["cnn"], "dual_lora")
    with pytest.raises(ConfigError, match="opened for a method before"):
        fl.attach(site.opened, choice(OWN["cnn"], "dual_lora"))
    with pytest.raises(ConfigError, match="adapter"):
        fl.attach(site.network, choice(OWN["cnn"], "dual_lora"))


class NoLogits(nn.Module):
    """Returns classes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).argmax(dim=1)


def test_a_network_that_gives_no_logits_is_refused_at_once_or_at_the_first_call() -> None:
    images = torch.randn(3, 4)
    with pytest.raises(ConfigError, match="no logits, but a int64 tensor"):
        fl.attach(NoLogits(), fl.method("dual_lora", targets="fc"), images=images)
    site = fl.attach(NoLogits(), fl.method("dual_lora", targets="fc"))
    with pytest.raises(ConfigError, match="no logits, but a int64 tensor"):
        site(images)


def test_photographs_of_a_catalogued_network_are_classified_as_ever() -> None:
    site = fl.attach(tiny_vit(), fl.method("fedit", targets=["q"], blocks=1), images=tiny_photographs())
    assert torch.equal(site.eval()(tiny_photographs()), tiny_vit()(tiny_photographs()))


def test_weights_of_updates_count_by_their_proportions() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))
    attached = fl.attach(network, fl.method("fedit", rank=2, targets="1", head="2"))
    sent = attached.initial()
    one, other = ({name: np.full_like(value, fill) for name, value in sent.items()} for fill in (1.0, 5.0))
    combined = attached.combine([(30, one), (10, other)], sent)
    assert all(np.allclose(value, 2.0) for value in combined.values())
    with pytest.raises(ConfigError, match="numbers of cases"):
        attached.combine([(0, one)], sent)
    name = sorted(one)[0]
    for wrong in (
        {name: one[name]},
        one | {"x": one[name]},
        one | {name: one[name][:1]},
        one | {name: one[name] * np.nan},
    ):
        with pytest.raises(PrivacyError):
            attached.combine([(30, one), (10, wrong)], sent)
