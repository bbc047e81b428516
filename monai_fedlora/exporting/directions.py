"""Choose the few directions of feature space in which unusual images are detected, from public images alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError

MOST = 8
"""Most directions (ours): what a mean of n patients reveals of one grows with the number of directions over n."""

QUANTILE, MIDDLE = 0.95, 0.75
"""Quantiles of the distance of images of one scanner (ours): the threshold is the first. A site's patients determine
the second, which is less noisy, and the ratio of both comes from public images."""

_FOLDS = 4
SOURCE = "linear discriminants (Rao, J. R. Stat. Soc. B 1948) with the within-group covariance of Ledoit and Wolf 2004"


@dataclass(frozen=True, kw_only=True)
class PublicFeatures:
    """Inputs of a finished network's classification heads for public images.

    Attributes:
        ordinary: by scanner or camera, (n, D) each.
        foreign: by kind of unusual content, (n, D) each.
    """

    ordinary: Mapping[str, Tensor]
    foreign: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """A linear map to coordinates in which images of one scanner have a covariance near the identity.

    Attributes:
        matrix: (D, k) float64.
        origin: (k,) mean of the ordinary images.
        radius: largest distance of an ordinary image from the origin.
        spread: :data:`QUANTILE` of the distances of ordinary images from the mean of their own scanner.
        tail: ratio of ``spread`` to the quantile :data:`MIDDLE` of the same distances.
    """

    matrix: Tensor
    origin: Tensor
    radius: float
    spread: float
    tail: float


def find_directions(public: PublicFeatures, *, most: int = MOST) -> Directions:
    """The directions that best separate scanners from each other and from unusual content.

    Radius, spread and tail are computed by four-fold cross-validation: of images that did not choose the directions.

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
    """Directions, and the position of some groups of ordinary images in them.

    Args:
        public: all images.
        names: of these groups.
        most: largest number of directions.

    Returns:
        The map (D, k); the mean (k,) of the groups' means; and, by four-fold cross-validation, the quantile
        :data:`QUANTILE` of the distances of their images from it.

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
    """Linear discriminants (D, k), scaled so that the pooled covariance within ordinary groups is the identity."""
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
