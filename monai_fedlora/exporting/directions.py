"""The few directions in which an exported model looks for unusual images, chosen from public images alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError

MOST = 8
"""Directions at most (ours): what a mean of n patients tells of one of them grows with their number over n."""

QUANTILE, MIDDLE = 0.95, 0.75
"""Of the images of one scanner, the shares that lie within the threshold, and within the distance that a site's own
patients decide (ours): the middle quantile is less noisy, and public images say how far out the other one lies."""

_FOLDS = 4
SOURCE = "linear discriminants (Rao, J. R. Stat. Soc. B 1948) with the within-group covariance of Ledoit and Wolf 2004"


@dataclass(frozen=True, kw_only=True)
class PublicFeatures:
    """What the heads of a finished network read of images that are no patient's of the site.

    Attributes:
        ordinary: by scanner or camera, (n, D) each.
        foreign: by kind of content that the model was not made for, (n, D) each.
    """

    ordinary: Mapping[str, Tensor]
    foreign: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """A linear map in whose coordinates images of one scanner have a covariance near the identity.

    Attributes:
        matrix: (D, k) float64.
        origin: (k,) mean of the ordinary images.
        radius: largest distance of an ordinary image from the origin.
        spread: distance from the mean of their own scanner that :data:`QUANTILE` of the ordinary images stay within.
        tail: ``spread`` over the distance that :data:`MIDDLE` of them stay within.
    """

    matrix: Tensor
    origin: Tensor
    radius: float
    spread: float
    tail: float


def find_directions(public: PublicFeatures, *, most: int = MOST) -> Directions:
    """The directions that best tell scanners from each other and from foreign content.

    Radius and spread are of images that had no part in the directions, a fourth of them at a time.

    Raises:
        ExportError: there are too few public images, or the network sees them all alike.
    """
    ordinary = [group.double() for group in public.ordinary.values()]
    foreign = [group.double() for group in public.foreign.values()]
    if not ordinary or min(map(len, ordinary)) < 2 * _FOLDS or len(ordinary) + len(foreign) < 2:
        raise ExportError(
            f"too few public images to choose directions from: there must be a scanner, a second one or another kind "
            f"of content, and {2 * _FOLDS} images of each scanner"
        )
    lengths, around = [], []
    for fold in range(_FOLDS):
        parts = [_parted(group, fold) for group in ordinary]
        matrix = _discriminants([others for others, _ in parts], foreign, most)
        centres = [others.mean(dim=0) for others, _ in parts]
        middle = torch.stack(centres).mean(dim=0)
        for (_, left_out), centre in zip(parts, centres, strict=True):
            around.append(((left_out - centre) @ matrix).norm(dim=1))
            lengths.append(((left_out - middle) @ matrix).norm(dim=1))
    matrix = _discriminants(ordinary, foreign, most)
    distances = torch.cat(around)
    spread = float(distances.quantile(QUANTILE))
    return Directions(
        matrix=matrix,
        origin=torch.stack([group.mean(dim=0) for group in ordinary]).mean(dim=0) @ matrix,
        radius=float(torch.cat(lengths).max()),
        spread=spread,
        tail=spread / float(distances.quantile(MIDDLE)),
    )


def find_public_place(
    public: PublicFeatures, names: Collection[str], *, most: int = MOST
) -> tuple[Tensor, Tensor, float]:
    """Directions, and where some groups of ordinary images lie in them.

    Args:
        public: all images.
        names: of these groups.
        most: directions at most.

    Returns:
        The map (D, k); the mean (k,) of the groups' means; and the distance from it that :data:`QUANTILE` of their
        images stay within, while these had no part in map and mean, a fourth of them at a time.

    Raises:
        ExportError: as of :func:`find_directions`.
    """
    matrix = find_directions(public, most=most).matrix
    foreign = [group.double() for group in public.foreign.values()]
    found = []
    for fold in range(_FOLDS):
        parts = {name: _parted(group.double(), fold) for name, group in public.ordinary.items()}
        without = _discriminants([others for others, _ in parts.values()], foreign, most)
        place = torch.stack([parts[name][0].mean(dim=0) for name in names]).mean(dim=0)
        found += [((parts[name][1] - place) @ without).norm(dim=1) for name in names]
    place = torch.stack([public.ordinary[name].double().mean(dim=0) for name in names]).mean(dim=0)
    return matrix, place @ matrix, float(torch.cat(found).quantile(QUANTILE))


def _parted(group: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    inside = torch.arange(len(group)) % _FOLDS != fold
    return group[inside], group[~inside]


def _discriminants(ordinary: list[Tensor], foreign: list[Tensor], most: int) -> Tensor:
    """(D, k) with the pooled within-group covariance of the ordinary groups as the identity."""
    from sklearn.covariance import ledoit_wolf

    within = torch.cat([group - group.mean(dim=0) for group in ordinary])
    covariance, _ = ledoit_wolf(within.numpy(), assume_centered=True)
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
    if int(failed):
        raise ExportError("the network sees public images alike, so that no distance can be told")
    whitening = torch.linalg.inv(factor).T
    means = torch.stack([group.mean(dim=0) for group in (*ordinary, *foreign)])
    _, strengths, axes = torch.linalg.svd((means - means.mean(dim=0)) @ whitening, full_matrices=False)
    kept = min(most, int((strengths > 1e-6 * strengths[0].clamp(min=1e-12)).sum()))
    if not kept:
        raise ExportError("the network sees all kinds of public images alike, so that there is no direction to look in")
    return whitening @ axes[:kept].T
