"""What a method asks of a training engine: a penalty on the loss, and phases in which only some parameters move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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

    One run of the trainer is one round: phases divide its optimiser steps, and what a penalty compares with is the
    network as it is when the run starts.

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
        self._ends: list[int] = []
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
        self._phases = self._method.phases(self._network)
        steps = (engine.state.max_epochs - engine.state.epoch) * _steps(engine, engine.state.epoch_length)
        self._ends = phase_ends([phase.share for phase in self._phases], steps) if self._phases else []
        penalty = self._method.penalty(self._network)
        self._penalty = None if penalty is None else self._round.enter_context(penalty)

    def _enter_phase(self, engine: Any) -> None:
        if not self._phases:
            return
        epoch, place = divmod(engine.state.iteration - 1, engine.state.epoch_length)
        done = (epoch - self._first_epoch) * _steps(engine, engine.state.epoch_length) + place // _batches(engine)
        phase = next(phase for end, phase in zip(self._ends, self._phases, strict=True) if done < end)
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


def check_phases(phases: Sequence[Phase], *, cases: int, batch_size: int, accumulation_steps: int, epochs: int) -> None:
    """Refuse a round in which not every phase gets a step.

    Args:
        phases: of the method; none for one that trains everything all the time.
        cases: that are trained on.
        batch_size, accumulation_steps, epochs: of a round.

    Raises:
        ConfigError: the cases make fewer optimiser steps than there are phases; the message says how many.
    """
    steps = epochs * math.ceil(math.ceil(cases / batch_size) / accumulation_steps)
    if steps < len(phases):
        phase_ends([phase.share for phase in phases], steps)


def phase_ends(shares: Sequence[float], steps: int) -> list[int]:
    """The step before which each phase of a round ends; every phase gets at least one.

    Args:
        shares: of the round, adding up to 1.
        steps: of the optimiser in the round.

    Raises:
        ConfigError: there are fewer steps than phases.
    """
    if steps < len(shares):
        raise ConfigError(
            f"a round has {steps} optimiser step{'s' * (steps != 1)} for the method's {len(shares)} phases, each of "
            "which needs one; raise local_epochs, or lower batch_size or accumulation_steps"
        )
    ends = [0]
    for left, reached in zip(range(len(shares) - 1, -1, -1), accumulate(shares), strict=True):
        ends.append(min(max(math.floor(reached * steps + 0.5), ends[-1] + 1), steps - left))
    return [*ends[1:-1], steps]


def _batches(engine: Any) -> int:
    """Batches per optimiser step."""
    return getattr(engine, "accumulation_steps", 1)


def _steps(engine: Any, batches: int) -> int:
    return math.ceil(batches / _batches(engine))
