"""Bring every short-axis stack to one canonical order of axes, whatever order its file has.

Plain torch without MONAI, and scriptable: training, prediction and the exported module run this code.

A stack can be stored in 48 orders and flips of its axes. The slices become the last axis, and of the 16 orders that
remain (8 in the image plane, 2 of the slices) the one nearest to a fixed reference view is taken: that with the largest
sum of the cosines between its three axes and those of the reference. With one sum for all axes the choice changes only
far from typical views, at in-plane rotations of about 45 degrees; rules for each axis (MONAI's ``Orientationd``) change
it in the middle of the range of real double-oblique views.

In the reference view one looks from the apex to the base, with the anterior wall up and the right ventricle on the
left, as short axes are displayed (Cerqueira et al., "Standardized myocardial segmentation", Circulation 2002). The long
axis of the heart points 45 degrees to the left and 29 degrees down (ours). The first axis points to the patient's left
and back, the second downwards, the third from base to apex; the axes are left-handed.

An affine along the world's axes is not that of a short-axis view: converters write it where the orientation was lost
("placeholder"). Rarely, a stack lies in the middle between two orders. In both cases no order is right, and all 16 are
treated alike, see :func:`all_orders`.
"""

import math

import numpy as np
import torch
from torch import Tensor

N_ORDERS = 16


def reference_view() -> Tensor:
    """(3, 3) float64: the directions of the reference's axes in the patient, one per column."""
    half, down = math.sqrt(0.5), 0.48  # 45 degrees between left and front; the sine of 29 degrees
    level = math.sqrt(1.0 - down * down)
    left = [-half, half * down, -half * level]
    front = [-half, -half * down, half * level]
    return torch.tensor(left + front + [0.0, -level, -down], dtype=torch.float64).reshape(3, 3)


def reference_affine(spacing: tuple[float, float, float]) -> Tensor:
    """(4, 4) affine of a stack exactly in the reference view.

    Args:
        spacing: voxel size in mm.
    """
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = reference_view() * torch.tensor(list(spacing), dtype=torch.float64)
    return affine


def slice_axis(affine: Tensor, shape: list[int]) -> int:
    """The axis along which the slices of a stack are arranged.

    It is the axis whose voxel size is 1.25 times that of any other; if there is none, the axis with the fewest voxels
    (ours).

    Args:
        affine: (4, 4) voxel to world in mm.
        shape: voxels along the three axes.

    Raises:
        ValueError: neither determines it.
    """
    spacing = affine[:3, :3].double().square().sum(dim=0).sqrt()
    farthest = int(spacing.argmax())
    if int((spacing * 1.25 > spacing.max()).sum()) == 1:
        return farthest
    counts = torch.tensor(shape)
    if int((counts == counts.min()).sum()) > 1:
        raise ValueError("cannot tell the axis of the slices: neither voxel sizes nor numbers of voxels do")
    return int(counts.argmin())


def reading_order(affine: Tensor, shape: list[int]) -> tuple[list[int], list[bool], bool]:
    """How to reorder a stack.

    Args:
        affine: (4, 4) voxel to world in mm (right, anterior, superior).
        shape: voxels along the three axes.

    Returns:
        For each new axis the old one and whether it is reversed, and whether the affine holds an orientation. If it
        does not, only the slices are moved to the last axis.

    Raises:
        ValueError: the affine is not finite, its axes are not independent, or the axis of the slices cannot be
            determined.
    """
    matrix = affine[:3, :3].double()
    spacing = matrix.square().sum(dim=0).sqrt()
    if not bool(torch.isfinite(affine).all()) or float(spacing.min()) <= 0.0:
        raise ValueError("the affine has no finite positive voxel sizes")
    directions = matrix / spacing
    x, y, z = directions[0], directions[1], directions[2]
    volume = (x * (y.roll(1) * z.roll(2) - y.roll(2) * z.roll(1))).sum().abs()
    if float(volume) < 1e-3:
        raise ValueError("the axes of the affine are not independent")
    last = slice_axis(affine, shape)
    first, second = (1 if last == 0 else 0), (1 if last == 2 else 2)
    # the cosine between each old axis and each axis of the reference
    cosines = torch.matmul(directions.transpose(0, 1), reference_view().to(affine.device))
    straight = float(cosines[first, 0].abs() + cosines[second, 1].abs())
    crossed = float(cosines[second, 0].abs() + cosines[first, 1].abs())
    axes = [first, second, last] if straight >= crossed else [second, first, last]
    chosen = [float(cosines[axes[0], 0]), float(cosines[axes[1], 1]), float(cosines[last, 2])]
    # difference to the sum of the next best order: two axes exchanged, or one reversed
    margin = min(abs(straight - crossed), 2.0 * abs(chosen[0]), 2.0 * abs(chosen[1]), 2.0 * abs(chosen[2]))
    along_world = float(directions.abs().amax(dim=0).min()) > 0.99985  # cos 1 degree
    if along_world or margin < 0.05:
        return [first, second, last], [False, False, False], False
    return axes, [chosen[0] < 0.0, chosen[1] < 0.0, chosen[2] < 0.0], True


def is_known(affine: Tensor, shape: list[int]) -> bool:
    """Whether an affine holds the patient's orientation; False for a placeholder. See :func:`reading_order`."""
    return reading_order(affine, shape)[2]


def view_angle(affine: Tensor, shape: list[int]) -> float | None:
    """Angle between a stack and the reference view, in degrees.

    It is that of the nearest order, which :func:`orient` chooses. The sum of the three cosines is taken as the trace of
    a rotation matrix, 1 + 2 cos(angle), also for a mirrored stack, which no rotation brings to the reference.

    Args:
        affine: (4, 4) voxel to world in mm (right, anterior, superior).
        shape: voxels along the three axes.

    Returns:
        Degrees in [0, 180]; None for a placeholder, whose axes are those of the world.

    Raises:
        ValueError: the axis of the slices cannot be determined.
    """
    directions = affine[:3, :3].double() / affine[:3, :3].double().norm(dim=0)
    if float(directions.abs().amax(dim=0).min()) > 0.99985:  # cos 1 degree, as in reading_order
        return None
    last = slice_axis(affine, shape)
    first, second = (axis for axis in range(3) if axis != last)
    cosines = (directions.T @ reference_view().to(affine.device)).abs()
    in_plane = max(cosines[first, 0] + cosines[second, 1], cosines[second, 0] + cosines[first, 1])
    cosine = (float(in_plane + cosines[last, 2]) - 1.0) / 2.0
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))


def reordered_affine(affine: Tensor, shape: list[int], axes: list[int], backwards: list[bool]) -> Tensor:
    """The affine (4, 4) of a reordered stack.

    Args:
        affine: of the stack as it was.
        shape: its voxels.
        axes: for each new axis the old one.
        backwards: whether each new axis is reversed.
    """
    origin = affine[:, 3]
    columns: list[Tensor] = []
    for new in range(3):
        column = affine[:, axes[new]]
        if backwards[new]:
            origin = origin + column * float(shape[axes[new]] - 1)
            column = -column
        columns.append(column)
    columns.append(origin)
    return torch.stack(columns, dim=1)


def orient(image: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Bring a stack to the canonical order; one that is in it stays as it is.

    Args:
        image: (C, X, Y, Z) in any of the 48 orders.
        affine: (4, 4) voxel to world in mm (right, anterior, superior).

    Returns:
        The same voxels, slices last, and their affine.

    Raises:
        ValueError: as of :func:`reading_order`.
    """
    shape = [image.shape[1], image.shape[2], image.shape[3]]
    axes, backwards, _ = reading_order(affine, shape)
    moved = image.permute([0, axes[0] + 1, axes[1] + 1, axes[2] + 1])
    flipped: list[int] = []
    for new in range(3):
        if backwards[new]:
            flipped.append(new + 1)
    return moved.flip(flipped), reordered_affine(affine, shape, axes, backwards)


def orient_array(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`orient` for an array (X, Y, Z) or (X, Y, Z, T); a view of it is returned, with a new affine.

    Raises:
        ValueError: as of :func:`reading_order`.
    """
    affine = np.asarray(affine, dtype=np.float64)
    axes, backwards, _ = reading_order(torch.from_numpy(affine), list(voxels.shape[:3]))
    return reordered_array(voxels, affine, axes, backwards)


def reordered_array(
    voxels: np.ndarray, affine: np.ndarray, axes: list[int], backwards: list[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """A reordered view of an array (X, Y, Z, ...) and its affine; arguments as for :func:`reordered_affine`."""
    moved = np.transpose(voxels, (*axes, *range(3, voxels.ndim)))
    moved = moved[tuple(slice(None, None, -1) if back else slice(None) for back in backwards)]
    return moved, reordered_affine(torch.from_numpy(affine), list(voxels.shape[:3]), axes, backwards).numpy()


def orient_like(voxels: np.ndarray, affine: np.ndarray, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring a stack to the order of another affine of the same stack, if the slices are last in that order.

    Args:
        voxels: (C, X, Y, Z).
        affine: (4, 4) of ``voxels``.
        like: (4, 4), the affine of the same stack in another order.

    Returns:
        The reordered voxels and their affine; both unchanged if ``like`` has the slices on another axis.
    """
    ours, theirs = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, like))
    cosines = theirs.T @ ours
    axes = [int(np.abs(row).argmax()) for row in cosines]
    if axes not in ([0, 1, 2], [1, 0, 2]):
        return voxels, affine
    backwards = [bool(cosines[new, axis] < 0) for new, axis in enumerate(axes)]
    moved, found = reordered_array(np.moveaxis(voxels, 0, -1), affine, axes, backwards)
    return np.ascontiguousarray(np.moveaxis(moved, -1, 0)), found


def all_orders(image: Tensor) -> Tensor:
    """The network's input in all 16 orders, for a stack whose orientation is lost.

    Order 0 is the image itself. Slices of zeros that fill up a short stack stay at the end.

    Args:
        image: (C, X, X, Z) of :func:`monai_fedlora.transforms.localise.normalise_cine`.

    Returns:
        (16, C, X, X, Z).
    """
    orders: list[Tensor] = []
    for number in range(16):
        orders.append(one_order(image, number))
    return torch.stack(orders)


def one_order(image: Tensor, number: int) -> Tensor:
    """One of :func:`all_orders`, (C, X, X, Z).

    Raises:
        ValueError: there is no such order, or the image plane is not square.
    """
    if not 0 <= number < 16 or image.shape[1] != image.shape[2]:
        raise ValueError("expected an order from 0 to 15 and a square image plane")
    moved = image.transpose(1, 2) if number % 2 == 1 else image
    flipped: list[int] = []
    if number // 2 % 2 == 1:
        flipped.append(1)
    if number // 4 % 2 == 1:
        flipped.append(2)
    moved = moved.flip(flipped)
    if number // 8 == 1:
        filled = moved.abs().amax(dim=[0, 1, 2]).nonzero()
        last = int(filled.max()) + 1 if filled.numel() > 0 else 0
        moved = torch.cat([moved[..., :last].flip([3]), moved[..., last:]], dim=3)
    return moved


def filled_slices(image: Tensor) -> int:
    """Number of slices of an image (C, X, X, Z) up to the last one that is not zero; padding lies behind them."""
    found = image.abs().amax(dim=[0, 1, 2]).nonzero()
    return int(found.max()) + 1 if found.numel() > 0 else 0


def turned(beside: Tensor, number: int, filled: int) -> Tensor:
    """What lies on an image's grid, moved as :func:`one_order` moves the image.

    Args:
        beside: (..., X, X, Z).
        number: of the order, from 0 to 15.
        filled: slices of the image that hold anything, see :func:`filled_slices`.
    """
    moved = beside.transpose(-3, -2) if number % 2 == 1 else beside
    return _mirrored(moved, number, filled)


def turned_back(moved: Tensor, number: int, filled: int) -> Tensor:
    """What :func:`turned` has moved, as it lay before."""
    before = _mirrored(moved, number, filled)
    return before.transpose(-3, -2) if number % 2 == 1 else before


def _mirrored(moved: Tensor, number: int, filled: int) -> Tensor:
    """The reflections of an order, which undo themselves."""
    flipped: list[int] = []
    if number // 2 % 2 == 1:
        flipped.append(-3)
    if number // 4 % 2 == 1:
        flipped.append(-2)
    moved = moved.flip(flipped)
    if number // 8 == 1:
        moved = torch.cat([moved[..., :filled].flip([-1]), moved[..., filled:]], dim=-1)
    return moved
