"""What a method asks of a training engine: a penalty on the loss, and phases in which only some parameters move."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from monai_fedlora.engines.distributed import unwrap
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import get_method
from monai_fedlora.methods.base import Penalty, Phase


class MethodHandler:
    """Runs a method's :meth:`penalty` and :meth:`phases` in a trainer.

    One run of the trainer is one round: phases divide its optimiser steps, see :class:`Turns`; one of which nothing
    trains at the time, because whoever runs the trainer holds its parameters still, has no part in it. What a penalty
    compares with is the network as it is when the run starts. A trainer's runs are to have equally many epochs, so that
    its epoch says whose turn it is, also in another process.

    Args:
        network: attached to the method.
        method: registered name.
        method_args: its hyper-parameters.
    """

    def __init__(self, *, network: nn.Module, method: str, method_args: Mapping[str, Any] | None = None) -> None:
        self._network = unwrap(network)
        self._method = get_method(method, method_args)
        self._round = ExitStack()
        self._view = ExitStack()
        self._penalty: Penalty | None = None
        self._phases: Sequence[Phase] = ()
        self._order: Sequence[int] = ()
        self._phase: Phase | None = None
        self._still: list[nn.Parameter] = []
        self._first_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._enter_phase)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._leave_phase)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_penalty)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._drop_gradients)
        for event in (Events.COMPLETED, Events.TERMINATE):
            engine.add_event_handler(event, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Any) -> None:
        self._close()
        self._first_epoch = engine.state.epoch
        moving = [name for name, parameter in self._network.named_parameters() if parameter.requires_grad]
        self._phases = [phase for phase in self._method.phases(self._network) if any(map(phase.trains, moving))]
        epochs = engine.state.max_epochs - engine.state.epoch
        steps = epochs * _steps(engine, engine.state.epoch_length)
        if self._phases:
            whole = sum(phase.share for phase in self._phases)
            turns = Turns.of([phase.share / whole for phase in self._phases], steps)
            self._order = turns.in_round(engine.state.epoch // epochs)
        penalty = self._method.penalty(self._network)
        self._penalty = None if penalty is None else self._round.enter_context(penalty)

    def _enter_phase(self, engine: Any) -> None:
        if not self._phases:
            return
        epoch, place = divmod(engine.state.iteration - 1, engine.state.epoch_length)
        done = (epoch - self._first_epoch) * _steps(engine, engine.state.epoch_length) + place // _batches(engine)
        phase = self._phases[self._order[done]]
        if phase is not self._phase:
            self._leave_phase()
            self._view.enter_context(phase.view())
            self._phase = phase
            self._still = [p for name, p in self._network.named_parameters() if not phase.trains(name)]

    def _leave_phase(self, *_: Any) -> None:
        """Let the network compute its personal model again, as a validation between two epochs needs."""
        self._view.close()
        self._phase, self._still = None, []

    def _add_penalty(self, engine: Any) -> None:
        if self._penalty is not None:
            with torch.autocast(engine.state.device.type, enabled=False):
                engine.state.output[Keys.LOSS] = engine.state.output[Keys.LOSS] + self._penalty()

    def _drop_gradients(self, engine: Any) -> None:
        for parameter in self._still:
            parameter.grad = None

    def _close(self, *_: Any) -> None:
        self._leave_phase()
        self._round.close()
        self._penalty = None

    def _fail(self, engine: Any, error: BaseException) -> None:
        self._close()
        raise error


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Which phase of a method has which step.

    Phases divide the steps of a round as their shares say, each with at least one. Where a round has fewer steps than
    phases they divide those of as many rounds as it takes, so that with one step in a round two phases take turns:
    every phase trains, and a round has no more steps than that of a method without phases.

    Attributes:
        order: the phase of each step, counted from 0, over all rounds of a turn.
        rounds: after which every phase has had its turn.
    """

    order: tuple[int, ...]
    rounds: int

    @classmethod
    def of(cls, shares: Sequence[float], steps: int) -> Turns:
        """Divide rounds.

        Args:
            shares: of the phases, adding up to 1.
            steps: of the optimiser in a round.

        Raises:
            ConfigError: there is no step.
        """
        rounds = max(1, math.ceil(len(shares) / max(steps, 1)))
        ends = phase_ends(shares, rounds * steps)
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        return cls(order=tuple(phase for phase, n in enumerate(lengths) for _ in range(n)), rounds=rounds)

    def in_round(self, number: int) -> tuple[int, ...]:
        """The phase of each step of a round, which is counted from 0 on."""
        steps = len(self.order) // self.rounds
        first = number % self.rounds * steps
        return self.order[first : first + steps]


def check_phases(
    phases: Sequence[Phase],
    *,
    cases: int,
    batch_size: int,
    accumulation_steps: int,
    epochs: int,
    rounds: int,
    fine_tune_epochs: int = 0,
) -> None:
    """Refuse a training in which not every phase gets a step, or not every one after the last round.

    Args:
        phases: of the method; none for one that trains everything all the time.
        cases: that are trained on.
        batch_size, accumulation_steps, epochs: of a round.
        rounds: of the training.
        fine_tune_epochs: of the training after the last round, in which no phase waits for a later turn.

    Raises:
        ConfigError: the cases make fewer optimiser steps in all rounds, or after them, than there are phases; the
            message says how many.
    """
    of_epochs = partial(steps_of_round, cases=cases, batch_size=batch_size, accumulation_steps=accumulation_steps)
    if (steps := rounds * of_epochs(epochs=epochs)) < len(phases):
        raise _too_few(steps, len(phases), rounds=rounds)
    if fine_tune_epochs and (steps := of_epochs(epochs=fine_tune_epochs)) < len(phases):
        raise ConfigError(
            f"the training after the last round has {_steps_named(steps, len(phases))}, each of which needs one; raise "
            "fine_tune_epochs, or lower batch_size or accumulation_steps"
        )


def trained_after(rounds: int, phases: Sequence[Phase], *, keys: Collection[str], steps: int) -> bool:
    """Whether so many rounds have trained each of some parameters.

    Args:
        rounds: that were trained.
        phases: of the method; none for one that trains everything all the time.
        keys: of the parameters; those that no phase trains are left out.
        steps: of the optimiser in a round.
    """
    if not phases or not rounds:
        return rounds > 0
    turns = Turns.of([phase.share for phase in phases], steps)
    had = {phases[place] for number in range(min(rounds, turns.rounds)) for place in turns.in_round(number)}
    moved = [key for key in keys if any(phase.trains(key) for phase in phases)]
    return all(any(phase.trains(key) for phase in had) for key in moved)


def steps_of_round(*, cases: int, batch_size: int, accumulation_steps: int, epochs: int) -> int:
    """Optimiser steps of a round at a site with one process."""
    return epochs * math.ceil(math.ceil(cases / batch_size) / accumulation_steps)


def phase_ends(shares: Sequence[float], steps: int) -> list[int]:
    """The step before which each phase of a round ends; every phase gets at least one.

    Args:
        shares: of the round, adding up to 1.
        steps: of the optimiser in the round.

    Raises:
        ConfigError: there are fewer steps than phases.
    """
    if steps < len(shares):
        raise _too_few(steps, len(shares))
    ends = [0]
    for left, reached in zip(range(len(shares) - 1, -1, -1), accumulate(shares), strict=True):
        ends.append(min(max(math.floor(reached * steps + 0.5), ends[-1] + 1), steps - left))
    return [*ends[1:-1], steps]


def _too_few(steps: int, phases: int, *, rounds: int = 1) -> ConfigError:
    where = "a round has" if rounds == 1 else f"{rounds} rounds have"
    return ConfigError(
        f"{where} {_steps_named(steps, phases)}, each of which needs one; raise rounds or local_epochs, or lower "
        "batch_size or accumulation_steps"
    )


def _steps_named(steps: int, phases: int) -> str:
    return f"{steps} optimiser step{'s' * (steps != 1)} for the method's {phases} phases"


def _batches(engine: Any) -> int:
    """Batches per optimiser step."""
    return getattr(engine, "accumulation_steps", 1)


def _steps(engine: Any, batches: int) -> int:
    return math.ceil(batches / _batches(engine))
