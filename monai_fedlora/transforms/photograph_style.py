"""Styles of photographs: which part of one is looked at, and what may vary without another diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from monai_fedlora.catalogues import Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How a style of photograph may vary without another diagnosis (all ours).

    Attributes:
        flips: spatial axes that may be mirrored.
        angle: largest rotation in radians.
        padding: what lies outside the image, in the words of ``torch.nn.functional.grid_sample``.
    """

    flips: tuple[int, ...] = ()
    angle: float = math.pi / 12
    padding: str = "reflection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A kind of photograph.

    Attributes:
        photographs: what it is called, in the plural, on model cards.
        processing: what is done to one before it is scaled, in the third person, on model cards.
        variation: in training.
        square: returns a module from one photograph (1, 3, H, W) in [0, 1] to a square (1, 3, S, S) of it, which
            TorchScript can script, so that exported models hold it; None for the styles that
            :class:`monai_fedlora.transforms.photograph.PhotographPreprocessor` has itself.
    """

    photographs: str = "photographs"
    processing: str
    variation: Variation = Variation()
    square: Callable[[], nn.Module] | None = None


_BUILT_IN = {
    "dermoscopy": Style(
        photographs="dermoscopic photographs",
        processing="removes the colour of the light (shades of grey), cuts out the centre square",
        variation=Variation(flips=(0, 1), angle=math.pi),
    ),
    "fundus": Style(
        photographs="fundus photographs",
        processing="cuts out the square around the lit disc",
        variation=Variation(flips=(0, 1), angle=math.pi, padding="zeros"),
    ),
    "plain": Style(processing="cuts out the centre square"),
}


def _problem(found: Any, name: str) -> str | None:
    if not isinstance(found, Style) or not callable(found.square):
        return f"{found!r:.80}, which is no Style of monai_fedlora.transforms.photograph_style with a square"
    return None


STYLES: Catalogue[Style] = Catalogue("styles", word="photograph style", built_in=_BUILT_IN, problem=_problem)
"""All styles by name."""

DEFAULT_STYLE = "dermoscopy"
