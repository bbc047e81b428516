"""Numbers of a heart from its masks, for the exported module: scriptable, in plain torch.

They are those of :mod:`monai_fedlora.measures.heart_function` for structures that were found, and the rules by which no
volume is given, and their words, are those of :mod:`monai_fedlora.measures.stack_coverage`.
"""

import math

import torch
from torch import Tensor

from monai_fedlora.transforms.orientation import is_known, orient

COLUMNS = ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g", "rv_edv_ml", "rv_esv_ml", "rv_ef_percent")
"""Names of the numbers of :func:`heart_numbers`, with their units."""


def heart_numbers(mask: Tensor, affine: Tensor, values: list[int], complete: bool) -> Tensor:
    """Volumes, ejection fractions and mass.

    Args:
        mask: (2, X, Y, Z) end-diastole and end-systole: 0 background, 1 to K the structures.
        affine: (4, 4) voxel to world in mm.
        values: of LV, MYO and RV in the mask; 0 for one that it has not.
        complete: whether the stack covers the heart; otherwise there are no numbers.

    Returns:
        (7,) float64 of :data:`COLUMNS`, NaN for a structure that the mask has not, for the ejection of a left ventricle
        that is empty at ED, and for muscle without a voxel at ED or a right ventricle without one in a frame or larger
        at ES.
    """
    steps = affine[:3, :3].double().square().sum(dim=0).sqrt().to(mask.device)
    millilitres = steps[0] * steps[1] * steps[2] / 1000.0
    nothing = torch.full_like(millilitres, math.nan)
    found: list[Tensor] = []
    for number in range(3):
        volumes = (mask == values[number]).flatten(1).sum(dim=1).double() * millilitres
        impossible = float(volumes[1]) == 0.0 or float(volumes[1]) > float(volumes[0])
        lacking = (number == 1 and float(volumes[0]) == 0.0) or (number == 2 and impossible)
        if values[number] == 0 or not complete or lacking:
            volumes = torch.stack([nothing, nothing])
        if number == 1:
            found.append(1.05 * volumes[0])
        else:
            ejected = torch.where(volumes[0] > 0, 100.0 * (volumes[0] - volumes[1]) / volumes[0], nothing)
            found.append(volumes[0])
            found.append(volumes[1])
            found.append(ejected)
    return torch.stack(found)


def no_volume(mask: Tensor, affine: Tensor, values: list[int], slices: int, step: float) -> str:
    """Why no volume can be given, without a full stop; empty if nothing speaks against one.

    Args:
        mask, affine, values: as for :func:`heart_numbers`; the axes in any order.
        slices: that the network looks at.
        step: distance of the network's slices in mm.
    """
    if values[0] == 0:
        return "whether a stack is complete is judged by LV, which the model does not outline"
    known = is_known(affine, [mask.shape[1], mask.shape[2], mask.shape[3]])
    ordered, moved = orient(mask, affine)
    sizes = moved[:3, :3].double().square().sum(dim=0).sqrt()
    x, y, z = float(sizes[0]), float(sizes[1]), float(sizes[2])
    pools = (ordered == values[0]).sum(dim=[1, 2]).double() * (x * y)
    walls = pools
    if values[1] > 0:
        walls = pools + (ordered == values[1]).sum(dim=[1, 2]).double() * (x * y)
    if bool((pools.amax(dim=1) == 0).any()):
        return "the mask has no left ventricle at end-diastole or at end-systole"
    both = (ordered[0] == values[0]).sum(dim=[0, 1])
    if values[2] > 0:
        both = both + (ordered[0] == values[2]).sum(dim=[0, 1])
    first, last = _seen(ordered.shape[3], z, slices, step)
    cut = bool(
        (first > 0 and bool(walls[:, first].any())) or (last < ordered.shape[3] - 1 and bool(walls[:, last].any()))
    )
    if not known and _more_at_the_end(both):
        pools, walls = pools.flip([1]), walls.flip([1])
    shares = pools / pools.amax(dim=1, keepdim=True)
    diameter = 2.0 * math.sqrt(float(walls[0].max()) / math.pi)
    long = float((walls[0] > 0).sum()) * z
    reasons: list[str] = []
    if float(shares[:, 0].min()) > 0.5 and long / diameter < 0.9:
        reasons.append(
            "the base may be missing: the first slice cuts the left ventricle at end-diastole and at end-systole, and "
            f"it is only {_whole(long)} mm long at a width of {_whole(diameter)} mm"
        )
    if float(shares[0, -1]) > 0.45:
        share = _whole(100.0 * float(shares[0, -1]))
        reasons.append(
            f"the apex is missing: in the last slice the left ventricle still has {share} % of its largest area"
        )
    gaps = max(_gaps(pools[0]), _gaps(pools[1]))
    if gaps > 0:
        reasons.append(f"{gaps} slices between others with a left ventricle have none in the mask")
    if cut:
        seen, there = last - first + 1, ordered.shape[3]
        reasons.append(
            f"the network looks at {seen} of {there} slices, and the left ventricle reaches the end of that part"
        )
    if bool(pools[1].sum() >= pools[0].sum()):
        reasons.append(
            "the left ventricle is no smaller at end-systole than at end-diastole; the frames may be exchanged, or the "
            "outlines wrong"
        )
    text = ""
    for number in range(len(reasons)):
        text = reasons[number] if number == 0 else f"{text}; {reasons[number]}"
    return text


def _whole(value: float) -> int:
    """The nearest whole number; of TorchScript's ``round`` it would be a float."""
    return int(round(value))  # noqa: RUF046


def _seen(count: int, z: float, slices: int, step: float) -> tuple[int, int]:
    """The first and the last of ``count`` slices that the network's crop covers, see `localise.normalise_cine`."""
    ratio = step / z
    if abs(ratio - 1.0) <= 1e-4:
        ratio = 1.0
    resampled = math.floor((count - 1) / ratio + 1.5 - 1e-4)
    if resampled <= slices:
        return 0, count - 1
    start = (resampled - slices) // 2
    first = math.ceil((start - 0.5) * ratio)
    last = math.floor((start + slices - 0.5) * ratio)
    return max(first, 0), min(last, count - 1)


def _more_at_the_end(areas: Tensor) -> bool:
    """Whether the second half of the slices that are not empty holds more than the first half."""
    there = areas[areas > 0]
    half = len(there) // 2
    return bool(there[:half].sum() < there[len(there) - half :].sum())


def _gaps(areas: Tensor) -> int:
    """Number of empty slices between the first and the last that is not."""
    places = areas.nonzero().flatten()
    return int(places[-1] - places[0]) + 1 - len(places) if len(places) > 0 else 0
