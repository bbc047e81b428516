"""Images from the gradient of a small batch (Geiping et al., "Inverting Gradients", NeurIPS 2020).

What if a site sent the gradient of one step on a few images? The attacker knows the network, the values that were sent
and the classes, and looks for images of which the gradient points the same way, smooth ones first. A site's answers are
sums of many steps on many images, and its policy asks for that; so this is what the policy stands for, and what is left
where it is lifted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

STEPS = 150
"""Of the search (ours; the paper takes thousands)."""
SMOOTH = 1e-2
"""Weight of total variation (ours)."""
RATE = 0.1

Gradient = Callable[[Tensor], Tensor]
"""From images (n, ...) to the gradient of their mean loss (P,), which can be differentiated."""


def inverted(gradient: Gradient, seen: Tensor, shape: Sequence[int], *, seed: int, steps: int = STEPS) -> Tensor:
    """Images of which the gradient points where the one that was seen does.

    Args:
        gradient: of images.
        seen: (P,) that the attacker has.
        shape: (n, ...) of the images.
        seed: of the images that the search begins with.
        steps: of the search: Adam on the signs of its gradient, as in the paper, with a rate that falls to zero.

    Returns:
        (n, ...).
    """
    images = (0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()
    optimiser = torch.optim.Adam([images], lr=RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, total_iters=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        away = 1 - cosine_similarity(gradient(images), seen, dim=0) + SMOOTH * roughness(images)
        images.grad = torch.autograd.grad(away, images)[0].sign()
        optimiser.step()
        falling.step()
    return images.detach()


def roughness(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along the axes behind the second, a scalar; zero without such an axis."""
    axes = [axis for axis in range(2, images.dim()) if images.shape[axis] > 1]
    parts = [images.diff(dim=axis).abs().mean() for axis in axes]
    return torch.stack(parts).mean() if parts else images.new_zeros(())


def resemblance(found: Tensor, images: Tensor) -> Tensor:
    """Largest correlation of each image (N, ...) with one of those that were found (n, ...): (N,) from -1 to 1."""
    return (_centred(images) @ _centred(found).T).amax(dim=1)


def _centred(images: Tensor) -> Tensor:
    flat = images.flatten(1).double()
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
