"""Whether a stack of short-axis slices covers the left ventricle from base to apex, judged by its mask.

A volume of a ventricle that is cut off is no volume. These rules give a reason in place of it (all ours; the figures
are those of the reference masks of 80 published patients with complete stacks, as they are and with slices removed):

- Apex: the blood pool in the last slice at end-diastole is larger than 0.45 of that in its largest slice. This is so in
  none of the complete stacks, in a third of those that lack 10 mm of the apex, in nine of ten that lack 20 mm.
- Base: stacks usually begin with the first slice of the ventricle, so that a large blood pool there is no sign. A
  reason is given if, besides, it is larger than 0.5 of its largest slice at end-diastole and at end-systole, although
  the base descends in between, and blood pool and muscle together are shorter than 0.9 of their largest diameter. This
  is so in 5 % of the complete stacks, and in 26, 60 and 90 % of those that lack 10, 20 and 30 mm of the base: a mask
  alone cannot tell a missing first slice.
- Gaps: a slice without left ventricle lies between two with it, as where every other slice was outlined.
- Cut: a network that looks at the middle slices of a long stack ends the ventricle where it looks no further. A reason
  is given if the first or last slice of that part holds left ventricle, and the stack goes on beyond it.
- Beat: a ventricle that is no smaller at end-systole ejects nothing.

Scriptable, in plain torch, so that the exported module judges by the same rules.
"""

import math

from torch import Tensor


def no_volume_reasons(
    mask: Tensor, sizes: list[float], values: list[int], oriented: bool, slices: int, step: float
) -> list[str]:
    """Why no volume can be given, as sentences without a full stop; empty if nothing speaks against one.

    Args:
        mask: (2, X, Y, Z) end-diastole and end-systole, whole numbers, slices from base to apex.
        sizes: (x, y, z) of a voxel in mm, z the slice distance.
        values: of LV, MYO and RV in the mask; 0 for one that it does not outline. Without the muscle the length is that
            of the blood pool alone.
        oriented: whether the slices run from base to apex for certain; otherwise the end with more blood in both
            ventricles is taken for the base.
        slices: that the network of the mask looks at; 0 for a mask of the whole stack.
        step: distance of those in mm.
    """
    lv, muscle, rv = values[0], values[1], values[2]
    if lv == 0:
        return ["whether a stack is complete is judged by LV, which the model does not outline"]
    x, y, z = sizes[0], sizes[1], sizes[2]
    pools = (mask == lv).sum(dim=[1, 2]).double() * (x * y)  # (2, Z) mm2
    walls = pools
    if muscle > 0:
        walls = pools + (mask == muscle).sum(dim=[1, 2]).double() * (x * y)
    if bool((pools.amax(dim=1) == 0).any()):
        return ["the mask has no left ventricle at end-diastole or at end-systole"]
    count = mask.shape[3]
    first, last = 0, count - 1
    if slices > 0:
        first, last = seen_slices(count, z, slices, step)
    cut = bool((first > 0 and bool(walls[:, first].any())) or (last < count - 1 and bool(walls[:, last].any())))
    both = (mask[0] == lv).sum(dim=[0, 1])
    if rv > 0:
        both = both + (mask[0] == rv).sum(dim=[0, 1])
    if not oriented and _more_at_the_end(both):
        pools, walls = pools.flip([1]), walls.flip([1])
    shares = pools / pools.amax(dim=1, keepdim=True)
    diameter = 2.0 * math.sqrt(float(walls[0].max()) / math.pi)
    length = float((walls[0] > 0).sum()) * z
    reasons: list[str] = []
    if float(shares[:, 0].min()) > 0.5 and length / diameter < 0.9:
        reasons.append(
            "the base may be missing: the first slice cuts the left ventricle at end-diastole and at end-systole, and "
            f"it is only {_whole(length)} mm long at a width of {_whole(diameter)} mm"
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
        seen = last - first + 1
        reasons.append(
            f"the network looks at {seen} of {count} slices, and the left ventricle reaches the end of that part"
        )
    if bool(pools[1].sum() >= pools[0].sum()):
        reasons.append(
            "the left ventricle is no smaller at end-systole than at end-diastole; the frames may be exchanged, or the "
            "outlines wrong"
        )
    return reasons


def seen_slices(count: int, z: float, slices: int, step: float) -> tuple[int, int]:
    """The first and the last slice of a stack that a network looks at, see `transforms.localise.normalise_cine`.

    Args:
        count: slices of the stack.
        z: their distance in mm.
        slices: that the network looks at.
        step: distance of those in mm.
    """
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


def _whole(value: float) -> int:
    """The nearest whole number; of TorchScript's ``round`` it would be a float."""
    return int(round(value))  # noqa: RUF046


def _more_at_the_end(areas: Tensor) -> bool:
    """Whether the second half of the slices that are not empty holds more than the first half."""
    there = areas[areas > 0]
    half = len(there) // 2
    return bool(there[:half].sum() < there[len(there) - half :].sum())


def _gaps(areas: Tensor) -> int:
    """Number of empty slices between the first and the last that is not."""
    places = areas.nonzero().flatten()
    return int(places[-1] - places[0]) + 1 - len(places) if len(places) > 0 else 0
