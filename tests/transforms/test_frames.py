"""Frames are read and paired, and every unusable file is refused by name."""

import gzip
import re

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import DataError, OutOfMemory
from monai_fedlora.transforms.frames import join_frames, read_cine, read_frames
from monai_fedlora.transforms.orientation import reference_affine, reordered_affine


def joined(item):
    return join_frames(*read_frames(item))


def refused(item, *words):
    with pytest.raises(DataError) as error:
        joined(item)
    for word in words:
        assert re.search(word, str(error.value)), str(error.value)


def test_two_files_become_one_array(pair, heart):
    voxels, affine = joined(pair)
    np.testing.assert_array_equal(voxels, heart())
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(affine, np.diag([2, 2, 10, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("frames", [(0, 4), (4, 0), (2, 3)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cine_frames_are_counted_from_zero(tmp_path, heart, nifti, frames, suffix):
    cine = np.moveaxis(np.concatenate([heart(seed=seed) for seed in range(3)]), 0, -1)
    path = nifti(tmp_path / f"cine{suffix}", cine)
    voxels, _ = joined({"cine": path, "ed_frame": frames[0], "es_frame": frames[1]})
    np.testing.assert_array_equal(voxels, np.moveaxis(cine[..., list(frames)], -1, 0))


@pytest.mark.parametrize("axes", [(2, 0, 1), (0, 2, 1), (1, 2, 0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_slices_on_any_axis_are_read(tmp_path, heart, nifti, axes, backwards):
    affine = oblique_affine()
    for key, frame in zip(("ed", "es"), heart(), strict=True):
        moved = reordered_affine(torch.from_numpy(affine), list(frame.shape), list(axes), [backwards] * 3).numpy()
        stored = frame.transpose(axes)[(slice(None, None, -1 if backwards else None),) * 3]
        nifti(tmp_path / f"{key}.nii", stored, affine=moved)
    voxels, found = joined({"ed": tmp_path / "ed.nii", "es": tmp_path / "es.nii"})
    np.testing.assert_array_equal(voxels, heart())
    np.testing.assert_allclose(found, affine, atol=1e-4)


def oblique_affine():
    affine = reference_affine((2.0, 2.0, 10.0)).numpy()
    affine[:3, 3] = 31, -87, 12
    return affine


def test_an_axis_of_slices_that_nothing_tells_is_refused(tmp_path, heart, nifti):
    for key, frame in zip(("ed", "es"), heart(shape=(20, 20, 20)), strict=True):
        nifti(tmp_path / f"{key}.nii", frame, (2, 2, 2))
    refused({"ed": tmp_path / "ed.nii", "es": tmp_path / "es.nii"}, "ed.nii", "axis of the slices")


def test_scaled_integers_are_read_as_grey_levels(tmp_path, heart):
    items = {}
    for key, frame in zip(("ed", "es"), heart(), strict=True):
        image = nibabel.Nifti1Image(frame, np.diag([2.0, 2, 10, 1]))
        image.header.set_data_dtype(np.int16)
        nibabel.save(image, tmp_path / f"{key}.nii.gz")
        items[key] = tmp_path / f"{key}.nii.gz"
    np.testing.assert_allclose(joined(items)[0], heart(), atol=0.01)


@pytest.mark.parametrize(("longer", "kept"), [("es", slice(0, 7)), ("es", slice(2, 9)), ("ed", slice(1, 6))])
def test_shorter_stack_is_placed_where_the_chest_matches(tmp_path, heart, nifti, longer, kept):
    """The affines are those of stacks rebuilt from single slices: all at the origin."""
    chest = np.random.default_rng(1).normal(100, 30, (24, 22, 9)).repeat(4, axis=0).repeat(4, axis=1)
    ed, es = (heart() + chest).astype(np.float32)
    ed, es = (ed, es[..., kept]) if longer == "es" else (ed[..., kept], es)
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es)}
    voxels, affine = joined(item)
    np.testing.assert_array_equal(voxels, (heart() + chest).astype(np.float32)[..., kept])
    assert affine[2, 3] == (10 * kept.start if longer == "es" else 0)


def test_affines_decide_which_slices_belong_together(tmp_path, heart, nifti):
    ed, es = heart()
    higher = np.diag([2.0, 2, 10, 1])
    higher[:3, 3] = 0, 0, 20
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es, affine=higher)}
    voxels, affine = joined(item)
    np.testing.assert_array_equal(voxels[0], ed[..., 2:])
    np.testing.assert_array_equal(voxels[1], es[..., :7])
    np.testing.assert_allclose(affine, higher)


def test_too_little_memory_is_no_fault_of_the_file(pair, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate 8.00 GiB for an array")

    monkeypatch.setattr("nibabel.volumeutils.apply_read_scaling", full)
    with pytest.raises(OutOfMemory, match=r"while reading .*\.nii.*8.00 GiB"):
        joined(pair)


def test_missing_key_is_explained(pair):
    del pair["es"]
    refused(pair, "patient001", "both frames are needed")


def test_missing_file_is_named(pair, tmp_path):
    (tmp_path / "es.nii.gz").unlink()
    refused(pair, "es.nii.gz", "does not exist")


@pytest.mark.parametrize("keep", [0, 20, 300, 5000])
def test_truncated_file_is_named(pair, tmp_path, keep):
    path = tmp_path / "es.nii.gz"
    path.write_bytes(path.read_bytes()[:keep])
    refused(pair, "es.nii.gz")


@pytest.mark.parametrize("keep", [100, 352, 4000])
def test_truncated_uncompressed_file_is_named(tmp_path, heart, nifti, keep):
    ed, es = heart()
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es)}
    item["es"].write_bytes(item["es"].read_bytes()[:keep])
    refused(item, "es.nii")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: np.stack([v, v], axis=-1), "4 axes"),
        (lambda v: (v > 150).astype(np.uint8), "only 2 different levels.*segmentation"),
        (lambda v: ((v // 4).astype(np.uint8)[::8, ::8]).repeat(8, 0).repeat(8, 1), "areas of equal.*segm"),
        (lambda v: v[..., 0], "2 axes"),
        (lambda v: v[..., :2], "at least 3 slices"),
        (lambda v: v[:, :6], "fewer slices than"),
        (lambda v: np.where(v == v.max(), np.nan, v), "not finite"),
        (lambda v: np.where(v == v.max(), np.inf, v), "not finite"),
        (lambda v: np.full_like(v, 3), "blank"),
        (lambda v: v[:-2], "different matrices"),
        (lambda v: v.astype(np.complex64), "complex64"),
    ],
)
def test_unusable_voxels_are_refused(pair, tmp_path, heart, nifti, change, words):
    nifti(tmp_path / "es.nii.gz", change(heart()[1]))
    refused(pair, "es.nii.gz", words)


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ((2, 10, 2), "fewer slices than"),
        ((0.002, 0.002, 0.01), "units"),
        ((20, 20, 100), "units"),
        ((2, 2, 60), "slice distance"),
    ],
)
def test_implausible_spacing_is_refused(pair, tmp_path, heart, nifti, spacing, words):
    for key, frame in zip(("ed", "es"), heart(), strict=True):
        nifti(tmp_path / f"{key}.nii.gz", frame, spacing)
    refused(pair, "ed.nii.gz", words)


@pytest.mark.parametrize("pixdim", [0.0, -2.0, np.nan, np.inf])
def test_broken_pixdim_is_refused(tmp_path, heart, pixdim):
    """Without an affine the spacing rests on pixdim alone."""
    ed, es = heart()
    items = {}
    for key, frame in (("ed", ed), ("es", es)):
        image = nibabel.Nifti1Image(frame, np.diag([2.0, 2, 10, 1]))
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        nibabel.save(image, tmp_path / f"{key}.nii")
        items[key] = tmp_path / f"{key}.nii"
    raw = bytearray(items["es"].read_bytes())
    raw[88:92] = np.float32(pixdim).tobytes()
    items["es"].write_bytes(raw)
    refused(items, "es.nii")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [0.0, np.nan, np.inf])
def test_broken_affine_is_refused(tmp_path, heart, nifti, step):
    ed, es = heart()
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es)}
    raw = bytearray(item["es"].read_bytes())
    raw[280:284] = np.float32(step).tobytes()
    item["es"].write_bytes(raw)
    refused(item, "es.nii")


def test_header_that_contradicts_its_affine_is_refused(pair, tmp_path, heart):
    image = nibabel.Nifti1Image(heart()[1], np.diag([1.0, 1, 1, 1]))
    image.header.set_zooms((2.0, 2.0, 10.0))
    image.set_sform(np.eye(4), 1)
    nibabel.save(image, tmp_path / "es.nii.gz")
    refused(pair, "es.nii.gz", "contradicts")


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([2.2, 2.2, 10, 1]),
        np.diag([-2.0, 2, 10, 1]),
        np.array([[2.0, 0, 0, 9], [0, 2, 0, 0], [0, 0, 10, 0], [0, 0, 0, 1]]),
        np.array([[2.0, 0, 1, 0], [0, 2, 0, 0], [0, 0, 9.95, 0], [0, 0, 0, 1]]),
    ],
)
def test_frames_on_different_grids_are_refused(pair, tmp_path, heart, nifti, affine):
    nifti(tmp_path / "es.nii.gz", heart()[1], affine=affine)
    refused(pair, "ed.nii.gz", "es.nii.gz", "one grid")


def test_frames_that_hardly_overlap_are_refused(pair, tmp_path, heart, nifti):
    away = np.diag([2.0, 2, 10, 1])
    away[2, 3] = 70
    nifti(tmp_path / "es.nii.gz", heart()[1], affine=away)
    refused(pair, "es.nii.gz", "share 2 slices")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((0, 6), "es_frame is 6"),
        ((-1, 3), "ed_frame is -1"),
        ((2, 2), "both frame 2"),
        ((0, 1.5), "'es_frame'"),
        ((0, None), "'es_frame'"),
    ],
)
def test_wrong_frame_numbers_are_refused(tmp_path, heart, nifti, frames, words):
    cine = np.moveaxis(np.concatenate([heart(shape=(20, 20, 4))] * 3), 0, -1)
    path = nifti(tmp_path / "cine.nii.gz", cine)
    refused({"cine": path, "ed_frame": frames[0], "es_frame": frames[1]}, "cine.nii.gz", words)


def test_a_frame_may_have_axes_of_one_voxel_behind_the_third(pair, tmp_path, heart, nifti):
    expected = joined(pair)[0]
    nifti(tmp_path / "es.nii.gz", heart()[1][..., None])
    nifti(tmp_path / "ed.nii.gz", heart()[0][..., None, None])
    np.testing.assert_array_equal(joined(pair)[0], expected)


def unit_sform(path, code=1):
    """Give a file an sform of 1 mm and a qform that is turned by half about z, as ACDC is published."""
    image = nibabel.load(path)
    step_x, step_y, step_z = (float(step) for step in image.header.get_zooms()[:3])
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    changed.header.set_zooms(image.header.get_zooms())
    changed.header.set_qform(np.diag([-step_x, -step_y, step_z, 1.0]), code)
    changed.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
    nibabel.save(nibabel.Nifti1Image(changed.dataobj, None, changed.header), path)


def test_an_sform_that_contradicts_pixdim_gives_way_to_the_qform_and_is_noted(pair):
    expected = joined(pair)[0]
    for key in ("ed", "es"):
        unit_sform(pair[key])
    frames = read_frames(pair)
    voxels, affine = join_frames(*frames)
    np.testing.assert_array_equal(voxels, expected)
    np.testing.assert_allclose(affine, np.diag([-2, -2, 10, 1]))
    assert all("sform of the file contradicts pixdim" in note for frame in frames for note in frame.notes)


def test_a_qform_without_a_code_does_not_replace_an_sform(pair):
    unit_sform(pair["es"], code=0)
    refused(pair, "es.nii.gz", "contradicts itself")


def moving_cine(frames=6) -> np.ndarray:
    """(X, Y, Z, T): anatomy that differs from slice to slice, and little of it moves."""
    rng = np.random.default_rng(0)
    cine = rng.normal(200, 60, (10, 10, 5)).repeat(6, 0).repeat(6, 1)[..., None].repeat(frames, -1)
    for frame in range(frames):
        cine[24 : 36 - frame, 24 : 36 - frame, :, frame] += 300
    return (cine + rng.normal(0, 4, cine.shape)).astype(np.float32)


@pytest.mark.parametrize("read", [read_cine, lambda path: read_frames({"cine": path, "ed_frame": 0, "es_frame": 2})])
def test_time_on_the_third_axis_is_refused(tmp_path, nifti, read):
    cine = moving_cine()
    read(nifti(tmp_path / "good.nii", cine))
    with pytest.raises(DataError, match=r"time\.nii.*\(x, y, t, z\)"):
        read(nifti(tmp_path / "time.nii", np.moveaxis(cine, 3, 2)))


def test_a_whole_cine_is_read_with_the_bits_of_its_frames(tmp_path, nifti):
    image = nibabel.Nifti1Image(moving_cine(), np.diag([2.0, 2, 10, 1]))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "cine.nii.gz")
    voxels, affine, notes = read_cine(tmp_path / "cine.nii.gz")
    np.testing.assert_array_equal(voxels, np.asanyarray(nibabel.load(tmp_path / "cine.nii.gz").dataobj, "f4"))
    ed, es = read_frames({"cine": tmp_path / "cine.nii.gz", "ed_frame": 4, "es_frame": 1})
    np.testing.assert_array_equal(ed.voxels, voxels[..., 4])
    np.testing.assert_array_equal(es.voxels, voxels[..., 1])
    np.testing.assert_array_equal(affine, np.diag([2.0, 2, 10, 1]))
    assert notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: (v > 250).astype(np.uint8), "segmentation"),
        (lambda v: v[:, :, :1], "at least 3 slices"),
        (lambda v: np.where(v == v.max(), np.nan, v), "not finite"),
        (lambda v: v[..., 0], "3 axes.*two files"),
        (lambda v: v[..., :1], "3 axes.*two files"),
        (lambda v: v[..., None, :], "5 axes"),
    ],
)
def test_an_unusable_cine_is_refused(tmp_path, nifti, change, words):
    with pytest.raises(DataError, match=rf"cine\.nii.*{words}"):
        read_cine(nifti(tmp_path / "cine.nii", change(moving_cine())))


@pytest.mark.parametrize(("slope", "inter"), [(0, 0), (np.nan, np.nan), (0, 7), (np.inf, 0)])
def test_a_slope_of_nothing_means_unscaled(tmp_path, heart, nifti, slope, inter):
    ed, es = (frame.astype(np.int16) for frame in heart())
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es)}
    raw = bytearray(item["es"].read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    item["es"].write_bytes(raw)
    np.testing.assert_array_equal(joined(item)[0][1], es)


@pytest.mark.parametrize(("slope", "inter"), [(1, np.nan), (1, np.inf)])
def test_an_intercept_that_is_no_number_is_refused(tmp_path, heart, nifti, slope, inter):
    ed, es = (frame.astype(np.int16) for frame in heart())
    item = {"ed": nifti(tmp_path / "ed.nii", ed), "es": nifti(tmp_path / "es.nii", es)}
    raw = bytearray(item["es"].read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    item["es"].write_bytes(raw)
    refused(item, "es.nii")


@pytest.fixture(scope="module")
def small(tmp_path_factory, heart, nifti):
    folder = tmp_path_factory.mktemp("small")
    ed, es = heart(shape=(12, 12, 4))
    cine = np.stack([ed, es, ed], axis=-1)
    return (
        {"ed": nifti(folder / "ed.nii", ed), "es": nifti(folder / "es.nii", es)},
        {"cine": nifti(folder / "cine.nii", cine), "ed_frame": 0, "es_frame": 1},
    )


def usable_or_refused(item):
    try:
        voxels, affine = joined(item)
    except DataError:
        return
    assert np.isfinite(voxels).all()
    assert np.isfinite(affine).all()
    assert voxels.shape[0] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers_are_read_or_refused(small, tmp_path_factory, data):
    """Bytes of the header, or of the compressed stream, are overwritten."""
    item = dict(data.draw(st.sampled_from(small)))
    key = "es" if "es" in item else "cine"
    raw = bytearray(item[key].read_bytes())
    compressed = data.draw(st.booleans())
    raw = bytearray(gzip.compress(bytes(raw))) if compressed else raw
    end = len(raw) - 1 if compressed else 351
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / ("damaged.nii.gz" if compressed else "damaged.nii")
    path.write_bytes(raw)
    item[key] = path
    usable_or_refused(item)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=600), suffix=st.sampled_from([".nii", ".nii.gz"]), compressed=st.booleans())
def test_arbitrary_bytes_are_refused(small, tmp_path_factory, content, suffix, compressed):
    path = tmp_path_factory.getbasetemp() / f"arbitrary{suffix}"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError, match="arbitrary"):
        read_frames({**small[0], "es": path})
