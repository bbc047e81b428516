"""How much the shared and the private adapter of a layer overlap: FedOPAL's penalties.

With A (r x d_in), B (d_out x r), g the shared and l the private adapter, and cos² the squared cosine of the angle
between two vectors, or between two matrices as vectors, one adapted layer's overlap is (arXiv 2510.12741: orthogonality
of the adapters' weights or of their representations; the forms are ours)

    W1   sum_ij cos²(row i of A_g, row j of A_l)  =  || rownorm(A_g) rownorm(A_l)^T ||_F²             in [0, r²]
    W2   W1 + sum_ij cos²(column i of B_g, column j of B_l)                                           in [0, 2 r²]
    W3   cos²(B_g A_g, B_l A_l)                                                                       in [0, 1]
    R    mean over the inputs x of cos²(B_g A_g x, B_l A_l x)                                         in [0, 1]

and the penalty is its mean over the layers, each of the same weight. In R the mean is over all vectors x that the layer
was given in the forward pass, whatever their number: the tokens of the batch's images, as a rule. Where the readout
takes the class token alone, the last block computes no more than it reads of it: its q, proj, fc1 and fc2 are given the
class token of each image, and the v of a :class:`~monai_fedlora.networks.vit.VisionTransformer` each head's
attention-weighted mean of the tokens (:mod:`monai_fedlora.networks.one_query`), or with dropout every token.
No d_out x d_in matrix and no d_out-long representation is built. The inner
products of all rows and columns are two 2r x 2r matrices per layer, in four r x r parts,

    G = A A^T  with  A = [A_g; A_l],        H = B^T B  with  B = [B_g, B_l],

and, with u = A x from the layer's own forward pass,

    <B_g A_g, B_l A_l> = sum of G_gl * H_gl elementwise,        <B_g A_g x, B_l A_l x> = u_g^T H_gl u_l.

A squared cosine is <p, q>² / ((|p|² + eps) (|q|² + eps)) with eps = 1e-10. It has no square root, so that it and its
gradient are finite and 0 where p or q is 0, as all are that involve B before the first step. Once lengths are above
3e-3, what one step of AdamW at a learning rate of 1e-4 gives a column of 768 numbers, eps changes it by less than 1e-4
of itself; in a trained adapter, by less than float32 resolves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.adapters.lora import PRIVATE, SHARED, lora_layers
from monai_fedlora.errors import FedLoraError

Form = Literal["W1", "W2", "W3", "R"]
FORMS: tuple[Form, ...] = get_args(Form)
EPS = 1e-10

_Activations = dict[tuple[int, str], Tensor]


@contextmanager
def overlap(network: nn.Module, form: Form, *, detach_shared: bool = False) -> Iterator[Callable[[], Tensor]]:
    """Give a function that computes the mean overlap over the adapted layers, a scalar with a gradient.

    ``R`` reads the low-rank activations A x off each forward pass that builds a graph, so the function is called once
    after every one of them, before its backward pass; others, as in an evaluation, are ignored. With mixed precision
    the activations have the precision of the forward pass; everything else is computed in the parameters' own.

    Args:
        network: with a ``shared`` and a ``private`` adapter of the same rank on each adapted layer.
        form: which overlap.
        detach_shared: whether the shared adapter counts as fixed, so that the gradient reaches private factors alone.
            In ``R`` each layer's input counts as fixed, too, since the shared adapters before it contribute to it.

    Raises:
        FedLoraError: from the function with ``R``, when no forward pass built a graph since the last call.
    """
    layers = list(lora_layers(network).values())
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        groups[layer.lora_A[SHARED].weight.shape, layer.lora_B[SHARED].weight.shape].append(index)

    def mean(activations: _Activations) -> Tensor:
        overlaps = []
        for group in groups.values():
            factors = _Factors([layers[index] for index in group], detach_shared)
            if form == "R":
                overlaps += _token_overlaps(activations, group, factors.columns())
            elif form == "W3":
                overlaps.append(product_overlap(factors.rows(), factors.columns()))
            elif form == "W2":
                overlaps.append(vector_overlap(factors.rows()) + vector_overlap(factors.columns()))
            else:
                overlaps.append(vector_overlap(factors.rows()))
        return torch.cat(overlaps).mean()

    recording: AbstractContextManager[_Activations]
    recording = _recorded_activations(layers, detach_shared) if form == "R" else nullcontext({})
    with recording as activations:
        yield lambda: mean(activations)


def vector_overlap(gram: Tensor) -> Tensor:
    """Sum of the squared cosines between r shared and r private vectors: (L, 2r, 2r) inner products to (L,)."""
    rank = gram.shape[-1] // 2
    norms = gram.diagonal(dim1=-2, dim2=-1)
    pairs = _squared_cosine(gram[:, :rank, rank:], norms[:, :rank, None], norms[:, None, rank:])
    return pairs.sum(dim=(-2, -1))


def product_overlap(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared cosine between B_g A_g and B_l A_l: inner products of the rows of A and columns of B to (L,)."""
    rank = rows.shape[-1] // 2
    parts = (rows * columns).unflatten(-1, (2, rank)).unflatten(-3, (2, rank)).sum(dim=(-3, -1))
    return _squared_cosine(parts[:, 0, 1], parts[:, 0, 0], parts[:, 1, 1])


def token_overlap(shared: Tensor, private: Tensor, columns: Tensor) -> Tensor:
    """Mean over tokens of the squared cosine between B_g u_g and B_l u_l.

    Args:
        shared, private: u_g and u_l, (L, T, r).
        columns: inner products of the columns of [B_g, B_l], (L, 2r, 2r).

    Returns:
        (L,).
    """
    rank = shared.shape[-1]
    from_shared = (shared @ columns[:, :rank]).unflatten(-1, (2, rank))
    from_private = private @ columns[:, rank:, rank:]
    norm_shared = (from_shared[..., 0, :] * shared).sum(dim=-1)
    inner = (from_shared[..., 1, :] * private).sum(dim=-1)
    norm_private = (from_private * private).sum(dim=-1)
    return _squared_cosine(inner, norm_shared, norm_private).mean(dim=-1)


def _squared_cosine(inner: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """From an inner product and two squared norms; rounding makes neither norm negative nor the result exceed 1."""
    norms = (first.clamp(min=0) + EPS) * (second.clamp(min=0) + EPS)
    return (inner.square() / norms).clamp(max=1)


class _Factors:
    """The factors of L layers of equal shape, of which whole stacks are multiplied at once."""

    def __init__(self, layers: Sequence[Any], detach_shared: bool) -> None:
        self._layers, self._detach_shared = layers, detach_shared

    def rows(self) -> Tensor:
        """Inner products (L, 2r, 2r) of the rows of A_g and A_l."""
        return self._gram(lambda layer, adapter: layer.lora_A[adapter].weight)

    def columns(self) -> Tensor:
        """Inner products (L, 2r, 2r) of the columns of B_g and B_l."""
        return self._gram(lambda layer, adapter: layer.lora_B[adapter].weight.T)

    def _gram(self, factor: Callable[[Any, str], Tensor]) -> Tensor:
        vectors = []
        for layer in self._layers:
            shared = factor(layer, SHARED)
            vectors += [shared.detach() if self._detach_shared else shared, factor(layer, PRIVATE)]
        stack = torch.stack(vectors).unflatten(0, (-1, 2)).flatten(1, 2)
        return stack @ stack.mT


@contextmanager
def _recorded_activations(layers: Sequence[Any], detach_shared: bool) -> Iterator[_Activations]:
    """Keep the latest A x by (layer, adapter) of the forward passes that build a graph."""
    activations: _Activations = {}

    def keep(place: tuple[int, str], factor: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if not output.requires_grad:
            return
        if not detach_shared:
            activations[place] = output
        elif place[1] == SHARED:
            activations[place] = output.detach()
        else:
            activations[place] = functional.linear(inputs[0].detach(), factor.weight)  # type: ignore[arg-type]

    hooks = [
        layer.lora_A[adapter].register_forward_hook(partial(keep, (index, adapter)))
        for index, layer in enumerate(layers)
        for adapter in (SHARED, PRIVATE)
    ]
    try:
        yield activations
    finally:
        for hook in hooks:
            hook.remove()
        activations.clear()


def _token_overlaps(activations: _Activations, group: Sequence[int], columns: Tensor) -> list[Tensor]:
    """The overlap per token of the layers of a group, those with the same number of tokens at once."""
    shared, private = (_take(activations, group, adapter) for adapter in (SHARED, PRIVATE))
    places: dict[int, list[int]] = defaultdict(list)
    for place, activation in enumerate(shared):
        places[len(activation)].append(place)
    overlaps = []
    for alike in places.values():
        first, second = (
            torch.stack([activations_of[place] for place in alike]) for activations_of in (shared, private)
        )
        overlaps.append(token_overlap(first, second, torch.stack([columns[place] for place in alike])))
    return overlaps


def _take(activations: _Activations, group: Sequence[int], adapter: str) -> list[Tensor]:
    """Move the activations of some layers out of the record: (T, r) each, in float32 or wider."""
    try:
        taken = [activations.pop((index, adapter)).flatten(0, -2) for index in group]
    except KeyError as error:
        raise FedLoraError(
            "the overlap of representations needs one forward pass with gradients before every call, and there was none"
        ) from error
    return [activation.to(torch.promote_types(activation.dtype, torch.float32)) for activation in taken]
