from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_fedlora.engines.schedule import WarmupCosine, warmup_cosine
from monai_fedlora.errors import ConfigError


def test_it_rises_then_falls_along_half_a_cosine() -> None:
    factors = [warmup_cosine(e, epochs=10, warmup_epochs=2, min_lr_ratio=0.1) for e in range(1, 11)]
    assert factors[:3] == [1 / 3, 2 / 3, 1.0]
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), T_max=8, eta_min=0.1
    )
    for factor in factors[2:]:
        assert factor == pytest.approx(cosine.get_last_lr()[0])
        cosine.optimizer.step()
        cosine.step()


def test_after_the_last_epoch_it_keeps_its_floor() -> None:
    assert warmup_cosine(11, epochs=10, min_lr_ratio=0.05) == pytest.approx(0.05)
    assert warmup_cosine(500, epochs=10, min_lr_ratio=0.05) == pytest.approx(0.05)


def test_a_training_shorter_than_its_warmup_only_rises() -> None:
    assert [warmup_cosine(e, epochs=2, warmup_epochs=3) for e in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert warmup_cosine(1, epochs=1) == 1.0


@pytest.mark.parametrize(
    "settings",
    [{"epoch": 0, "epochs": 5}, {"epoch": 1, "epochs": 0}, {"epoch": 1, "epochs": 5, "warmup_epochs": -1}]
    + [{"epoch": 1, "epochs": 5, "min_lr_ratio": value} for value in (-0.1, 1.1, math.nan)],
)
def test_a_setting_out_of_range_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        warmup_cosine(settings.pop("epoch"), **settings)


def rates(epochs: range) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.ones(1))], lr=9.0)
    engine = Engine(lambda *_: None)
    WarmupCosine(optimizer=optimizer, learning_rate=0.5, epochs=6, warmup_epochs=1).attach(engine)
    seen: list[float] = []
    engine.state.epoch = epochs.start - 1
    engine.state.iteration = epochs.start - 1
    engine.state.max_epochs = epochs.stop - 1
    engine.state.epoch_length = 1
    from ignite.engine import Events

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(optimizer.param_groups[0]["lr"]))
    engine.run([0])
    assert engine.state.learning_rate == seen[-1]
    return seen


def test_a_restarted_process_has_the_rate_of_its_epoch() -> None:
    whole = rates(range(1, 7))
    assert whole == [0.5 * warmup_cosine(e, epochs=6, warmup_epochs=1) for e in range(1, 7)]
    assert rates(range(4, 7)) == whole[3:]


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        WarmupCosine(optimizer=torch.optim.SGD([torch.zeros(1)]), learning_rate=0.0, epochs=2)


def test_a_training_that_follows_begins_at_the_full_rate_and_falls_over_its_own_epochs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupCosine(optimizer=optimizer, learning_rate=0.5, epochs=4, warmup_epochs=2, epochs_after=3)
    found = []
    for epoch in range(1, 8):
        engine: Any = SimpleNamespace(state=SimpleNamespace(epoch=epoch))
        schedule(engine)
        found.append(optimizer.param_groups[0]["lr"])
    first = [0.5 * warmup_cosine(epoch, epochs=4, warmup_epochs=2) for epoch in range(1, 5)]
    assert found == first + [0.5 * warmup_cosine(epoch, epochs=3) for epoch in range(1, 4)]
