import torch
from torch import nn

from monai_fedlora.networks.decay import decay_groups


def test_vectors_do_not_decay_and_every_parameter_is_in_one_group() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.LayerNorm(3), nn.Linear(3, 2))
    scale = nn.Parameter(torch.zeros(()))
    decaying, constant = decay_groups([*network.parameters(), scale], 0.1)
    assert decaying["weight_decay"] == 0.1
    assert constant["weight_decay"] == 0
    assert [p.ndim for p in decaying["params"]] == [4, 2]
    assert [p.ndim for p in constant["params"]] == [1, 1, 1, 1, 0]
