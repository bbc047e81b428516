"""Phases and penalties in a real trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_fedlora.engines.method import MethodHandler, Turns, check_phases, phase_ends, trained_after
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.methods import Method, base, register
from monai_fedlora.methods.base import Penalty, Phase

Trainers = Callable[..., CaseTrainer]
VIEWS: list[str] = []
"""What the network computes with, of the methods below: entered views that have not been left."""


@contextmanager
def view(name: str) -> Iterator[None]:
    VIEWS.append(name)
    try:
        yield
    finally:
        VIEWS.remove(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarters(Method):
    """The head for a part of the round, then the adapters; pulls the head to where the round found it."""

    name = "quarters"
    summary = "a test"
    source = "a test"

    first: float = 0.25
    mu: float = 0.0

    def attach(self, network: Any) -> None:
        raise AssertionError("networks of these tests come attached")

    def is_shared(self, key: str, network: Any) -> bool:
        return True

    def phases(self, network: Any) -> Sequence[Phase]:
        return (
            Phase(share=self.first, trains=lambda key: key.startswith("head"), view=lambda: view("head")),
            Phase(share=1 - self.first, trains=lambda key: "lora_" in key, view=lambda: view("adapters")),
        )

    def penalty(self, network: Any) -> AbstractContextManager[Penalty] | None:
        return self._pull(network) if self.mu else None

    @contextmanager
    def _pull(self, network: Any) -> Iterator[Penalty]:
        start = [p.detach().clone() for p in network.head.parameters()]
        with view("penalty"):
            yield (
                lambda: (
                    self.mu
                    / 2
                    * torch.stack(
                        [(p - s).square().sum() for p, s in zip(network.head.parameters(), start, strict=True)]
                    ).sum()
                )
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PenaltyAlone(Quarters):
    """No phases."""

    name = "penalty_alone"
    mu: float = 3.0

    def phases(self, network: Any) -> Sequence[Phase]:
        return ()


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    before = dict(base._REGISTRY)
    register(Quarters)
    register(PenaltyAlone)
    VIEWS.clear()
    yield
    base._REGISTRY.clear()
    base._REGISTRY.update(before)


def record(trainer: CaseTrainer) -> list[tuple[str, ...]]:
    """The views of every batch and the parts of the network that moved in it."""
    log: list[tuple[str, ...]] = []
    state: dict[str, torch.Tensor] = {}

    def before(engine: Any) -> None:
        state.update({name: p.detach().clone() for name, p in engine.network.named_parameters()})

    def after(engine: Any) -> None:
        moved = {name.partition(".")[0] for name, p in engine.network.named_parameters() if not p.equal(state[name])}
        log.append((*VIEWS, *sorted(moved)))

    trainer.add_event_handler(Events.ITERATION_STARTED, before)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, after)
    return log


def with_method(make_trainer: Trainers, network: nn.Module, name: str = "quarters", **settings: Any) -> Any:
    args = settings.pop("args", {})
    handler = MethodHandler(network=network, method=name, method_args=args)
    return make_trainer(network=network, train_handlers=[handler], **settings)


HEAD, ADAPTERS = ("head", "head"), ("adapters", "layer")


def test_phases_divide_the_steps_of_a_round(make_trainer: Trainers, make_network: Callable[..., nn.Module]) -> None:
    trainer = with_method(make_trainer, make_network(), n=8)
    log = record(trainer)
    trainer.run()
    assert log == [HEAD] * 2 + [ADAPTERS] * 6
    assert not VIEWS


def test_every_round_goes_through_the_phases_again(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    trainer = with_method(make_trainer, make_network(), n=8)
    log = record(trainer)
    for _ in range(3):
        trainer.run_epochs(1)
    assert log == ([HEAD] + [ADAPTERS] * 3) * 3


def test_a_round_that_another_process_goes_on_with_has_the_same_phases(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    trainer = with_method(make_trainer, make_network(), n=8)
    log = record(trainer)
    trainer.set_epoch(5)
    trainer.run_epochs(1)
    assert log == [HEAD] + [ADAPTERS] * 3


def test_phases_count_optimiser_steps_where_batches_are_accumulated(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    """Seven batches are three steps of three, three and one; gradients of a phase are never lost to the next."""
    trainer = with_method(make_trainer, make_network(), n=14, accumulation_steps=3, args={"first": 0.34}, max_epochs=1)
    log = record(trainer)
    trainer.run()
    still = ("head",), ("adapters",)
    assert log == [still[0], still[0], HEAD, still[1], still[1], ADAPTERS, ADAPTERS]


def test_between_epochs_the_network_is_in_no_phase(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    """A validation there is one of the personal model."""
    trainer = with_method(make_trainer, make_network(), n=8, args={"first": 0.75})
    seen = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(list(VIEWS)))
    log = record(trainer)
    trainer.run()
    assert seen == [[], []]
    assert log == [HEAD] * 6 + [ADAPTERS] * 2


def test_with_one_step_in_a_round_the_phases_take_turns(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    trainer = with_method(make_trainer, make_network(), n=2, args={"first": 0.9})
    log = record(trainer)
    for _ in range(5):
        trainer.run_epochs(1)
    assert log == [HEAD, ADAPTERS, HEAD, ADAPTERS, HEAD]


def test_a_turn_that_another_process_goes_on_with_gives_the_same_bits(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    whole, first = make_network(), make_network()
    one = with_method(make_trainer, whole, n=2, max_epochs=4)
    log = record(one)
    for _ in range(2):
        one.run_epochs(2)
    assert log == [HEAD, ADAPTERS] * 2
    one = with_method(make_trainer, whole, n=2)
    other = with_method(make_trainer, first, n=2)
    first.load_state_dict(whole.state_dict())
    for _ in range(3):
        one.run_epochs(1)
    other.run_epochs(1)
    second = make_network()
    second.load_state_dict(first.state_dict())
    later = with_method(make_trainer, second, n=2)
    later.optimizer.load_state_dict(other.optimizer.state_dict())
    later.set_epoch(1)
    for _ in range(2):
        later.run_epochs(1)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_the_penalty_is_added_to_the_loss_and_to_its_gradient(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    """The first step of two trainers is the same, as the distance starts at zero; so their second losses compare."""
    losses: dict[float, list[float]] = {0.0: [], 50.0: []}
    squares: dict[float, list[float]] = {0.0: [], 50.0: []}
    for mu in losses:
        network = make_network(dropout=0.0)
        start = [p.detach().clone() for p in network.head.parameters()]
        trainer = with_method(make_trainer, network, "penalty_alone", n=8, args={"mu": mu})

        def note(engine: Any, mu: float = mu, start: list[torch.Tensor] = start) -> None:
            parts = zip(engine.network.head.parameters(), start, strict=True)
            losses[mu].append(engine.state.output["loss"].item())
            squares[mu].append(sum((p.detach() - s).square().sum().item() for p, s in parts))

        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, note)
        trainer.run()
    assert losses[0.0][0] == losses[50.0][0]
    assert losses[50.0][1] - losses[0.0][1] == pytest.approx(50 / 2 * squares[0.0][1], rel=1e-3)
    assert squares[0.0][1] == squares[50.0][1] > 0
    assert squares[50.0][-1] < 0.5 * squares[0.0][-1]


def test_a_penalty_compares_with_where_the_round_started(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    handler = MethodHandler(network=network, method="penalty_alone")
    trainer = make_trainer(network=network, train_handlers=[handler], n=8)
    values: list[float] = []

    def note() -> None:
        assert handler._penalty is not None
        values.append(handler._penalty().item())

    trainer.add_event_handler(Events.ITERATION_STARTED, note)
    for _ in range(2):
        trainer.run_epochs(1)
    assert [value == 0 for value in values] == [True, False, False, False] * 2


def test_after_an_error_nothing_is_left_of_a_phase_or_penalty(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    trainer = with_method(make_trainer, make_network(), n=8, args={"mu": 1.0})

    def fail(engine: Any) -> None:
        assert set(VIEWS) == {"penalty", "head"}
        raise FedLoraError("a file is damaged")

    trainer.add_event_handler(Events.ITERATION_COMPLETED, fail)
    with pytest.raises(FedLoraError, match="a file is damaged"):
        trainer.run()
    assert not VIEWS


def test_a_terminated_round_leaves_its_phase(make_trainer: Trainers, make_network: Callable[..., nn.Module]) -> None:
    trainer = with_method(make_trainer, make_network(), n=8, args={"mu": 1.0})
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)
    trainer.run()
    assert not VIEWS


def test_a_method_without_phases_and_penalty_changes_nothing(
    make_trainer: Trainers, make_network: Callable[..., nn.Module]
) -> None:
    plain = make_trainer(network=make_network())
    handled = with_method(make_trainer, make_network(), "penalty_alone", args={"mu": 0.0})
    for trainer in (plain, handled):
        trainer.run()
    for one, other in zip(plain.network.parameters(), handled.network.parameters(), strict=True):
        assert torch.equal(one, other)


# ---- dividing steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "steps", "ends"),
    [
        ([1.0], 1, [1]),
        ([0.5, 0.5], 2, [1, 2]),
        ([0.5, 0.5], 3, [2, 3]),
        ([0.5, 0.5], 10, [5, 10]),
        ([0.01, 0.99], 10, [1, 10]),
        ([0.99, 0.01], 10, [9, 10]),
        ([0.1, 0.2, 0.7], 10, [1, 3, 10]),
        ([0.98, 0.01, 0.01], 3, [1, 2, 3]),
    ],
)
def test_steps_are_divided_as_the_shares_say(shares: list[float], steps: int, ends: list[int]) -> None:
    assert phase_ends(shares, steps) == ends


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(0, 200))
def test_every_phase_gets_a_step_and_every_step_a_phase(parts: list[float], spare: int) -> None:
    shares, steps = [part / sum(parts) for part in parts], len(parts) + spare
    ends = phase_ends(shares, steps)
    assert ends[-1] == steps
    assert len(ends) == len(shares)
    assert all(later > earlier for earlier, later in zip([0, *ends], ends, strict=False))


@pytest.mark.parametrize("steps", [0, 1])
def test_steps_cannot_be_divided_among_more_phases(steps: int) -> None:
    with pytest.raises(ConfigError, match="phases"):
        phase_ends([0.5, 0.5], steps)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 50))
def test_in_a_turn_every_phase_trains_and_every_round_has_all_its_steps(
    parts: list[float], steps: int, start: int
) -> None:
    turns = Turns.of([part / sum(parts) for part in parts], steps)
    seen = [turns.in_round(number) for number in range(start, start + turns.rounds)]
    assert all(len(order) == steps for order in seen)
    assert {phase for order in seen for phase in order} == set(range(len(parts)))
    assert turns.rounds == 1 if steps >= len(parts) else (turns.rounds - 1) * steps < len(parts) <= turns.rounds * steps
    assert turns.in_round(start) == turns.in_round(start + turns.rounds)


def test_a_training_that_ends_before_every_phase_had_its_turn_is_refused() -> None:
    settings: dict[str, Any] = {"cases": 8, "batch_size": 8, "accumulation_steps": 1, "epochs": 1}
    phases = Quarters().phases(None)
    with pytest.raises(ConfigError, match=r"1 optimiser step for the method's 2 phases.*local_epochs"):
        check_phases(phases, **settings, rounds=1)
    check_phases(phases, **settings, rounds=2)
    check_phases(phases, **{**settings, "cases": 9}, rounds=1)
    check_phases((), **settings, rounds=1)


def test_a_training_after_the_last_round_that_would_leave_out_a_phase_is_refused() -> None:
    settings: dict[str, Any] = {"cases": 8, "batch_size": 8, "accumulation_steps": 1, "epochs": 1, "rounds": 4}
    phases = Quarters().phases(None)
    with pytest.raises(
        ConfigError, match=r"after the last round has 1 optimiser step for .* 2 phases.*fine_tune_epochs"
    ):
        check_phases(phases, **settings, fine_tune_epochs=1)
    check_phases(phases, **settings, fine_tune_epochs=2)
    check_phases((), **settings, fine_tune_epochs=1)


OF_HEAD = Phase(share=0.5, trains=lambda key: key == "head")
OF_BODY = Phase(share=0.5, trains=lambda key: key == "body")


@pytest.mark.parametrize(
    ("rounds", "phases", "steps", "trained"),
    [
        (0, (), 1, {"head": False, "body": False}),
        (1, (), 1, {"head": True, "body": True}),
        (1, (OF_HEAD, OF_BODY), 2, {"head": True, "body": True}),
        (1, (OF_HEAD, OF_BODY), 1, {"head": True, "body": False}),
        (1, (OF_BODY, OF_HEAD), 1, {"head": False, "body": True}),
        (2, (OF_HEAD, OF_BODY), 1, {"head": True, "body": True}),
    ],
)
def test_a_part_is_trained_once_its_phase_has_had_a_turn(
    rounds: int, phases: tuple[Phase, ...], steps: int, trained: dict[str, bool]
) -> None:
    for key, expected in trained.items():
        assert trained_after(rounds, phases, keys=[key, "buffer"], steps=steps) is expected
