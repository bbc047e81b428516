import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Compose, RandGaussianNoised, RandLambdad, Transform

from monai_fedlora.engines.dataset import CaseDataset, CaseView, case_loader
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep
from monai_fedlora.engines.features import FrozenInferer, frozen_inferer
from monai_fedlora.engines.frozen import FrozenPrefix, FrozenTaps, frozen_part
from monai_fedlora.engines.joining import joined
from monai_fedlora.engines.memory import Memory, using
from monai_fedlora.engines.store import Store, entries
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.environment import CACHE_LIMIT, CACHE_MEMORY
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.methods import get_method
from monai_fedlora.networks.backbone import Features, Taps
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from tests.plugin_packages import Install

CPU = torch.device("cpu")


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


class Named(list[CaseView]):
    """Views of images in memory, and what they are views of."""

    def __init__(self, images: torch.Tensor, **settings: Any) -> None:
        self.dataset = CaseDataset([{"image": image, "label": 0} for image in images], [], **settings)
        super().__init__(self.dataset.view(index) for index in range(len(images)))


def count_prefixes(built: ConvViT, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks before which the network is cut, as it computes a prefix."""
    calls: list[int] = []
    prefix = type(built).prefix

    def count(self: ConvViT, x: torch.Tensor, block: int) -> Features:
        if self is built:
            calls.append(block)
        return prefix(self, x, block)

    monkeypatch.setattr(type(built), "prefix", count)
    return calls


def test_images_that_come_without_names_are_computed_anew_and_that_is_said_once_for_a_network(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inferer, images = FrozenInferer(), torch.rand(2, 2, 16, 16, 2)
    for number in (1, 2):
        built = network()
        calls = count_prefixes(built, monkeypatch)
        inferer(Named(images), built)
        assert len(caplog.records) == number - 1
        calls.clear()
        for _ in range(3):
            inferer(images, built)
        assert len(calls) == 6
        assert [record.getMessage()[:28] for record in caplog.records] == ["cache_features keeps nothing"] * number


def test_logits_and_gradients_equal_the_whole_network() -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    trained = [p for p in built.parameters() if p.requires_grad]
    whole = built(images)
    expected = torch.autograd.grad(whole.square().sum(), trained)
    kept = FrozenInferer(dtype="float32")(images, built)
    torch.testing.assert_close(kept, whole)
    for one, other in zip(torch.autograd.grad(kept.square().sum(), trained), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_each_image_passes_the_frozen_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built, images, inferer = network(), torch.rand(3, 2, 16, 16, 2), FrozenInferer(dtype="float32")
    calls = count_prefixes(built, monkeypatch)
    views = Named(images)
    for batch in (views[:2], views, views[::-1], Named(images.flip(0))):
        inferer(batch, built)
    assert calls == [1, 1, 1]


def test_features_do_not_depend_on_the_batch_they_came_in() -> None:
    built, images = network(), torch.rand(4, 2, 16, 16, 2)
    one, other = FrozenInferer(dtype="float32"), FrozenInferer(dtype="float32")
    views = Named(images)
    for view in views:
        one([view], built)
    assert torch.equal(one(views, built), other(views, built))
    assert torch.equal(one(views, built), other(images, built))


def test_another_network_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    images, inferer = torch.rand(1, 2, 16, 16, 2), FrozenInferer(dtype="float32")
    inferer(Named(images), network())
    second = network()
    with torch.no_grad():
        second.blocks[0].norm1.weight.mul_(2)
    calls = count_prefixes(second, monkeypatch)
    inferer(Named(images), second)
    assert len(calls) == 1


@pytest.mark.parametrize(("blocks", "first"), [(1, 2), (2, 1), (0, 0)])
def test_the_cut_is_before_the_first_block_that_trains(blocks: int, first: int) -> None:
    part = frozen_part(network(blocks=blocks))
    assert isinstance(part, FrozenPrefix)
    assert part.block == first


def test_a_network_of_which_the_head_alone_trains_is_cut_behind_its_blocks() -> None:
    built = network("fedit")
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(name.startswith(built.head_prefixes))
    part = frozen_part(built)
    assert isinstance(part, FrozenPrefix)
    assert part.block == len(built.blocks)


@pytest.mark.parametrize("built", [network("fedavg"), torch.nn.Linear(4, 2)], ids=["all of it trains", "no blocks"])
def test_a_network_without_a_frozen_part_runs_whole(built: torch.nn.Module) -> None:
    images = torch.rand(2, 4) if isinstance(built, torch.nn.Linear) else torch.rand(2, 2, 16, 16, 2)
    store = Memory()
    with using(store):
        inferer = FrozenInferer()
    assert torch.equal(inferer(images, built), built(images))
    assert store.seconds == 0


class Beside(torch.nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.rand(depth))

    def forward(self, built: ConvViT, taps: Taps) -> torch.Tensor:
        mixed = sum(weight * hidden for weight, hidden in zip(self.weights, taps.hidden, strict=True))
        return built.readout(Features(built.blocks[-1](mixed), taps.addend))


def test_a_network_beside_the_blocks_reads_kept_inputs_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    built.requires_grad_(False)
    built.side = Beside(len(built.blocks))
    assert isinstance(frozen_part(built), FrozenTaps)
    expected = built(images)
    (wanted,) = torch.autograd.grad(expected.square().sum(), [built.side.weights])
    inferer = FrozenInferer(dtype="float32")
    inferer(Named(images), built)
    monkeypatch.setattr(built, "embed", lambda x: pytest.fail("an image passed the frozen part twice"))
    logits = inferer(Named(images), built)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(torch.autograd.grad(logits.square().sum(), [built.side.weights])[0], wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_first_pass_computes_with_what_later_ones_read(dtype: Any, tmp_path: Path) -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    exact = FrozenInferer(dtype="float32")(Named(images), built)
    first = FrozenInferer(dtype=dtype, store=Store(tmp_path / "site-1", limit=10**9))(Named(images), built)
    later = FrozenInferer(dtype=dtype, store=Store(tmp_path / "site-1", limit=10**9))(Named(images), built)
    assert torch.equal(first, later)
    assert not torch.equal(first, exact)
    torch.testing.assert_close(first, exact, rtol=0, atol={"float16": 2e-3, "bfloat16": 2e-2}[dtype])


def test_kept_on_disk_or_not_gives_the_same_bits_in_float32(tmp_path: Path) -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    expected = FrozenInferer(dtype="float32")(Named(images), built)
    for _ in range(2):
        store = Store(tmp_path / "site-1", limit=10**9)
        assert torch.equal(FrozenInferer(dtype="float32", store=store)(Named(images), built), expected)


def test_what_float16_cannot_hold_is_kept_as_it_is() -> None:
    built, images = network(), torch.rand(2, 2, 16, 16, 2)
    with torch.no_grad():
        built.blocks[0].mlp.fc2.bias.fill_(1e6)
    torch.testing.assert_close(
        FrozenInferer(dtype="float16")(Named(images), built), built(images), rtol=1e-3, atol=1e-3
    )


def test_another_backbone_type_or_image_has_entries_of_its_own(tmp_path: Path) -> None:
    images = torch.rand(2, 2, 16, 16, 2)
    other = network()
    with torch.no_grad():
        other.blocks[0].norm1.weight.mul_(1.5)
    for built, batch, dtype in [
        (network(), images, "float32"),
        (other, images, "float32"),
        (network(), images + 1e-6, "float32"),
        (network(), images, "float16"),
        (network(blocks=1), images, "float32"),
    ]:
        store = Store(tmp_path / "site-1", limit=10**9)
        before = len(list(entries(tmp_path)))
        logits = FrozenInferer(dtype=dtype, store=store)(Named(batch), built)
        assert len(list(entries(tmp_path))) == before + len(images)
        torch.testing.assert_close(logits, built(batch), rtol=0, atol=2e-3)


VIT = {"image_size": (16, 16), "patch": 4, "dim": 24, "depth": 3, "n_heads": 2, "readout": "mean"}
OTHER_VIT: dict[str, Any] = {
    "image_size": (16, 32),
    "patch": 8,
    "dim": 12,
    "depth": 2,
    "n_heads": 4,
    "mlp_ratio": 2,
    "activation": "quick_gelu",
    "norm_eps": 0.1,
    "qkv_bias": False,
    "patch_bias": False,
    "pre_norm": True,
    "layer_scale": True,
    "gated": True,
    "class_token": False,
    "registers": 2,
    "key_bias": False,
    "positions": "rotary",
    "resizing": "offset",
    "readout": "cls",
}
"""Another value for every setting of a vision transformer."""
CONVVIT = {
    "image_size": (16, 16, 2),
    "n_frames": 2,
    "out_chans": 2,
    "patch_size": (2, 2, 1),
    "scale_factor": (2, 2, 1),
    "conv_chans": (4, 8),
    "conv_n_blocks": 1,
    "embed_dim": 24,
    "depth": 2,
    "n_heads": 2,
}
OTHER_CONVVIT: dict[str, Any] = {
    "image_size": (32, 16, 2),
    "n_frames": 1,
    "out_chans": 3,
    "patch_size": (4, 4, 1),
    "scale_factor": (1, 2, 1),
    "conv_chans": (4, 6),
    "conv_n_blocks": 2,
    "embed_dim": 12,
    "depth": 3,
    "n_heads": 4,
    "mlp_ratio": 2,
    "readout": "cls",
}
NEVER_SEEN_BEHIND_THE_IMAGE = ("out_chans",)
"""Settings that decide nothing of what is kept."""


def of_settings(family: str, **changes: Any) -> torch.nn.Module:
    """A network of which the head alone trains. Weights are drawn by name, so that equal ones fit several settings."""
    if family == "vit":
        built: Any = VisionTransformer(ViTSettings(**{**VIT, **changes}), out_chans=2)
    else:
        built = ConvViT(**{**CONVVIT, **changes})
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            seed = int.from_bytes(name.encode()[-6:], "little") % 2**31
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
            parameter.requires_grad_(name.startswith(built.head_prefixes))
    return built.eval()


def images_for(family: str) -> torch.Tensor:
    shape = (2, 3, 16, 16) if family == "vit" else (2, 2, 16, 16, 2)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_every_setting_of_a_network_has_another_value_to_try() -> None:
    assert set(OTHER_VIT) == {field.name for field in dataclasses.fields(ViTSettings)}
    assert set(OTHER_CONVVIT) == set(inspect.signature(ConvViT).parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [*(("vit", name) for name in OTHER_VIT), *(("convvit", name) for name in OTHER_CONVVIT)]
)
def test_no_setting_of_a_network_meets_features_of_another_one(tmp_path: Path, family: str, name: str) -> None:
    plain = of_settings(family)
    changed = of_settings(family, **{name: (OTHER_VIT if family == "vit" else OTHER_CONVVIT)[name]})
    digests = [frozen_part(each).digest for each in (plain, changed, of_settings(family))]
    assert digests[0] == digests[2] is not None
    assert (digests[0] == digests[1]) == (name in NEVER_SEEN_BEHIND_THE_IMAGE)
    images = images_for(family)
    if name == "n_frames":
        images = images[:, :1]
    for built in (plain, changed) if name != "n_frames" else (changed,):
        store = Store(tmp_path / "site-1", limit=10**9)
        with torch.no_grad():
            kept = FrozenInferer(dtype="float32", store=store)(Named(images), built)
            torch.testing.assert_close(kept, built(images), rtol=1e-4, atol=1e-5)


SETTINGS_OF_MODULES = {
    "embed.norm.eps": 0.5,
    "blocks.0.norm1.eps": 0.5,
    "blocks.1.attn.n_heads": 4,
    "blocks.1.attn.causal": True,
    "blocks.0.mlp.activation": torch.tanh,
    "embed.patch.stride": (4, 4, 1),
    "anything": 1,
}


@pytest.mark.parametrize("path", SETTINGS_OF_MODULES)
def test_a_setting_changed_by_hand_counts_too(path: str) -> None:
    built = of_settings("vit", pre_norm=True)
    before = frozen_part(built).digest
    module, _, name = path.rpartition(".")
    setattr(built.get_submodule(module), name, SETTINGS_OF_MODULES[path])
    assert frozen_part(built).digest != before


def test_methods_with_the_same_cut_share_what_lies_before_it() -> None:
    names = ["dual_lora", "fedit", "feddpa", "flora", "fedsa_lora", "ffa_lora", "fedex_lora", "fedsvd"]
    assert len({frozen_part(network(name)).digest for name in names}) == 1
    assert frozen_part(network("dual_lora", rank=3)).digest == frozen_part(network("dual_lora")).digest


def test_a_network_that_cannot_be_described_meets_no_features_of_others(tmp_path: Path) -> None:
    images, store = images_for("vit"), Store(tmp_path / "site-1", limit=10**9)
    for factor in (1.0, 2.0):
        built = of_settings("vit")
        built.blocks[0].mlp.activation = lambda x, factor=factor: factor * x
        assert frozen_part(built).digest is None
        inferer = FrozenInferer(dtype="float32", store=store)
        for _ in range(2):
            torch.testing.assert_close(inferer(Named(images), built), built(images), rtol=1e-4, atol=1e-5)
    assert not list(entries(tmp_path))


def test_other_code_makes_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, images = of_settings("vit"), images_for("vit")
    for number in (1, 2):
        monkeypatch.setattr("monai_fedlora.engines.store.source_digest", lambda number=number: f"code {number}")
        FrozenInferer(store=Store(tmp_path / "site-1", limit=10**9))(Named(images), built)
        assert len(list(entries(tmp_path))) == number * len(images)


def test_it_is_off_unless_asked_for_and_for_images_that_never_come_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert isinstance(frozen_inferer(enabled=False, augment=True), SimpleInferer)
    assert isinstance(frozen_inferer(enabled=True), FrozenInferer)
    assert isinstance(frozen_inferer(enabled=True, augment=True, views=2), FrozenInferer)
    assert not caplog.records
    assert isinstance(frozen_inferer(enabled=True, augment=True), SimpleInferer)
    assert "augmented_views" in caplog.text
    with pytest.raises(ConfigError, match="float8"):
        frozen_inferer(enabled=True, dtype="float8")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_from_kept_features() -> None:
    built, images = network(), torch.rand(2, 2, 16, 16, 2)
    inferer = FrozenInferer(dtype="float32")
    expected = inferer(Named(images), built)
    built.compile(backend="eager")
    torch.testing.assert_close(inferer(Named(images), built), expected)


class Device(FrozenInferer):
    """An inferer to which this processor is a device of its own."""

    def __init__(self, room: int, store: Store) -> None:
        super().__init__(dtype="float32", store=store)
        self._room = lambda device: room


def test_features_stay_on_the_device_as_long_as_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, images = network(), torch.rand(3, 2, 16, 16, 2)
    expected = built(images)
    (entry,) = {sum(part.nbytes for part in frozen_part(built).compute(images[:1]))}
    for room, left_to_read in [(10 * entry, 0), (2 * entry, 1), (0, 3)]:
        store = Store(tmp_path / "site-1", limit=10**9)
        inferer = Device(room, store)
        inferer(Named(images), built)
        reads: list[str] = []
        recall = store.recall
        monkeypatch.setattr(store, "recall", lambda key, make, r=recall, seen=reads: seen.append(key) or r(key, make))
        torch.testing.assert_close(inferer(Named(images), built), expected)
        assert len(reads) == left_to_read


class Read(Transform):
    """Read an image from a file, and count."""

    __module__ = "monai_fedlora.test"
    reads: ClassVar[list[str]] = []

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        Read.reads.append(case["image"])
        return {**case, "image": torch.load(case["image"], weights_only=True), "placeholder": torch.tensor(False)}


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    for number in range(3):
        torch.save(torch.rand(2, 16, 16, 2, generator=generator), tmp_path / f"{number}.pt")
    return [{"image": str(tmp_path / f"{n}.pt"), "label": n % 2, "subject": f"p{n}"} for n in range(3)]


def train(cases: list[dict[str, Any]], store: Store | None, epochs: int = 4) -> tuple[Any, dict[str, torch.Tensor]]:
    """A trainer after some epochs of two augmented views each, and what it has trained."""
    built = network()
    noise = [RandGaussianNoised("image", prob=1.0)]
    data = CaseDataset(cases, Compose([Read()]), augmentation=noise, seed=3, views=2, store=store)
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=case_loader(data, batch_size=2, shuffle=True, seed=1),
        network=built,
        optimizer=torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1),
        loss_function=torch.nn.CrossEntropyLoss(),
        inferer=FrozenInferer(dtype="float32", store=store) if store else SimpleInferer(),
    )
    trainer.run()
    return trainer, {name: p.detach() for name, p in built.named_parameters() if p.requires_grad}


def test_a_run_whose_features_are_stored_opens_no_image(
    cases: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Read.reads.clear()
    _, uncached = train(cases, None)
    _, first = train(cases, Store(tmp_path / "frozen" / "site-1", limit=10**9))
    assert len(Read.reads) > 0
    Read.reads.clear()
    monkeypatch.setattr(CaseView, "image", lambda view: pytest.fail("an image was opened"))
    _, again = train(cases, Store(tmp_path / "frozen" / "site-1", limit=10**9))
    assert Read.reads == []
    for name, trained in again.items():
        assert torch.equal(trained, first[name])
        torch.testing.assert_close(trained, uncached[name], rtol=1e-4, atol=1e-5)


def test_features_without_room_are_computed_again_with_the_same_bits_and_that_is_said(
    cases: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, kept = train(cases, Store(tmp_path / "all" / "site-1", limit=10**9))
    assert "features_not_kept" not in trainer.state.metrics
    assert not caplog.records
    monkeypatch.setenv(CACHE_MEMORY, "0")
    room = sum(entry.size for entry in entries(tmp_path / "all")) * 2 // 3
    trainer, again = train(cases, Store(tmp_path / "some" / "site-1", limit=room))
    assert all(torch.equal(trained, kept[name]) for name, trained in again.items())
    assert 0 < trainer.state.metrics["features_not_kept"] <= len(cases)
    trainer.run_epochs(2)
    said = [record.getMessage() for record in caplog.records]
    assert len([each for each in said if "features of frozen blocks" in each and CACHE_LIMIT in each]) == 1


def test_an_image_that_changed_on_disk_has_features_of_its_own(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    store = Store(tmp_path / "frozen" / "site-1", limit=10**9)
    built, inferer = network(), FrozenInferer(dtype="float32", store=store)
    for value in (0.25, 0.5):
        torch.save(torch.full((2, 16, 16, 2), value), cases[0]["image"])
        os.utime(cases[0]["image"], ns=(int(4e9 * value), int(4e9 * value)))
        data = CaseDataset(cases[:1], Compose([Read()]), store=store)
        logits = inferer([data.view(0)], built)
        torch.testing.assert_close(logits, built(torch.full((1, 2, 16, 16, 2), value)), rtol=1e-4, atol=1e-5)


def test_an_image_gone_since_it_was_read_is_named_when_its_features_are_needed(
    cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    store = Store(tmp_path / "frozen" / "site-1", limit=10**9)
    CaseDataset(cases, Compose([Read()]), store=store)
    again = CaseDataset(cases, Compose([Read()]), store=store)
    for entry in entries(tmp_path / "frozen"):
        entry.path.unlink()
    Path(cases[1]["image"]).unlink()
    with pytest.raises(RuntimeError, match="Read") as raised:
        FrozenInferer(store=store)([again.view(1)], network())
    assert "1.pt" in str(raised.value.__cause__)


def test_another_augmentation_seed_or_view_has_features_of_its_own(tmp_path: Path) -> None:
    images, built = torch.rand(2, 2, 16, 16, 2), network()
    store, count = Store(tmp_path / "site-1", limit=10**9), 0
    for seed, std, epoch in [(3, 0.1, 1), (3, 0.1, 2), (4, 0.1, 1), (3, 0.2, 1)]:
        for _ in range(2):
            data = CaseDataset(
                [{"image": image} for image in images],
                [],
                augmentation=[RandGaussianNoised("image", prob=1.0, std=std)],
                seed=seed,
            )
            data.set_epoch(epoch)
            logits = FrozenInferer(dtype="float32", store=store)([data.view(0), data.view(1)], built)
            shown = torch.stack([data[0]["image"], data[1]["image"]])
            torch.testing.assert_close(logits, built(shown), rtol=1e-4, atol=1e-5)
        count += 2
        assert len(list(entries(tmp_path))) == count


def test_an_augmentation_nobody_can_describe_is_kept_for_one_inferer_alone(tmp_path: Path) -> None:
    built, store = network(), Store(tmp_path / "site-1", limit=10**9)
    images = [{"image": torch.rand(2, 16, 16, 2)}]
    for factor in (1.0, 2.0):
        data = CaseDataset(images, [], augmentation=[RandLambdad("image", func=lambda x, f=factor: f * x)])
        logits = FrozenInferer(dtype="float32", store=store)([data.view(0)], built)
        torch.testing.assert_close(logits, built(data[0]["image"][None]), rtol=1e-4, atol=1e-5)
    assert not list(entries(tmp_path))


def test_a_batch_is_not_overwritten_while_somebody_holds_a_part_of_it() -> None:
    rows = [torch.full((1, 3), float(value)) for value in range(4)]
    first = joined(0, rows[:2], device=CPU)
    kept = first[:, 0]
    second = joined(0, rows[2:], device=CPU)
    assert kept.tolist() == [0, 1]
    assert second[:, 0].tolist() == [2, 3]
    place = second.data_ptr()
    del second
    assert joined(0, rows[:1], device=CPU).data_ptr() == place


def lost(number: int) -> list[dict[str, Any]]:
    """Cases in memory, of which every other one has no orientation."""
    images = torch.rand(number, 2, 16, 16, 2, generator=torch.Generator().manual_seed(9))
    return [
        {"image": image, "label": n % 2, "subject": f"p{n}", "placeholder": torch.tensor(n % 2 == 0)}
        for n, image in enumerate(images)
    ]


def test_evaluation_from_kept_features_is_that_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    built, data = network(), CaseDataset(lost(3), [])
    inferers, found = [SimpleInferer(), FrozenInferer(dtype="float32")], []
    for inferer in (*inferers, inferers[1]):
        evaluator = CaseEvaluator(
            device="cpu", val_data_loader=case_loader(data, batch_size=2), network=built, inferer=inferer
        )
        plain = plain_outputs(built, data, inferer=inferer, device=torch.device("cpu"), batch_size=2)
        found.append({**run_and_keep(evaluator), **{f"plain_{key}": value for key, value in plain.items()}})
        if inferer is inferers[1]:
            monkeypatch.setattr(CaseView, "image", lambda view: pytest.fail("an image was opened"))
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[1][key], found[2][key])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_training_from_kept_features_shows_every_order_too(workers: int) -> None:
    trained = []
    for inferer in (SimpleInferer(), FrozenInferer(dtype="float32")):
        built = network()
        CaseTrainer(
            device="cpu",
            max_epochs=3,
            train_data_loader=case_loader(CaseDataset(lost(3), []), batch_size=2, shuffle=True, num_workers=workers),
            network=built,
            optimizer=torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1),
            loss_function=torch.nn.CrossEntropyLoss(),
            inferer=inferer,
        ).run()
        trained.append([p.detach() for p in built.parameters() if p.requires_grad])
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_image_that_is_not_finite_is_named_though_features_stand_for_it() -> None:
    items = lost(2)
    items[1]["image"][0, 0, 0, 0] = float("nan")
    built = network()
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=case_loader(CaseDataset(items, []), batch_size=2),
        network=built,
        optimizer=torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1),
        loss_function=torch.nn.CrossEntropyLoss(),
        inferer=FrozenInferer(),
    )
    with pytest.raises(DataError, match=r"p0, p1: an image holds NaN"):
        trainer.run()


def test_an_augmentation_that_changes_a_label_cannot_be_kept() -> None:
    shift = RandLambdad("label", func=lambda label: label + 1)
    data = CaseDataset(lost(1), [], augmentation=[shift])
    assert data[0]["label"] == 1
    with pytest.raises(ConfigError, match="cache_features"):
        FrozenInferer()([data.view(0)], network())


def test_classes_of_ones_own_have_no_features_on_disk(tmp_path: Path) -> None:
    class Own(ConvViT):
        """The same network, whose code may change between two runs."""

    built = network()
    built.__class__ = Own
    assert frozen_part(built).digest is None
    FrozenInferer(store=Store(tmp_path / "site-1", limit=10**9))(Named(torch.rand(1, 2, 16, 16, 2)), built)
    assert not list(entries(tmp_path))


BLOCK = """
from torch import nn

class Block(nn.Module):
    def forward(self, tokens, queries=None):
        return tokens
"""


def test_what_frozen_blocks_of_another_package_compute_is_of_its_code(install: Install) -> None:
    def digest(package: str, text: str) -> str | None:
        install(package, {f"backbones:{package}": "own_blocks:Block"}, {"own_blocks": BLOCK + text})
        sys.modules.pop("own_blocks", None)
        network = VisionTransformer(ViTSettings(image_size=(8, 8), patch=4, dim=8, depth=2, n_heads=2), out_chans=2)
        network.blocks[0] = import_module("own_blocks").Block()
        part = frozen_part(network.requires_grad_(False))
        assert part is not None
        return part.digest

    found = [digest("one", ""), digest("two", "# changed")]
    assert None not in found and found[0] != found[1]


def test_gpus_of_one_model_share_what_they_keep_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {0: "NVIDIA A", 1: "NVIDIA A", 2: "NVIDIA B"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: models[device.index])
    inferer = FrozenInferer()
    inferer.keeps(network())
    first, second, other = (inferer._kind(torch.device("cuda", index)) for index in models)
    assert first == second != other
