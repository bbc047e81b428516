from __future__ import annotations

import torch

from monai_fedlora.engines.modes import set_training_mode


def in_training(network) -> set[str]:
    return {name for name, module in network.named_modules() if module.training}


def test_only_what_trains_is_in_training_mode(make_network) -> None:
    network = make_network().train()
    set_training_mode(network)
    training = in_training(network)
    assert not any(name.startswith("stem") for name in training)
    assert {"head", "head.0", "head.1", "head.2"} <= training
    assert {"layer.lora_dropout.shared", "layer.lora_dropout.private"} <= training
    assert "layer.base_layer" not in training


def test_the_dropout_of_a_frozen_adapter_stays_off(make_network) -> None:
    network = make_network()
    network.layer.lora_A["shared"].requires_grad_(False)
    network.layer.lora_B["shared"].requires_grad_(False)
    set_training_mode(network)
    assert "layer.lora_dropout.private" in in_training(network)
    assert "layer.lora_dropout.shared" not in in_training(network)


def test_a_network_that_trains_completely_is_in_training_mode(make_network) -> None:
    network = make_network().requires_grad_(True).eval()
    set_training_mode(network)
    still = {name for name, module in network.named_modules() if not module.training}
    assert still == {name for name, module in network.named_modules() if isinstance(module, torch.nn.BatchNorm1d)}


def test_running_statistics_stay_as_they_are_whatever_trains(make_network) -> None:
    network = make_network().requires_grad_(True)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    network.head.append(torch.nn.BatchNorm1d(2, track_running_stats=False))
    set_training_mode(network)
    assert norms
    assert not any(norm.training for norm in norms)
    assert network.head[-1].training


def test_a_frozen_network_is_in_evaluation_mode(make_network) -> None:
    network = make_network().requires_grad_(False).train()
    set_training_mode(network)
    assert in_training(network) == set()


def test_a_parameter_beside_frozen_children_switches_only_its_owner(make_network) -> None:
    network = make_network()
    network.scale = torch.nn.Parameter(torch.ones(1))
    set_training_mode(network)
    assert network.training
    assert not network.stem.training
