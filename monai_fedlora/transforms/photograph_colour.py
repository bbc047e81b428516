"""Colour of photographs in plain torch, scriptable for exported bundles."""

from __future__ import annotations

from torch import Tensor


def shades_of_grey(image: Tensor) -> Tensor:
    """Remove the colour of the light: shades-of-grey colour constancy.

    The light of channel c is the Minkowski mean ``e_c = (mean over pixels of x_c**p)**(1/p)`` with p = 6, and every
    channel is divided by ``sqrt(3) e_c / |e|`` (Finlayson and Trezzi, Color Imaging Conference 2004; for dermoscopy
    Barata et al., IEEE JBHI 2015). As usual for dermoscopy, the stored levels are used, without undoing their gamma.
    Black pixels do not change the direction of ``e``, and stay black.

    Args:
        image: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 3, H, W), clipped to [0, 1]. A grey image stays as it is.
    """
    square = image * image
    light = (square * square * square).mean(dim=[2, 3], keepdim=True).pow(1.0 / 6.0)
    length = (light * light).sum(dim=1, keepdim=True).sqrt()
    gain = length / (light * 3.0**0.5).clamp(min=1e-6)
    return (image * gain).clamp(0.0, 1.0)


def saturate(image: Tensor, factor: float) -> Tensor:
    """Scale the distance of every pixel from its own grey (ITU-R BT.601 luma).

    Args:
        image: (3, H, W).
        factor: 0 gives a grey image, 1 the unchanged one.
    """
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    return grey + factor * (image - grey)
