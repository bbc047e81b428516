from __future__ import annotations

import copy
import math

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn
from torch.overrides import TorchFunctionMode

from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.schedule import WarmupCosine
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, DataError, FedLoraError, OutOfMemory


def state_of(trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.network.state_dict().items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_one_step_is_monais_step(make_network, make_cases) -> None:
    """Without dropout, clipping and shuffling, this is the engine it derives from."""

    def run(kind) -> dict[str, torch.Tensor]:
        network = make_network(dropout=0.0)
        network.stem = nn.Sequential(nn.Flatten(), nn.Linear(8, 6)).requires_grad_(False)
        torch.manual_seed(1)
        for parameter in network.parameters():
            parameter.data.normal_()
        trainer = kind(
            device=torch.device("cpu"),
            max_epochs=2,
            train_data_loader=case_loader(make_cases(6), batch_size=2),
            network=network,
            optimizer=adamw(network=network),
            loss_function=cross_entropy(num_classes=2),
            accumulation_steps=3,
        )
        trainer.run()
        return network.state_dict()

    assert_same_bits(run(CaseTrainer), run(SupervisedTrainer))


def test_where_nothing_trains_an_epoch_computes_the_loss_alone(make_trainer, make_network) -> None:
    network = make_network().requires_grad_(False).eval()
    trainer = make_trainer(network=network, n=6, max_grad_norm=1.0, accumulation_steps=2)
    before = state_of(trainer)
    trainer.run()
    assert_same_bits(state_of(trainer), before)
    assert not any(module.training for module in network.modules())
    data = trainer.data_loader.dataset
    with torch.no_grad():
        loss = trainer.loss_function(network(data.images), torch.tensor([0, 1] * 3))
    assert trainer.state.epoch == 2
    assert trainer.state.metrics["train_loss"] == pytest.approx(loss.item(), abs=1e-6)


def test_too_little_memory_names_the_settings_that_help(make_trainer, monkeypatch) -> None:
    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer = make_trainer()
    monkeypatch.setattr(torch.nn.functional, "linear", full)
    with pytest.raises(OutOfMemory, match=r"training on cpu .*2.00 GiB.*batch_size.*accumulation_steps.*bf16"):
        trainer.run()


def test_training_moves_the_trainable_part_and_nothing_else(make_trainer) -> None:
    trainer = make_trainer()
    before = state_of(trainer)
    trainer.run()
    after = state_of(trainer)
    trained = {n for n, p in trainer.network.named_parameters() if p.requires_grad}
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == trained


def test_the_same_seed_gives_the_same_bits_and_another_does_not(make_trainer) -> None:
    first, second, other = make_trainer(), make_trainer(), make_trainer(seed=12)
    first.run()
    torch.rand(5)
    second.run()
    other.run()
    assert_same_bits(state_of(first), state_of(second))
    assert not torch.equal(state_of(first)["head.2.weight"], state_of(other)["head.2.weight"])


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_rounds_and_a_new_process_change_no_bit(make_trainer, make_network, accumulation_steps: int) -> None:
    def trainer():
        network = make_network()
        optimizer = adamw(network=network)
        schedule = WarmupCosine(optimizer=optimizer, learning_rate=1e-2, epochs=4, warmup_epochs=1)
        return make_trainer(
            network=network, optimizer=optimizer, train_handlers=[schedule], accumulation_steps=accumulation_steps
        )

    whole = trainer()
    whole.run_epochs(4)

    rounds = trainer()
    rounds.run_epochs(1)
    torch.rand(9)
    rounds.run_epochs(1)
    fresh = trainer()
    fresh.network.load_state_dict(state_of(rounds))
    fresh.optimizer.load_state_dict(copy.deepcopy(rounds.optimizer.state_dict()))
    fresh.set_epoch(2)
    fresh.run_epochs(2)
    assert fresh.state.epoch == 4
    assert fresh.state.iteration == whole.state.iteration
    assert_same_bits(state_of(whole), state_of(fresh))


def test_running_a_finished_training_again_is_refused(make_trainer) -> None:
    trainer = make_trainer()
    trainer.run()
    with pytest.raises(FedLoraError, match="complete at epoch 2 of 2"):
        trainer.run()


def test_accumulated_batches_make_the_step_of_the_large_batch(make_trainer, make_network) -> None:
    def gradient(batch_size: int, steps: int) -> torch.Tensor:
        network = make_network(dropout=0.0)
        trainer = make_trainer(n=6, network=network, batch_size=batch_size, accumulation_steps=steps, max_epochs=1)
        seen: list[torch.Tensor] = []
        trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(network.head[2].weight.grad.clone()))
        trainer.run()
        assert len(seen) == 1
        return seen[0]

    torch.testing.assert_close(gradient(2, 3), gradient(6, 1))
    torch.testing.assert_close(gradient(2, 5), gradient(6, 1))  # fewer batches than steps


def test_gradients_are_clipped_to_the_norm(make_trainer, make_network) -> None:
    def norms(limit: float | None) -> list[float]:
        network = make_network()
        trainer = make_trainer(network=network, max_grad_norm=limit, max_epochs=1)
        seen: list[float] = []
        trained = [p for p in network.parameters() if p.requires_grad]
        trainer.optimizer.register_step_pre_hook(
            lambda *_: seen.append(float(torch.stack([p.grad.norm() for p in trained]).norm()))
        )
        trainer.run()
        return seen

    free = norms(None)
    assert max(free) > 0.05
    assert norms(0.05)[0] == pytest.approx(0.05, rel=1e-3)
    assert norms(1e6)[0] == pytest.approx(free[0])


def test_bf16_computes_in_bfloat16_and_stores_float32(make_trainer) -> None:
    trainer = make_trainer(mixed_precision="bf16")
    seen: list[torch.dtype] = []
    trainer.network.head[2].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    trainer.run()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_names_the_subjects_and_changes_nothing(make_trainer) -> None:
    trainer = make_trainer(learning_rate=1e-3)
    trainer.network.head[2].bias.data[0] = math.nan
    before = state_of(trainer)["head.2.weight"]
    with pytest.raises(FedLoraError, match=r"loss is nan at epoch 1, iteration 1, subjects patient\d+, patient\d+"):
        trainer.run()
    assert torch.equal(state_of(trainer)["head.2.weight"], before)


def test_an_image_that_is_not_finite_is_blamed(make_trainer, make_cases) -> None:
    cases = make_cases(7)
    cases.images[3] = math.inf
    with pytest.raises(DataError, match=r"patient003.*: an image holds NaN"):
        make_trainer(data=cases).run()


def test_a_gradient_that_is_not_finite_is_refused(make_trainer) -> None:
    trainer = make_trainer(max_grad_norm=1.0)

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def break_gradient(engine) -> None:
        engine.network.head[2].weight.grad[0, 0] = math.nan

    with pytest.raises(FedLoraError, match="gradient is nan"):
        trainer.run()


def test_a_handler_may_add_a_penalty_to_the_loss(make_trainer) -> None:
    trainer = make_trainer(max_epochs=1)
    parameter = trainer.network.head[2].bias

    @trainer.on(IterationEvents.LOSS_COMPLETED)
    def add_penalty(engine) -> None:
        engine.state.output["loss"] = engine.state.output["loss"] * 0 + 100 * (parameter - 5).pow(2).sum()

    seen: list[torch.Tensor] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(parameter.grad.clone()))
    expected = 200 * (parameter.detach() - 5)
    trainer.run()
    torch.testing.assert_close(seen[0], expected)


def test_the_mean_loss_of_an_epoch_is_reported_per_case(make_trainer) -> None:
    trainer = make_trainer(n=5, batch_size=2, max_epochs=2)
    losses: list[float] = []
    reported: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: losses.extend([trainer.state.output["loss"].item()] * len(trainer.state.output["label"])),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: reported.append(trainer.state.metrics["train_loss"]))
    trainer.run()
    assert reported[1] == pytest.approx(sum(losses[5:]) / 5)


def test_the_frozen_part_stays_in_evaluation_mode_while_training(make_trainer) -> None:
    trainer = make_trainer(max_epochs=1)
    modes: list[tuple[bool, bool]] = []
    trainer.add_event_handler(
        IterationEvents.FORWARD_COMPLETED,
        lambda: modes.append((trainer.network.stem.training, trainer.network.head.training)),
    )
    trainer.run()
    assert set(modes) == {(False, True)}


@pytest.mark.parametrize(
    "settings",
    [
        {"mixed_precision": "fp16"},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": math.nan},
        {"accumulation_steps": 0},
        {"accumulation_steps": 1.5},
    ],
)
def test_a_setting_out_of_range_is_refused(make_trainer, settings: dict) -> None:
    with pytest.raises(ConfigError):
        make_trainer(**settings)


class Waits(TorchFunctionMode):
    """Calls for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if (name := getattr(func, "__name__", "")) in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_an_iteration_waits_once_for_what_it_computed(make_network, make_cases, max_grad_norm: float | None) -> None:
    network, losses, counts = make_network(), [], []
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=case_loader(make_cases(6), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
        loss_function=cross_entropy(num_classes=2),
        max_grad_norm=max_grad_norm,
    )
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: waits.found.clear())
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: counts.append(list(waits.found)))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"]))
    with Waits() as waits:
        trainer.run()
    assert counts == [["tolist"]] * 6
    assert [loss.requires_grad for loss in losses] == [False] * 6


def test_a_part_frozen_between_two_epochs_leaves_training_mode(make_trainer) -> None:
    trainer = make_trainer()
    trainer.run_epochs(1)
    assert trainer.network.head[1].training
    trainer.network.head.requires_grad_(False)
    trainer.run_epochs(1)
    assert not trainer.network.head[1].training and trainer.network.layer.lora_dropout["shared"].training
