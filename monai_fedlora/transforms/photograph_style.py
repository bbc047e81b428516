"""Styles of photographs: how one is cropped, and which augmentation does not change the diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from monai_fedlora.catalogues import Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Augmentation that does not change the diagnosis (all ours).

    Attributes:
        flips: spatial axes that may be mirrored.
        angle: largest rotation in radians.
        padding: how to fill what lies outside of the image, a ``padding_mode`` of ``torch.nn.functional.grid_sample``.
    """

    flips: tuple[int, ...] = ()
    angle: float = math.pi / 12
    padding: str = "reflection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A kind of photograph.

    Attributes:
        photographs: name of such photographs on model cards, in the plural.
        processing: processing before scaling on model cards, in the third person.
        variation: augmentation in training.
        square: returns a module that turns one photograph (1, 3, H, W) in [0, 1] into a square one (1, 3, S, S). It
        must
            be scriptable, because exported models contain it. None for the styles that
            :class:`monai_fedlora.transforms.photograph.PhotographPreprocessor` implements itself.
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
