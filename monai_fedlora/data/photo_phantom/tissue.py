"""What tissue is made of, layer by layer, and the colour that makes.

Light that comes back from skin or retina was weakened by the pigments on its way (Beer and Lambert); the densities
of melanin and blood add up, whatever drew them. What lies over or scatters (deep pigment seen through dermis, scar,
keratin, exudate) covers a share of that colour. Signs are drawn as amounts, so a test can look at them before any
camera has.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

Array = np.ndarray

MELANIN = np.array([0.50, 0.76, 1.02], np.float32)
"""Density of one unit of melanin for red, green and blue (ours, display values)."""

BLOOD = np.array([0.16, 1.05, 0.74], np.float32)
"""Density of one unit of blood for red, green and blue (ours, display values)."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Amounts in every pixel, (Y, X) float32 each, drawn in place.

    Attributes:
        melanin, blood: density, 1 being a brown mole and a cherry angioma.
        blue: share that shows deep pigment, blue-grey.
        horn: share covered by keratin, crust or lipid, yellow.
        white: share covered by scar, cyst, scale or scattering, white.
    """

    melanin: Array
    blood: Array
    blue: Array
    horn: Array
    white: Array

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Layers:
        """Return layers with nothing in them."""
        return cls(*(np.zeros(shape, np.float32) for _ in fields(cls)))

    def add(self, **amounts: Array | float) -> None:
        """Add to the layers of these names."""
        for name, amount in amounts.items():
            getattr(self, name)[...] += amount

    def at_least(self, **amounts: Array | float) -> None:
        """Raise the layers of these names to these amounts where they are lower."""
        for name, amount in amounts.items():
            layer = getattr(self, name)
            np.maximum(layer, amount, out=layer)

    def window(self, rows: slice, columns: slice) -> Layers:
        """Return a view of a part; what is drawn there is drawn here."""
        return Layers(*(getattr(self, field.name)[rows, columns] for field in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours (red, green, blue; 0..1) of bare tissue and of what covers it."""

    base: tuple[float, float, float]
    blue: tuple[float, float, float] = (0.43, 0.44, 0.51)
    horn: tuple[float, float, float] = (0.80, 0.64, 0.36)
    white: tuple[float, float, float] = (0.96, 0.90, 0.89)


def colour(layers: Layers, palette: Palette) -> Array:
    """Return the picture (3, Y, X) float32, 0..1, of layers under white light."""
    melanin, blood = np.maximum(layers.melanin, 0), np.maximum(layers.blood, 0)
    covers = [
        (np.clip(share, 0, 1), np.array(tint, np.float32))
        for share, tint in ((layers.blue, palette.blue), (layers.horn, palette.horn), (layers.white, palette.white))
        if share.any()
    ]
    picture = np.empty((3, *melanin.shape), np.float32)
    for channel, plane in enumerate(picture):
        np.multiply(melanin, -MELANIN[channel], out=plane)
        plane -= BLOOD[channel] * blood
        np.exp(plane, out=plane)
        plane *= np.float32(palette.base[channel])
        for share, tint in covers:
            plane += share * (tint[channel] - plane)
    return picture
