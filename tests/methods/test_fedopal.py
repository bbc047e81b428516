"""FedOPAL in the training engine, and its settings."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from monai_fedlora.adapters.orthogonality import FORMS, overlap
from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.method import MethodHandler
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.methods import get_method
from monai_fedlora.networks.cinema import ConvViT
from tests.helpers import randomise, tiny_images, tiny_network


def cases(count: int = 6) -> list[dict[str, Any]]:
    return [{"image": image, "label": i % 2, "subject": f"p{i}"} for i, image in enumerate(tiny_images(count))]


def attached(method: str = "fedopal", **settings: Any) -> ConvViT:
    network = tiny_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        get_method(method, {"blocks": 0, **settings}).attach(network)
    return network


def trainer(
    network: ConvViT, data: list[dict[str, Any]] | None = None, method: str = "fedopal", **settings: Any
) -> CaseTrainer:
    engine = {name: settings.pop(name) for name in ("inferer", "accumulation_steps") if name in settings}
    return CaseTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=case_loader(data or cases(), batch_size=2),  # type: ignore[arg-type]
        network=network,
        optimizer=adamw(network=network, learning_rate=1e-2),
        loss_function=cross_entropy(num_classes=2),
        train_handlers=[MethodHandler(network=network, method=method, method_args=settings)],
        **engine,
    )


@functools.cache
def after_training(method: str = "fedopal", *, accumulation_steps: int = 1, **settings: Any) -> ConvViT:
    """A trained network, which is not to be changed."""
    network = attached(method, **settings)
    trainer(network, method=method, accumulation_steps=accumulation_steps, **{"blocks": 0, **settings}).run()
    return network


def losses_of(engine: CaseTrainer) -> list[float]:
    """Train, and give the loss of every batch."""
    losses: list[float] = []
    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
    engine.run()
    return losses


def state_of(network: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


def overlap_of(network: ConvViT, form: str) -> Tensor:
    with overlap(network, form) as mean:  # type: ignore[arg-type]
        network(tiny_images())
        return mean()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["W1", "R"])
def test_a_weight_of_zero_is_dual_lora_to_the_bit(form: str) -> None:
    off = state_of(after_training(orthogonality=form, weight=0.0))
    assert off == state_of(after_training("dual_lora"))
    assert off != state_of(after_training(orthogonality=form, weight=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_tasks_plus_the_weighted_overlap(form: str) -> None:
    network = attached(orthogonality=form)
    randomise(network, "lora_B")
    expected: list[float] = []
    engine = trainer(network, orthogonality=form, weight=3.0)

    @engine.on(Events.ITERATION_STARTED)
    def compute(engine: Any) -> None:
        batch = engine.state.batch
        with overlap(network, form) as mean:  # type: ignore[arg-type]
            task = cross_entropy(num_classes=2)(network(batch["image"]), batch["label"])
            expected.append((task + 3.0 * mean()).item())

    assert losses_of(engine) == pytest.approx(expected, rel=1e-5)
    assert len(expected) == 6


@pytest.mark.slow
@pytest.mark.parametrize("stop_gradient", ["none", "shared"])
@pytest.mark.parametrize("form", FORMS)
def test_a_large_weight_makes_the_adapters_orthogonal(form: str, stop_gradient: str) -> None:
    with_penalty = after_training(orthogonality=form, stop_gradient=stop_gradient, blocks=1, weight=100.0)
    without = after_training("dual_lora", blocks=1)
    assert overlap_of(with_penalty, form) < 0.5 * overlap_of(without, form)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_training_from_untrained_adapters_stays_finite(form: str) -> None:
    network = after_training(orthogonality=form)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert all(p.any() for name, p in network.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("form", FORMS)
def test_stopping_the_gradient_leaves_the_shared_adapter_to_the_task(form: str) -> None:
    network = attached()
    randomise(network, "lora_B")
    context = get_method("fedopal", {"orthogonality": form, "stop_gradient": "shared"}).penalty(network)
    assert context is not None
    with context as penalty:
        network(tiny_images())
        penalty().backward()
    touched = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()]
    assert touched
    assert all(".private." in name for name in touched)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["W1", "R"])
def test_batches_may_be_accumulated(form: str) -> None:
    """Two epochs of three batches with one step each are two steps on the mean of three losses."""
    settings = {"orthogonality": form, "weight": 2.0}
    network = after_training(**settings, accumulation_steps=3)
    expected = attached()
    optimiser = adamw(network=expected, learning_rate=1e-2)
    context = get_method("fedopal", {**settings}).penalty(expected)
    assert context is not None
    with context as penalty:
        for _ in range(2):
            optimiser.zero_grad()
            for batch in case_loader(cases(), batch_size=2):  # type: ignore[arg-type]
                task = cross_entropy(num_classes=2)(expected(batch["image"]), batch["label"])
                ((task + penalty()) / 3).backward()
            optimiser.step()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_kept_features_give_the_same_training() -> None:
    settings: dict[str, Any] = {"orthogonality": "R", "weight": 2.0, "blocks": 2}
    plain = losses_of(trainer(attached(**settings), **settings))
    kept = losses_of(trainer(attached(**settings), **settings, inferer=FrozenInferer(dtype="float32")))
    assert kept == pytest.approx(plain, rel=1e-4)


def test_an_evaluation_between_epochs_changes_nothing() -> None:
    expected = state_of(after_training(orthogonality="R"))
    network = attached(orthogonality="R")
    engine = trainer(network, orthogonality="R", blocks=0)

    @engine.on(Events.EPOCH_COMPLETED)
    def evaluate(_: Any) -> None:
        network.eval()
        with torch.no_grad():
            network(tiny_images(5, seed=8))

    engine.run()
    assert state_of(network) == expected


def test_nothing_is_left_on_the_network_after_a_round_or_a_failure() -> None:
    network = attached(orthogonality="R")
    engine = trainer(network, orthogonality="R")
    during: list[int] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: during.append(hooks(network)))
    engine.run()
    assert during == [12] * 6
    assert hooks(network) == 0
    spoilt = cases()
    spoilt[3]["image"] = torch.full_like(spoilt[3]["image"], float("nan"))
    with pytest.raises(DataError, match="p3"):
        trainer(network, spoilt, orthogonality="R").run()
    assert hooks(network) == 0


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_it_adapts_every_block_by_default() -> None:
    network = tiny_network()
    get_method("fedopal").attach(network)
    adapted = {name.split(".lora_")[0] for name, p in network.named_parameters() if "lora_" in name}
    assert adapted == {f"encoder.blocks.{block}.attn.{layer}" for block in range(3) for layer in ("q", "kv")}


@pytest.mark.parametrize(
    ("given", "meant"), [("w1", "W1"), ("w3", "W3"), ("r", "R"), ("W4", "W"), ("WR", "R"), ("cosine", "W1 (rows")]
)
def test_an_unknown_form_is_refused_with_the_nearest(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"orthogonality is {given!r}") as refusal:
        get_method("fedopal", {"orthogonality": given})
    assert meant in str(refusal.value).split(";")[1].split("?")[0]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "0.1", True, None])
def test_a_weight_that_is_no_number_of_at_least_zero_is_refused(weight: object) -> None:
    with pytest.raises(ConfigError, match=r"weight is .*at least 0"):
        get_method("fedopal", {"weight": weight})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("rank", 0, "rank is 0"),
        ("stop_gradient", "private", "choose from none, shared"),
        ("head", "both", "head is 'both'"),
        ("lambda", 0.1, "no setting 'lambda'"),
        ("orthogonalty", "W1", "did you mean 'orthogonality'"),
    ],
)
def test_other_bad_settings_are_named(setting: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_method("fedopal", {setting: value})
