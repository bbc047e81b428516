"""Networks of one process get from each other what they would have read from the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_fedlora.errors import WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.networks.catalogue import Network, build_backbone
from monai_fedlora.networks.read_once import read_backbone, reading_once

SIZES = ["vit_demo", "small"]


def fresh(size: str, seed: int) -> Network:
    torch.manual_seed(seed)
    return build_backbone(size, out_chans=2)


def stored(network: Network, path: Path, *, heads: bool) -> Path:
    state = network.state_dict()
    save_tensors(path, {key: value for key, value in state.items() if heads or not _is_head(key, network)})
    return path


def read(network: Network, path: Path, size: str = "vit_demo", sha256: str | None = None) -> Network:
    read_backbone(network, path, sha256=sha256, kind=size)
    return network


def equal(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def _is_head(key: str, network: Network) -> bool:
    return key.startswith(network.head_prefixes)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_later_networks_are_what_the_file_makes_of_them_and_the_file_is_not_read(
    size: str, heads: bool, tmp_path: Path
) -> None:
    path = stored(fresh(size, 0), tmp_path / "b.safetensors", heads=heads)
    expected = read(fresh(size, 2), path, size)
    with reading_once():
        first = read(fresh(size, 1), path, size).requires_grad_(False)
        for name, parameter in first.named_parameters():
            if _is_head(name, first):
                nn.init.zeros_(parameter.requires_grad_(True))  # as when it has trained
        path.unlink()
        later = [read(fresh(size, 2), path, size) for _ in range(2)]
    assert all(equal(network, expected) for network in later)
    assert equal(expected, fresh(size, 0)) is heads


def test_nothing_is_lent_by_a_network_that_trains(tmp_path: Path) -> None:
    path = stored(fresh("vit_demo", 0), tmp_path / "b.safetensors", heads=True)
    with reading_once():
        first = read(fresh("vit_demo", 1), path)
        with torch.no_grad():
            first.embed.cls.fill_(5)
        assert equal(read(fresh("vit_demo", 2), path), fresh("vit_demo", 0))


def test_networks_have_tensors_of_their_own(tmp_path: Path) -> None:
    path = stored(fresh("vit_demo", 0), tmp_path / "b.safetensors", heads=True)
    with reading_once():
        first, second = (read(fresh("vit_demo", seed), path).requires_grad_(False) for seed in (1, 2))
    places = zip(first.parameters(), second.parameters(), strict=True)
    assert all(one.data_ptr() != other.data_ptr() for one, other in places)


@pytest.mark.parametrize("change", ["source", "pin", "kind", "context"])
def test_what_another_network_was_not_asked_for_is_read(change: str, tmp_path: Path) -> None:
    path = stored(fresh("vit_demo", 0), tmp_path / "b.safetensors", heads=True)
    other = {"source": {"path": tmp_path / "c.safetensors"}, "pin": {"sha256": "0" * 64}, "kind": {"size": "other"}}
    with reading_once():
        read(fresh("vit_demo", 1), path).requires_grad_(False)
        path.unlink()
        if change != "context":
            with pytest.raises(WeightsError):
                read(fresh("vit_demo", 2), **{"path": path, **other[change]})
    if change == "context":
        with pytest.raises(WeightsError):
            read(fresh("vit_demo", 2), path)
