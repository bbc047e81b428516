from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.pretraining_epochs import pretraining_epochs
from monai_fedlora.networks.pretraining_state import PretrainingState


class Stopped(Exception):
    pass


def train(path: Path, *, width: int = 3, stop_after: int = 0, **settings: str) -> tuple[list[Tensor], list[int]]:
    """Train a small network with dropout on random batches; its weights, and where it went on."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.Linear(width, 1))
    generator = torch.Generator().manual_seed(1)
    resumed: list[int] = []

    def batches(epoch: int) -> Iterator[list[Tensor]]:
        return ([torch.randn(5, 4, generator=generator)] for _ in range(3))

    def told(epoch: int, loss: float) -> None:
        if epoch == stop_after:
            raise Stopped

    pretraining_epochs(
        batches,
        lambda x: network(x).square().mean(),
        network.parameters(),
        steps=3,
        epochs=4,
        lr=1e-2,
        betas=(0.9, 0.95),
        generator=generator,
        device=torch.device("cpu"),
        state=PretrainingState(path=path, settings={"seed": "1", **settings}),
        on_resume=resumed.append,
        on_epoch=told,
    )
    return [p.detach() for p in network.parameters()], resumed


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stopped_training_goes_on_to_the_bit(tmp_path: Path, epoch: int) -> None:
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", stop_after=epoch)
    gone_on, resumed = train(tmp_path / "stopped")
    assert resumed == [epoch]
    assert all(map(torch.equal, whole, gone_on))


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "state", seed="1")
    with pytest.raises(ConfigError, match=r"with seed 1, and this one has 2"):
        train(tmp_path / "state", seed="2")


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "state")
    with pytest.raises(WeightsError, match="another network"):
        train(tmp_path / "state", width=2)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="state"):
        train(tmp_path / "state")


def test_a_removed_state_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path / "state", stop_after=2)
    PretrainingState(path=tmp_path / "state").remove()
    assert train(tmp_path / "state")[1] == []
