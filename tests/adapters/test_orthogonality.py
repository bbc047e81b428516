"""The overlap of two adapters against dense float64 matrices, loops over tokens, and finite differences."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora, lora_layers
from monai_fedlora.adapters.orthogonality import FORMS, overlap, product_overlap, token_overlap, vector_overlap
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.errors import FedLoraError
from monai_fedlora.networks.cinema import ConvViT
from tests.helpers import randomise, tiny_images, tiny_network, tiny_photographs, tiny_vit

RANK = 3
STATES = ("initial", "private fresh", "shared fresh", "trained")


def dual(state: str = "trained", *, dtype: torch.dtype = torch.float64, **settings: object) -> ConvViT:
    """Every block adapted at q and kv, which differ in shape."""
    return copy.deepcopy(_dual(state, dtype, **settings))


@functools.cache
def _dual(state: str, dtype: torch.dtype, **settings: object) -> ConvViT:
    network = tiny_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        attach_lora(network, LoraSettings(**{"rank": RANK, "blocks": 0, **settings}), (SHARED, PRIVATE))
    network.to(dtype)
    if state == "trained":
        randomise(network, "lora_B", scale=0.1)
        train(network)
    elif state != "initial":
        randomise(network, f"lora_B.{SHARED if state == 'private fresh' else PRIVATE}")
    return network


def train(network: ConvViT, steps: int = 5, form: str = "R", *, lr: float = 0.01, weight: float = 1.0) -> list[float]:
    """Steps on a task plus the overlap; the overlaps on the way."""
    optimiser = torch.optim.AdamW(trained(network), lr=lr)
    seen = []
    with overlap(network, form) as mean:
        for _ in range(steps):
            optimiser.zero_grad()
            logits = network(images(network))
            penalty = mean()
            (nn.functional.cross_entropy(logits, torch.tensor([0, 1])) + weight * penalty).backward()
            optimiser.step()
            seen.append(penalty.item())
    optimiser.zero_grad()
    return seen


def trained(network: nn.Module, part: str = "") -> list[nn.Parameter]:
    return [p for name, p in network.named_parameters() if p.requires_grad and part in name]


def images(network: ConvViT) -> Tensor:
    return tiny_images().to(next(network.parameters()).dtype)


def value(network: ConvViT, form: str, **settings: bool) -> Tensor:
    with overlap(network, form, **settings) as mean:
        network(images(network))
        return mean()


def gradients(network: ConvViT, form: str, parameters: list[nn.Parameter], **settings: bool) -> list[Tensor]:
    return list(torch.autograd.grad(value(network, form, **settings), parameters, materialize_grads=True))


# ---- a second implementation ------------------------------------------------------------------------------


def factors(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A_g, A_l, B_g, B_l in float64."""
    return tuple(  # type: ignore[return-value]
        side[adapter].weight.detach().double()
        for side, adapter in product((layer.lora_A, layer.lora_B), (SHARED, PRIVATE))
    )


def dense(network: ConvViT, form: str) -> float:
    """The definitions as they are written, with whole matrices and without an eps."""
    if form == "R":
        return by_token(network)
    values = []
    for layer in lora_layers(network).values():
        a_g, a_l, b_g, b_l = factors(layer)
        rows = (normalize(a_g, dim=1) @ normalize(a_l, dim=1).T).square().sum()
        columns = (normalize(b_g, dim=0).T @ normalize(b_l, dim=0)).square().sum()
        w_g, w_l = b_g @ a_g, b_l @ a_l
        lengths = w_g.norm() * w_l.norm()
        cosine = (w_g * w_l).sum() / lengths if lengths else torch.zeros(())
        values.append({"W1": rows, "W2": rows + columns, "W3": cosine**2}[form])
    return float(sum(values) / len(values))


def by_token(network: ConvViT) -> float:
    """The mean over layers of the means over the 18 tokens of two images."""
    squares = squares_by_layer(network, images(network)).values()
    assert {len(each) for each in squares} == {2 * 9}
    return sum(sum(each) / len(each) for each in squares) / len(squares)


def squares_by_layer(network: nn.Module, x: Tensor) -> dict[str, list[float]]:
    """A loop over the outputs of every adapter, which the forward pass does not compute one by one."""
    outputs: dict[tuple[str, str], Tensor] = {}
    layers = lora_layers(network)
    hooks = [
        layer.lora_A[adapter].register_forward_hook(
            lambda module, inputs, output, place=(name, adapter), up=layer.lora_B[adapter]: outputs.update(
                {place: up(output).detach()}
            )
        )
        for name, layer in layers.items()
        for adapter in (SHARED, PRIVATE)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    found = {}
    for name in layers:
        tokens = zip(outputs[name, SHARED].flatten(0, -2), outputs[name, PRIVATE].flatten(0, -2), strict=True)
        found[name] = [float((p @ q) / (p.norm() * q.norm())) ** 2 if p.any() and q.any() else 0.0 for p, q in tokens]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_dense_matrices_and_loops_give(form: str, state: str) -> None:
    network = dual(state)
    expected = dense(network, form)
    assert value(network, form).item() == pytest.approx(expected, rel=1e-6, abs=1e-15)
    assert (expected > 1e-5) == (state == "trained" or form in ("W1", "W2"))


@pytest.mark.parametrize("form", FORMS)
def test_float32_gives_the_same_to_its_precision(form: str) -> None:
    single = value(dual(dtype=torch.float32), form)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(dense(dual(), form), rel=1e-4)


@pytest.mark.parametrize("lr", [1e-4, 1e-3])
@pytest.mark.parametrize("form", ["W2", "W3"])
def test_the_eps_does_not_show_after_a_single_step(form: str, lr: float) -> None:
    """Columns of 768 numbers, each of which moved by the learning rate, as AdamW's first step moves them."""
    generator = torch.Generator().manual_seed(0)
    a_g, a_l = (torch.rand(8, 768, generator=generator, dtype=torch.float64) * 2 - 1 for _ in "gl")
    b_g, b_l = (torch.randn(768, 8, generator=generator, dtype=torch.float64).sign() * lr for _ in "gl")
    rows, columns = gram(a_g / 768**0.5, a_l / 768**0.5), gram(b_g.T, b_l.T)
    if form == "W3":
        w_g, w_l = b_g @ a_g, b_l @ a_l
        expected = (w_g * w_l).sum() ** 2 / (w_g.norm() * w_l.norm()) ** 2
        torch.testing.assert_close(product_overlap(rows, columns), expected[None], rtol=1e-4, atol=0)
    else:
        expected = (normalize(b_g, dim=0).T @ normalize(b_l, dim=0)).square().sum()
        torch.testing.assert_close(vector_overlap(columns), expected[None], rtol=1e-4, atol=0)


def gram(shared: Tensor, private: Tensor) -> Tensor:
    stack = torch.cat([shared, private])
    return (stack @ stack.T)[None]


# ---- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_one_of_finite_differences(form: str, state: str) -> None:
    """Along random directions in the space of all factors, including the way through the inputs of later layers.

    Where B is zero, the function changes over lengths of 1e-5, and a difference must be far shorter.
    """
    network = dual(state)
    parameters = trained(network, "lora_")
    slopes = gradients(network, form, parameters)
    generator = torch.Generator().manual_seed(6)
    step = 1e-6 if state == "trained" else 3e-10
    for _ in range(4):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        ends = []
        for sign in (step, -2 * step):
            with torch.no_grad():
                for parameter, change in zip(parameters, direction, strict=True):
                    parameter += sign * change
            ends.append(value(network, form).item())
        with torch.no_grad():
            for parameter, change in zip(parameters, direction, strict=True):
                parameter += step * change
        expected = (ends[0] - ends[1]) / (2 * step)
        slope = sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True))
        assert slope == pytest.approx(expected, rel=1e-5, abs=2e-7)


@pytest.mark.parametrize("function", [vector_overlap, product_overlap, token_overlap])
def test_each_closed_form_passes_gradcheck(function: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    a_g, a_l, b_g, b_l, u_g, u_l = (
        torch.randn(2, size, RANK, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in (5, 5, 7, 7, 4, 4)
    )

    def grams(first: Tensor, second: Tensor) -> Tensor:
        stack = torch.cat([first, second], dim=-1)
        return stack.mT @ stack

    arguments = {
        vector_overlap: (lambda a_g, a_l: vector_overlap(grams(a_g, a_l)), (a_g, a_l)),
        product_overlap: (
            lambda a_g, a_l, b_g, b_l: product_overlap(grams(a_g, a_l), grams(b_g, b_l)),
            (a_g, a_l, b_g, b_l),
        ),
        token_overlap: (
            lambda u_g, u_l, b_g, b_l: token_overlap(u_g, u_l, grams(b_g, b_l)),
            (u_g, u_l, b_g, b_l),
        ),
    }
    assert torch.autograd.gradcheck(*arguments[function])


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_reaches_both_adapters(form: str) -> None:
    network = dual()
    for adapter in (SHARED, PRIVATE):
        slopes = gradients(network, form, trained(network, f".{adapter}."))
        reached = [bool(slope.any()) for slope in slopes]
        assert any(reached)
        if form != "W1":
            assert all(reached)


@pytest.mark.parametrize("form", FORMS)
def test_with_the_shared_adapter_detached_only_the_private_one_gets_a_gradient(form: str) -> None:
    network = dual()
    value(network, form, detach_shared=True).backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    expected = {
        f"{layer}.lora_{factor}.{PRIVATE}.weight"
        for layer in lora_layers(network)
        for factor in ("A" if form == "W1" else "AB")
    }
    assert with_gradient == expected


@pytest.mark.parametrize("form", FORMS)
def test_detaching_changes_neither_the_value_nor_the_private_gradient(form: str) -> None:
    """With one adapted layer, whose input no adapter changes."""
    network = dual(blocks=1, targets=("q",))
    private = trained(network, f".{PRIVATE}.")
    assert value(network, form, detach_shared=True).item() == pytest.approx(value(network, form).item(), rel=1e-12)
    both, one = (gradients(network, form, private, detach_shared=detach) for detach in (False, True))
    torch.testing.assert_close(one, both)


@pytest.mark.slow
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradient_are_finite_wherever_b_is_zero(form: str, state: str, detach: bool) -> None:
    network = dual(state, dtype=torch.float32)
    parameters = trained(network, f".{PRIVATE}." if detach else "lora_")
    result = value(network, form, detach_shared=detach)
    slopes = torch.autograd.grad(result, parameters, materialize_grads=True)
    assert torch.isfinite(result)
    assert all(torch.isfinite(slope).all() for slope in slopes)
    if state != "trained" and form in ("W3", "R"):
        assert result == 0
        assert not any(slope.any() for slope in slopes)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_training_on_it_drives_it_down(form: str) -> None:
    network = dual("initial", dtype=torch.float32)
    randomise(network, "lora_B")
    seen = train(network, 20, form, lr=0.03, weight=100.0)
    assert seen[-1] < 0.2 * seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_training_from_b_zero_stays_finite(form: str) -> None:
    network = dual("initial", dtype=torch.float32)
    train(network, 10, form)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert all(p.any() for p in trained(network, "lora_B"))


# ---- what it does not depend on, and its range ------------------------------------------------------------


@torch.no_grad()
def changed(network: ConvViT, change: Callable[[nn.Module, Tensor], None]) -> ConvViT:
    """Apply ``change`` to each layer, with a well-conditioned (r, r) matrix of its own."""
    generator = torch.Generator().manual_seed(7)
    for layer in lora_layers(network).values():
        change(layer, torch.eye(RANK, dtype=torch.float64) + 0.3 * torch.randn(RANK, RANK, generator=generator))
    return network


def scale_rows_of_a(layer: nn.Module, matrix: Tensor) -> None:
    layer.lora_A[SHARED].weight.mul_(matrix[:, :1])


def scale_columns_of_b(layer: nn.Module, matrix: Tensor) -> None:
    layer.lora_B[PRIVATE].weight.mul_(matrix[:1])


def scale_b(layer: nn.Module, matrix: Tensor) -> None:
    layer.lora_B[PRIVATE].weight.mul_(-40.0)


def mix_factors(layer: nn.Module, matrix: Tensor) -> None:
    """B M^-1 and M A have the same product."""
    layer.lora_A[SHARED].weight.copy_(matrix @ layer.lora_A[SHARED].weight)
    layer.lora_B[SHARED].weight.copy_(layer.lora_B[SHARED].weight @ torch.linalg.inv(matrix))


def swap_adapters(layer: nn.Module, matrix: Tensor) -> None:
    for side in (layer.lora_A, layer.lora_B):
        before = side[SHARED].weight.clone()
        side[SHARED].weight.copy_(side[PRIVATE].weight)
        side[PRIVATE].weight.copy_(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "without_effect"),
    [
        (scale_rows_of_a, {"W1", "W2"}),
        (scale_columns_of_b, {"W1", "W2"}),
        (scale_b, {"W1", "W2", "W3", "R"}),
        (mix_factors, {"W3", "R"}),
        (swap_adapters, {"W1", "W2", "W3", "R"}),
    ],
)
def test_what_it_depends_on(change: Callable[[nn.Module, Tensor], None], without_effect: set[str]) -> None:
    """In one layer, so that a change in it does not reach the input of another."""
    for form in FORMS:
        one = {"blocks": 1, "targets": ("q",)}
        before, after = value(dual(**one), form), value(changed(dual(**one), change), form)
        assert torch.isclose(before, after, rtol=1e-6, atol=0) == (form in without_effect), form


def use_half_of_the_coordinates(layer: nn.Module, matrix: Tensor) -> None:
    for side, dim in ((layer.lora_A, 1), (layer.lora_B, 0)):
        for adapter, half in ((SHARED, 0), (PRIVATE, 1)):
            side[adapter].weight.chunk(2, dim)[half].zero_()


@pytest.mark.parametrize("form", FORMS)
def test_orthogonal_adapters_do_not_overlap(form: str) -> None:
    assert value(changed(dual(), use_half_of_the_coordinates), form).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("form", "most"), [("W1", RANK**2), ("W2", 2 * RANK**2), ("W3", 1), ("R", 1)], ids=lambda value: str(value)
)
def test_identical_adapters_of_rank_one_overlap_most(form: str, most: float) -> None:
    network = dual()
    with torch.no_grad():
        for layer in lora_layers(network).values():
            for adapter in (SHARED, PRIVATE):
                layer.lora_A[adapter].weight.copy_(layer.lora_A[SHARED].weight[:1].clone().expand(RANK, -1))
                layer.lora_B[adapter].weight.copy_(layer.lora_B[SHARED].weight[:, :1].clone().expand(-1, RANK))
    assert value(network, form).item() == pytest.approx(most, rel=1e-6)


@pytest.mark.parametrize(("form", "expected"), [("W3", 1), ("R", 1)])
def test_identical_adapters_have_the_same_update(form: str, expected: float) -> None:
    network = dual()
    with torch.no_grad():
        for layer in lora_layers(network).values():
            for side in (layer.lora_A, layer.lora_B):
                side[PRIVATE].weight.copy_(side[SHARED].weight)
    assert value(network, form).item() == pytest.approx(expected, rel=1e-6)


@given(
    seed=st.integers(0, 2**31),
    rank=st.integers(1, 6),
    inner=st.integers(1, 3),
    scales=st.tuples(*[st.floats(-12, 4).map(lambda power: 10.0**power)] * 4),
)
def test_it_lies_between_zero_and_its_maximum_whatever_the_factors(
    seed: int, rank: int, inner: int, scales: tuple[float, ...]
) -> None:
    """In float32, with factors of any length whose rank may be below r."""
    generator = torch.Generator().manual_seed(seed)
    u_g, u_l, a_g, a_l, b_g, b_l = (
        (torch.randn(rank, inner, generator=generator) @ torch.randn(inner, 5, generator=generator) * scale)
        for scale in (1.0, 1.0, *scales)
    )
    rows, columns = gram(a_g, a_l), gram(b_g, b_l)
    for result, most in (
        (vector_overlap(rows), rank**2),
        (product_overlap(rows, columns), 1),
        (token_overlap(u_g.T[None], u_l.T[None], columns), 1),
    ):
        assert result.shape == (1,)
        assert 0 <= result.item() <= most * (1 + 1e-6)


# ---- representations: which tokens -------------------------------------------------------------------------

EVERY_LAYER = ("q", "k", "v", "proj", "fc1", "fc2")
ALL = 2 * 17
"""Tokens of two photographs."""


@pytest.mark.slow
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    ("readout", "dropout", "last"),
    [
        ("mean", 0.0, dict.fromkeys(EVERY_LAYER, ALL)),
        ("cls", 0.0, {"q": 2, "k": ALL, "v": 2 * 2, "proj": 2, "fc1": 2, "fc2": 2}),
        ("cls", 0.5, {"q": 2, "k": ALL, "v": ALL, "proj": 2, "fc1": 2, "fc2": 2}),
    ],
)
def test_each_layer_has_the_tokens_that_it_computes_with(
    readout: str, dropout: float, last: dict[str, int], detach: bool
) -> None:
    """Two heads and three blocks; the last one computes for the class token alone where nothing else is read."""
    network = tiny_vit(readout=readout).double()
    settings = LoraSettings(rank=RANK, blocks=0, targets=EVERY_LAYER, dropout=dropout)
    attach_lora(network, settings, (SHARED, PRIVATE))
    randomise(network, "lora_")
    network.train()
    x = tiny_photographs().double()
    torch.manual_seed(3)
    squares = squares_by_layer(network, x)
    expected = {f"blocks.{b}.{network.target_names[role]}": ALL for b in range(2) for role in EVERY_LAYER}
    expected |= {f"blocks.2.{network.target_names[role]}": count for role, count in last.items()}
    assert {name: len(each) for name, each in squares.items()} == expected
    torch.manual_seed(3)
    with overlap(network, "R", detach_shared=detach) as mean:
        network(x)
        result = mean()
    result.backward()
    assert result.item() == pytest.approx(sum(sum(each) / len(each) for each in squares.values()) / 18, rel=1e-6)
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in network.named_parameters() if f".{PRIVATE}." in name} | (
        set() if detach else {name for name, _ in network.named_parameters() if f".{SHARED}." in name}
    )


@pytest.mark.parametrize("readout", ["cls", "patch", "cls_patch"])
def test_every_readout_of_a_convvit_has_an_overlap(readout: str) -> None:
    network = tiny_network(readout=readout).double()
    attach_lora(network, LoraSettings(rank=RANK, blocks=0), (SHARED, PRIVATE))
    randomise(network, "lora_")
    squares = squares_by_layer(network, images(network))
    assert len(squares["encoder.blocks.2.attn.q"]) == (2 if readout == "cls" else 18)
    expected = sum(sum(each) / len(each) for each in squares.values()) / 6
    assert value(network, "R").item() == pytest.approx(expected, rel=1e-6)


# ---- representations: which forward pass ------------------------------------------------------------------


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_as_before_afterwards(form: str) -> None:
    network = dual()
    with overlap(network, form):
        assert hooks(network) == (12 if form == "R" else 0)
    assert hooks(network) == 0
    with pytest.raises(RuntimeError, match="in between"), overlap(network, form):
        network(images(network))
        raise RuntimeError("in between")
    assert hooks(network) == 0


def test_representations_are_those_of_the_dropout_that_was_drawn() -> None:
    network = dual(dropout=0.5)
    network.train()
    torch.manual_seed(3)
    expected = by_token(network)
    torch.manual_seed(3)
    result = value(network, "R").item()
    assert result == pytest.approx(expected, rel=1e-6)
    torch.manual_seed(4)
    assert value(network, "R").item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("detach", [False, True])
def test_an_evaluation_in_between_is_ignored(detach: bool) -> None:
    network = dual()
    expected = value(network, "R", detach_shared=detach)
    other = tiny_images(4, seed=9).double()
    with overlap(network, "R", detach_shared=detach) as mean:
        with torch.no_grad():
            network(other)
        network(images(network))
        with torch.inference_mode():
            network(other)
        assert torch.equal(mean(), expected)


def test_each_micro_batch_has_its_own() -> None:
    network = dual()
    parts = [images(network)[:1], images(network)[1:]]
    with overlap(network, "R") as mean:
        for part in parts:
            network(part)
            mean().backward()
    accumulated = [p.grad.clone() / 2 for p in trained(network, "lora_")]
    whole = gradients(network, "R", trained(network, "lora_"))
    torch.testing.assert_close(accumulated, whole)


def test_kept_features_of_the_frozen_blocks_change_nothing() -> None:
    network, inferer = dual(blocks=2), FrozenInferer(dtype="float32")
    expected = value(network, "R")
    with overlap(network, "R") as mean:
        for _ in range(2):
            inferer(images(network), network)
            torch.testing.assert_close(mean(), expected)


def test_a_call_without_a_forward_pass_is_an_error() -> None:
    network = dual()
    with overlap(network, "R") as mean:
        with pytest.raises(FedLoraError, match="one forward pass"):
            mean()
        network(images(network))
        mean()
        with pytest.raises(FedLoraError, match="one forward pass"):
            mean()


def test_mixed_precision_rounds_the_representations_alone() -> None:
    network = dual(dtype=torch.float32)
    expected = {form: value(network, form) for form in FORMS}
    for form in FORMS:
        with overlap(network, form) as mean:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                network(images(network))
            result = mean()
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected[form], rtol=0.05 if form == "R" else 0, atol=0)
