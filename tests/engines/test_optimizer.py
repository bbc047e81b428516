from __future__ import annotations

from monai_fedlora.engines.optimizer import adamw


def test_only_the_trainable_part_is_optimised_and_vectors_do_not_decay(make_network) -> None:
    network = make_network()
    optimizer = adamw(network=network, learning_rate=0.5, weight_decay=0.1, betas=[0.8, 0.9])
    decay = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert set(decay) == {p for p in network.parameters() if p.requires_grad}
    assert all(value == (0.1 if parameter.ndim > 1 else 0.0) for parameter, value in decay.items())
    assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {(0.5, (0.8, 0.9))}


def test_where_nothing_trains_a_step_moves_nothing(make_network) -> None:
    network = make_network().requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = adamw(network=network, learning_rate=0.5)
    assert [group["params"] for group in optimizer.param_groups] == [[]]
    optimizer.zero_grad()
    optimizer.step()
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())
