"""Masks are read on the grid of their images, whatever the order of axes, or refused by name."""

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import DataError
from monai_fedlora.transforms.cine import LoadCined, cine_augmentation, cine_preprocessing
from monai_fedlora.transforms.file_masks import CineFiles, in_order_of_file
from monai_fedlora.transforms.mask_grid import restore_labels
from monai_fedlora.transforms.orientation import reference_affine, reordered_array

SIZE, SPACING = (40, 40, 8), (3.0, 3.0, 10.0)


@pytest.fixture(scope="module")
def masked(heart, nifti, tmp_path_factory):
    """Write a beating heart and masks that are the image's own bright disc, in any order of axes."""
    frames = heart(shape=(60, 52, 7), centre_mm=(50.0, 60.0))
    affine = reference_affine((2.0, 2.0, 10.0)).numpy()

    def write(axes=(0, 1, 2), backwards=(False,) * 3, change=lambda mask: mask, mask_affine=lambda affine: affine):
        folder = tmp_path_factory.mktemp("masked")
        item = {"subject": "p1", "label": -1, "mask_values": [3, 0, 1]}
        for name, voxels in zip(("ed", "es"), frames, strict=True):
            labels = np.where(voxels > 150, 3, 0).astype(np.float32)
            labels[:25][labels[:25] == 3] = 1
            stored, moved = reordered_array(voxels, affine, list(axes), list(backwards))
            mask, _ = reordered_array(change(labels), affine, list(axes), list(backwards))
            item[name] = str(nifti(folder / f"{name}.nii.gz", stored, affine=moved))
            item[f"{name}_mask"] = str(nifti(folder / f"{name}_gt.nii.gz", mask, affine=mask_affine(moved)))
        return item

    return write


@settings(max_examples=8, deadline=None)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_mask_and_image_stay_aligned_in_every_order_of_axes(masked, axes, backwards):
    item = masked(axes, backwards)

    loaded = LoadCined()(item)

    assert torch.equal(loaded["mask"] > 0, loaded["image"].as_tensor() > 150)
    assert loaded["labelled"].tolist() == [True, True, False, True]
    assert set(loaded["mask"].unique().tolist()) == {0, 1, 3}


def test_what_the_network_would_find_returns_to_the_order_of_the_file(masked):
    item = masked((2, 0, 1), (True, False, True))
    prepared = item
    for step in cine_preprocessing(image_size=SIZE, spacing=SPACING):
        prepared = step(prepared)
    assert prepared["image"].shape == prepared["mask"].shape == (2, *SIZE)
    pair = [nibabel.load(item[name]) for name in ("ed", "es")]
    image = torch.from_numpy(np.stack([one.get_fdata(dtype=np.float32) for one in pair]))
    found = torch.nn.functional.one_hot(prepared["mask"].long(), 4).permute(0, 4, 1, 2, 3)

    back = restore_labels(found, image, torch.from_numpy(pair[0].affine), SPACING)

    truth = torch.from_numpy(np.stack([nibabel.load(item[f"{n}_mask"]).get_fdata() for n in ("ed", "es")]))
    ours, theirs = back == 1, truth == 3
    assert back.shape == truth.shape
    assert 2 * int((ours & theirs).sum()) / int(ours.sum() + theirs.sum()) > 0.94


def test_on_the_networks_own_grid_the_way_back_changes_nothing(masked):
    item = masked()
    loaded = LoadCined()(item)
    prepared = item
    for step in cine_preprocessing(image_size=SIZE, spacing=(2.0, 2.0, 10.0)):
        prepared = step(prepared)
    found = torch.nn.functional.one_hot(prepared["mask"].long(), 4).permute(0, 4, 1, 2, 3)

    image = loaded["image"]
    back = restore_labels(found, image.as_tensor(), image.affine, (2.0, 2.0, 10.0))

    assert torch.equal(back, loaded["mask"])


def test_restoring_is_scriptable_and_the_same(masked):
    loaded = LoadCined()(masked())
    scores = torch.rand(2, 4, *SIZE).softmax(dim=1)
    given = (scores, loaded["image"].as_tensor(), loaded["image"].affine, SPACING)

    assert torch.equal(torch.jit.script(restore_labels)(*given), restore_labels(*given))


def test_augmentation_moves_both_and_leaves_labels_whole(masked):
    prepared = masked()
    for step in cine_preprocessing(image_size=SIZE, spacing=SPACING):
        prepared = step(prepared)
    steps = cine_augmentation(image_size=SIZE, spacing=SPACING, probability=1.0)
    for number, step in enumerate(steps):
        if hasattr(step, "set_random_state"):
            step.set_random_state(seed=number)
    image = prepared["image"].clone()
    moved = {**prepared, "image": (prepared["mask"] > 0).float()}
    for step in steps[2:]:
        moved = step(moved)

    assert moved["mask"].dtype == torch.uint8 and set(moved["mask"].unique().tolist()) <= {0, 1, 3}
    assert ((moved["image"] > 0.5) == (moved["mask"] > 0)).float().mean() > 0.99
    assert not torch.equal(moved["mask"], prepared["mask"]) and torch.equal(prepared["image"], image)


def _set(value):
    def change(mask):
        mask = mask.copy()
        mask[0, 0, 3] = value
        return mask

    return change


def _gap(mask):
    mask = mask.copy()
    mask[..., 3] = 0
    return mask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"change": _set(2)}, "ed_gt.nii.gz holds the value 2"),
        ({"change": _set(0.5)}, "ed_gt.nii.gz holds the value 0.5.*interpolated"),
        ({"change": np.zeros_like}, "ed_gt.nii.gz is empty"),
        ({"change": _gap}, "ed_gt.nii.gz has nothing in slice 3"),
        ({"change": lambda mask: mask[:-1]}, "ed_gt.nii.gz has 59 x 52 x 7 voxels"),
        ({"mask_affine": lambda affine: affine @ np.diag([-1, 1, 1, 1])}, "ed_gt.nii.gz lies up to"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(masked, changes, message):
    with pytest.raises(DataError, match=message):
        LoadCined()(masked(**changes))


def test_a_missing_phase_is_named(masked):
    item = masked()
    del item["es_mask"]
    with pytest.raises(DataError, match=r"es.nii.gz \(ES\) has no mask"):
        LoadCined()(item)


@settings(max_examples=8, deadline=None)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_masks_of_all_slices_return_to_the_order_of_their_files(masked, axes, backwards):
    item = masked(axes, backwards)
    files = CineFiles.of(item)
    for drawn, frame, phase in zip(files.drawn(item), (files.ed, files.es), ("ed", "es"), strict=True):
        back, affine = in_order_of_file(drawn, frame)
        stored = nibabel.load(item[f"{phase}_mask"])
        assert np.array_equal(np.array([0, 3, 0, 1])[back], stored.get_fdata())
        assert np.allclose(affine, stored.affine)


def test_slices_that_one_frame_lacks_are_empty_there_and_its_others_stay_in_place(heart, nifti, tmp_path):
    frames = heart(shape=(40, 40, 7), centre_mm=(40.0, 40.0))
    affine = reference_affine((2.0, 2.0, 10.0)).numpy()
    later = affine.copy()
    later[:3, 3] += 2 * affine[:3, 2]
    parts = {"ed": (frames[0], affine), "es": (frames[1][..., 2:], later)}
    item = {"subject": "p1", "mask_values": [1]}
    for name, (voxels, place) in parts.items():
        item[name] = str(nifti(tmp_path / f"{name}.nii.gz", voxels, affine=place))
        label = (voxels > 150).astype(np.float32)
        item[f"{name}_mask"] = str(nifti(tmp_path / f"{name}_gt.nii.gz", label, affine=place))
    files = CineFiles.of(item)
    both = files.together(files.drawn(item))
    assert both.shape == (2, 40, 40, 7)
    assert np.array_equal(both[0], (frames[0] > 150)) and not both[1, ..., :2].any()
    assert np.array_equal(both[1, ..., 2:], frames[1][..., 2:] > 150)
    told = files.given(files.drawn(item), structures=("LV",), seen=(7, 10.0))
    assert told.function is None and "only the 5 that they share" in told.no_volume_because[0]
    seen = torch.zeros(2, 2, 40, 40, 5)
    seen[:, 1] = 1.0
    ed, es = files.restored(seen, spacing=(2.0, 2.0, 10.0))
    assert ed.shape == (40, 40, 7) and not ed[..., :2].any() and ed[..., 2:].all()
    assert es.all()
