"""A stack comes to one order of axes from any other, and small tilts of a typical view do not change which."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from monai_fedlora.transforms.orientation import (
    N_ORDERS,
    all_orders,
    is_known,
    one_order,
    orient,
    orient_array,
    orient_like,
    reading_order,
    reference_affine,
    reference_view,
    reordered_affine,
    slice_axis,
    view_angle,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SHAPE = [7, 6, 4]
ALL_48 = list(itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)))

SUNNYBROOK = np.array([[-0.71, 0.31], [-0.70, -0.27], [-0.03, -0.91]])
"""In-plane axes of SCD0000301 of the Sunnybrook cardiac data (right, anterior, superior)."""


def stack() -> torch.Tensor:
    return torch.arange(2 * 7 * 6 * 4, dtype=torch.float32).reshape(2, *SHAPE)


def tilted(rotation: Rotation, spacing=(1.4, 1.4, 8.0)) -> torch.Tensor:
    affine = reference_affine(spacing)
    affine[:3, :3] = torch.from_numpy(rotation.as_matrix()) @ affine[:3, :3]
    affine[:3, 3] = torch.tensor([31.0, -87.0, 12.0])
    return affine


def stored(image, affine, axes, backwards):
    """The stack as another file has it."""
    moved = image.permute(0, *(axis + 1 for axis in axes)).flip([new + 1 for new in range(3) if backwards[new]])
    return moved, reordered_affine(affine, list(image.shape[1:]), list(axes), list(backwards))


def test_all_48_orders_come_back_to_one():
    affine = tilted(Rotation.from_rotvec([0.1, -0.15, 0.1]))
    for axes, backwards in ALL_48:
        image, matrix = orient(*stored(stack(), affine, axes, backwards))
        assert torch.equal(image, stack())
        torch.testing.assert_close(matrix, affine)


@settings(max_examples=60, deadline=None)
@given(
    view=st.tuples(*[st.floats(-25, 25)] * 3),
    tilt=st.tuples(*[st.floats(-8.6, 8.6)] * 3),
    order=st.sampled_from(ALL_48),
)
def test_tilts_of_15_degrees_around_typical_views_change_nothing(view, tilt, order):
    """Views of up to 25 degrees from the reference about each axis, and a further tilt of up to 15 degrees."""
    rotation = Rotation.from_rotvec(np.radians(tilt)) * _limited(view, 25)
    image, _ = orient(*stored(stack(), tilted(rotation), *order))
    assert torch.equal(image, stack())


def _limited(degrees, largest):
    vector = np.radians(degrees)
    length = np.linalg.norm(vector)
    return Rotation.from_rotvec(vector * min(1.0, np.radians(largest) / max(length, 1e-9)))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-15, 15])
def test_a_real_view_keeps_its_order_when_tilted(axis, degrees):
    """A published patient, whose images lie as the reference says: the picture's own axes, the base first."""
    real = np.column_stack([SUNNYBROOK, -np.cross(*SUNNYBROOK.T)])
    turn = Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.from_numpy(turn @ real * (1.3, 1.3, 8.0))
    assert reading_order(affine, SHAPE) == ([0, 1, 2], [False, False, False], True)


def test_reference_is_orthonormal_and_mirrors_the_world():
    view = reference_view()
    torch.testing.assert_close(view.T @ view, torch.eye(3, dtype=torch.float64), atol=1e-3, rtol=0)
    assert torch.det(view) < 0
    assert view[0, 2] < 0 < view[1, 2]  # from the base to the left, to the front
    assert view[2, 2] < 0  # and downwards


@pytest.mark.parametrize("signs", list(itertools.product([-1.0, 1.0], repeat=3)))
@pytest.mark.parametrize("degrees", [0.0, 0.8])
def test_axes_along_the_world_are_a_placeholder(signs, degrees):
    turn = Rotation.from_rotvec(np.radians([degrees, 0, 0])).as_matrix()
    for axes in itertools.permutations(range(3)):
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = torch.from_numpy(turn * (np.array(signs) * (1.4, 1.4, 8.0)))[:, list(axes)]
        shape = [SHAPE[axis] for axis in axes]
        assert not is_known(affine, shape)
        image, moved = orient(stack().permute(0, *(axis + 1 for axis in axes)), affine)
        assert image.shape[3] == 4
        assert float(moved[:3, 2].norm()) == pytest.approx(8.0)


def test_a_stack_between_two_orders_is_told_to_be_of_none():
    between = Rotation.from_rotvec(np.radians(45) * reference_view()[:, 2].numpy())
    assert not is_known(tilted(between), SHAPE)
    assert is_known(tilted(Rotation.from_rotvec(np.radians(42) * reference_view()[:, 2].numpy())), SHAPE)


@pytest.mark.parametrize("degrees", [0.0, 4.0, 20.0, 40.0])
@pytest.mark.parametrize("axis", range(3))
def test_angle_to_the_reference_is_that_of_the_tilt_in_every_order(axis, degrees):
    turn = Rotation.from_rotvec(np.radians(degrees) * reference_view()[:, axis].numpy())
    affine = tilted(turn)
    for axes, backwards in ALL_48:
        image, matrix = stored(stack(), affine, axes, backwards)
        assert view_angle(matrix, list(image.shape[1:])) == pytest.approx(degrees, abs=0.5)


def test_axes_of_the_world_have_no_angle_and_a_stack_between_two_orders_a_large_one():
    assert view_angle(torch.diag(torch.tensor([1.4, 1.4, 8.0, 1.0])), SHAPE) is None
    between = Rotation.from_rotvec(np.radians(45) * reference_view()[:, 2].numpy())
    assert view_angle(tilted(between), SHAPE) == pytest.approx(45, abs=0.5)


def test_orienting_again_changes_nothing():
    for affine in (tilted(Rotation.from_rotvec([0.2, 0.1, 0.0])), torch.diag(torch.tensor([1.4, 1.4, 8.0, 1.0]))):
        once = orient(stack(), affine)
        again = orient(*once)
        assert torch.equal(again[0], once[0])
        assert torch.equal(again[1], once[1])


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1.4, 1.4, 8.0), [10, 10, 90], 2),
        ((8.0, 1.4, 1.4), [3, 90, 90], 0),
        ((1.5, 2.0, 1.5), [4, 9, 9], 1),
        ((1.5, 1.7, 1.5), [9, 9, 4], 2),
        ((2.0, 2.0, 2.0), [9, 4, 9], 1),
    ],
)
def test_slices_lie_where_voxels_are_far_apart_or_few(spacing, shape, expected):
    assert slice_axis(torch.diag(torch.tensor([*spacing, 1.0])), shape) == expected


def test_no_axis_of_slices_is_guessed():
    with pytest.raises(ValueError, match="axis of the slices"):
        slice_axis(torch.eye(4), [5, 5, 9])


@pytest.mark.parametrize("wrong", ["nan", "zero", "flat"])
def test_impossible_affines_are_refused(wrong):
    affine = torch.eye(4, dtype=torch.float64)
    if wrong == "flat":
        affine[:3, 1] = affine[:3, 0]
    else:
        affine[0, 0] = float("nan") if wrong == "nan" else 0.0
    with pytest.raises(ValueError, match="affine"):
        reading_order(affine, SHAPE)


def test_arrays_with_time_are_reordered_alike():
    affine = tilted(Rotation.identity())
    image, matrix = stored(stack(), affine, (2, 0, 1), (True, False, True))
    voxels, found = orient_array(np.moveaxis(image.numpy(), 0, -1), matrix.numpy())
    np.testing.assert_array_equal(voxels, np.moveaxis(stack().numpy(), 0, -1))
    np.testing.assert_allclose(found, affine.numpy(), atol=1e-9)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2)])
def test_a_files_own_order_can_be_restored(axes):
    affine = tilted(Rotation.from_rotvec([0.05, 0.0, 0.1]))
    image, matrix = stored(stack(), affine, axes, (True, False, True))
    voxels, found = orient_like(stack().numpy(), affine.numpy(), matrix.numpy())
    np.testing.assert_array_equal(voxels, image.numpy())
    np.testing.assert_allclose(found, matrix.numpy(), atol=1e-9)


def test_the_16_orders_are_all_there_is_in_plane_and_along_the_slices():
    image = torch.zeros(1, 5, 5, 6)
    image[0, :, :, :4] = 1 + torch.arange(100.0).reshape(5, 5, 4)
    orders = all_orders(image)
    assert torch.equal(orders[0], image)
    assert orders.shape == (N_ORDERS, 1, 5, 5, 6)
    assert len({order.numpy().tobytes() for order in orders}) == N_ORDERS
    assert float(orders[..., 4:].abs().max()) == 0  # what fills a short stack up stays behind
    again = {order.numpy().tobytes() for order in all_orders(orders[13])}
    assert again == {order.numpy().tobytes() for order in orders}


def test_orders_need_a_square_image_and_a_number_that_there_is():
    with pytest.raises(ValueError, match="square"):
        one_order(torch.zeros(1, 5, 6, 2), 0)
    with pytest.raises(ValueError, match="0 to 15"):
        one_order(torch.zeros(1, 5, 5, 2), 16)


def test_blank_images_have_orders_too():
    assert float(all_orders(torch.zeros(2, 4, 4, 3)).abs().max()) == 0
