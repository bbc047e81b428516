from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from monai_fedlora.privacy.gradients import UnitGradients, unit_gradients

SIZES = [1, 3, 2, 1, 1, 3, 5]
B = sum(SIZES)


def made() -> tuple[nn.Module, dict[str, Tensor], list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3))
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    inputs = [torch.randn(B, 4, generator=generator), torch.randn(B, 4, generator=generator)]
    return network, parameters, inputs, torch.randint(3, (B,), generator=generator)


def all_of(chunks: list[UnitGradients]) -> dict[str, Tensor]:
    return {name: torch.cat([chunk.gradients[name] for chunk in chunks]) for name in chunks[0].gradients}


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_each_patient_has_the_gradient_of_a_loop_over_single_patients(chunk: int) -> None:
    network, parameters, inputs, targets = made()

    def loss(values, tensors, labels) -> Tensor:
        return functional.cross_entropy(functional_call(network, values, (tensors[0] * tensors[1],)), labels)

    found = list(unit_gradients(loss, parameters, inputs=inputs, targets=targets, sizes=SIZES, chunk=chunk))
    starts = [sum(SIZES[:place]) for place in range(len(SIZES))]
    in_order = sorted(range(len(SIZES)), key=lambda place: SIZES[place])
    expected, losses = [], []
    for place in in_order:
        rows = slice(starts[place], starts[place] + SIZES[place])
        value = functional.cross_entropy(network(inputs[0][rows] * inputs[1][rows]), targets[rows])
        expected.append(torch.autograd.grad(value, list(network.parameters())))
        losses.append(value.detach())
    gradients = all_of(found)
    for number, name in enumerate(parameters):
        torch.testing.assert_close(gradients[name], torch.stack([one[number] for one in expected]))
    torch.testing.assert_close(torch.cat([one.losses for one in found]), torch.stack(losses))
    assert max(len(one.losses) for one in found) <= chunk


def test_nobody_gives_nothing() -> None:
    _, parameters, inputs, targets = made()
    empty = [tensor[:0] for tensor in inputs]
    assert not list(unit_gradients(lambda *_: 1, parameters, inputs=empty, targets=targets[:0], sizes=[]))


def test_patients_who_do_not_fit_the_images_are_an_error() -> None:
    _, parameters, inputs, targets = made()
    with pytest.raises(ValueError, match=f"{B} images for patients with {B - 5}"):
        list(unit_gradients(lambda *_: 1, parameters, inputs=inputs, targets=targets, sizes=SIZES[:-1]))


def test_dropout_differs_between_patients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 1))
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    found = unit_gradients(
        lambda values, tensors, _: functional_call(network, values, (tensors[0],)).sum(),
        parameters,
        inputs=[torch.ones(2, 50)],
        targets=torch.zeros(2),
        sizes=[1, 1],
    )
    one, other = next(found).gradients["1.weight"]
    assert not torch.equal(one, other)
