"""The proximal term: a penalty on the distance of parameters from given values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from monai_fedlora.methods.base import Penalty


@contextmanager
def pulled(pairs: Iterable[tuple[nn.Parameter, Tensor]], *, mu: float) -> Iterator[Penalty]:
    """Give mu / 2 sum ||v - w||^2 over pairs of a parameter v and a tensor w.

    Each w counts as it is when the context is entered; only v gets a gradient.
    """
    fixed = [(parameter, place.detach().clone()) for parameter, place in pairs]
    yield lambda: mu / 2 * torch.stack([(parameter - place).square().sum() for parameter, place in fixed]).sum()
