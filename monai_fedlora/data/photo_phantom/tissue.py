"""Layers of tissue as amounts of pigment, blood and covering material, and the colour that follows from them.

Light from skin or retina is attenuated by pigments (Beer and Lambert), so that densities of melanin and blood add up.
Material that covers or scatters (deep pigment seen through dermis, scar, keratin, exudate) covers a share of that
colour. Signs are drawn as amounts, so that tests can examine them before the camera is simulated.
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
    """Amounts in every pixel, (Y, X) float32 each, changed in place.

    Attributes:
        melanin, blood: density; 1 is that of a brown mole or a cherry angioma.
        blue: share covered by deep pigment, blue-grey.
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
        """Return layers of zeros."""
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
        """Return a view of a part, through which these layers are changed."""
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
