"""A damaged NIfTI header is refused by name, without loading voxels."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import DataError
from monai_fedlora.formats.nifti import Header, open_volume, read_header


def image(shape=(6, 5, 4), spacing=(1.5, 1.25, 10.0), dtype=np.int16) -> nibabel.Nifti1Image:
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0]))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("shape", "axes"), [((6, 5, 4), 3), ((6, 5, 4, 7), 4)])
def test_a_good_file_gives_its_shape_and_spacing(tmp_path, name, shape, axes):
    image(shape).to_filename(tmp_path / name)
    assert read_header(tmp_path / name, axes=axes) == Header(shape, (1.5, 1.25, 10.0))


def test_an_oblique_affine_gives_the_distance_of_voxels(tmp_path):
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 1.25, 10.0])
    nibabel.Nifti1Image(image().get_fdata(dtype=np.float32), affine).to_filename(tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii", axes=3).spacing == pytest.approx((1.5, 1.25, 10.0))


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [((6, 5, 4, 7), 3, "4 axes"), ((6, 5, 4), 4, "3 axes"), ((6, 5), 3, "2 axes")],
)
def test_the_wrong_number_of_axes_is_refused(tmp_path, shape, axes, message):
    image(shape).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=message):
        read_header(tmp_path / "a.nii.gz", axes=axes)


def with_pixdim(step: float) -> nibabel.Nifti1Image:
    broken = nibabel.Nifti1Image(image().get_fdata(dtype=np.float32), None)
    broken.header.set_sform(None, code=0)
    broken.header.set_qform(None, code=0)
    broken.header["pixdim"][1] = step
    return broken


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
def test_spacing_that_a_reader_would_repair_is_refused(tmp_path, step):
    broken = with_pixdim(step)
    (tmp_path / "a.nii").write_bytes(broken.header.binaryblock + bytes(4) + bytes(6 * 5 * 4 * 4))
    with pytest.raises(DataError, match=r"a\.nii has voxel spacing"):
        read_header(tmp_path / "a.nii", axes=3)


def test_dependent_axes_are_refused(tmp_path):
    flat = image()
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 2] = affine[:3, 1]
    flat.header.set_sform(affine, code=1)
    broken = nibabel.Nifti1Image(flat.dataobj, None, flat.header)
    broken.header.set_sform(affine, code=1)
    broken.header.set_zooms((1.0, 1.0, 1.0))
    (tmp_path / "a.nii").write_bytes(broken.header.binaryblock + bytes(4) + bytes(6 * 5 * 4 * 2))
    with pytest.raises(DataError, match="not independent"):
        read_header(tmp_path / "a.nii", axes=3)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("missing", [1, 40, 150])
def test_a_truncated_file_is_found_without_loading_voxels(tmp_path, name, missing):
    image().to_filename(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[:-missing])
    with pytest.raises(DataError, match=r"a\.nii.*truncated"):
        read_header(tmp_path / name, axes=3)


def test_a_file_of_several_gzip_members_is_whole(tmp_path):
    image().to_filename(tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
    assert read_header(tmp_path / "a.nii.gz", axes=3).shape == (6, 5, 4)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype):
    nibabel.Nifti1Image(np.zeros((4, 4, 3), dtype), np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(DataError, match="not grey values"):
        read_header(tmp_path / "a.nii", axes=3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nii.gz", b"not gzip", "not a readable"),
        ("a.nii.gz", b"", "not a readable"),
        ("a.nii", b"short", "not a readable"),
        ("a.dcm", b"", "not NIfTI"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_header(tmp_path / name, axes=3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.nii\.gz does not exist"):
        read_header(tmp_path / "gone.nii.gz", axes=3)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 351),
    damage=st.binary(min_size=1, max_size=8),
    name=st.sampled_from(["nii", "nii.gz"]),
)
def test_any_damaged_header_gives_a_data_error_or_positive_geometry(tmp_path: Path, position, damage, name):
    image().to_filename(tmp_path / "whole.nii")
    raw = bytearray((tmp_path / "whole.nii").read_bytes())
    raw[position : position + len(damage)] = damage
    path = tmp_path / f"damaged.{name}"
    path.write_bytes(gzip.compress(raw, 1) if name.endswith("gz") else raw)
    try:
        header = read_header(path, axes=3)
    except DataError:
        return
    assert min(header.shape) >= 1
    assert min(header.spacing) > 0
    assert np.isfinite(header.spacing).all()


def with_forms(*, sform=None, qform=None, zooms=(1.5, 1.25, 10.0), codes=(1, 1)) -> nibabel.Nifti1Image:
    """An image whose header has these forms as they are; nibabel would make them agree."""
    made = nibabel.Nifti1Image(image().get_fdata(dtype=np.float32), None)
    if qform is not None:
        made.header.set_qform(qform, codes[1])
    made.header.set_sform(sform, 0 if sform is None else codes[0])
    made.header["pixdim"][1:4] = zooms
    return nibabel.Nifti1Image(made.dataobj, None, made.header)


def write(path: Path, made: nibabel.Nifti1Image) -> Path:
    path.write_bytes(made.header.binaryblock + bytes(4) + np.asarray(made.dataobj, "<f4").tobytes(order="F"))
    return path


RIGHT = np.diag([-1.5, -1.25, 10.0, 1.0])
UNIT = np.diag([-1.0, -1.0, 1.0, 1.0])


def test_the_form_that_agrees_with_pixdim_is_taken(tmp_path):
    taken = open_volume(write(tmp_path / "a.nii", with_forms(sform=UNIT, qform=RIGHT)), axes=3)
    np.testing.assert_allclose(taken.affine, RIGHT)
    assert taken.header.spacing == pytest.approx((1.5, 1.25, 10.0))
    assert [note for note in taken.header.notes if "sform" in note] == list(taken.header.notes) != []
    usual = open_volume(write(tmp_path / "b.nii", with_forms(sform=RIGHT, qform=RIGHT)), axes=3)
    np.testing.assert_allclose(usual.affine, RIGHT)
    assert usual.header.notes == ()


def test_forms_that_lay_the_patient_differently_are_noted(tmp_path):
    """A reader that prefers the qform turns such a heart round, as `RIGHT` and its negative do."""
    turned = open_volume(write(tmp_path / "a.nii", with_forms(sform=RIGHT, qform=-RIGHT)), axes=3)
    np.testing.assert_allclose(turned.affine, RIGHT)
    assert len(turned.header.notes) == 1
    without = open_volume(write(tmp_path / "b.nii", with_forms(sform=RIGHT, qform=-RIGHT, codes=(1, 0))), axes=3)
    assert without.header.notes == ()


def test_a_file_is_refused_where_neither_form_agrees_with_pixdim(tmp_path):
    with pytest.raises(DataError, match=r"a\.nii contradicts itself: its voxels are 1\.5 x 1\.25 x 10 mm by pixdim"):
        read_header(write(tmp_path / "a.nii", with_forms(sform=UNIT, qform=RIGHT, codes=(1, 0))), axes=3)


def turn(a: float, b: float, c: float) -> np.ndarray:
    quaternion = np.array([1.0, a, b, c])
    return nibabel.quaternions.quat2mat(quaternion / np.linalg.norm(quaternion))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_is_what_monai_reads_or_is_refused(tmp_path, data):
    """Forms of any direction, of the lengths of pixdim, of others or but for rounding, with codes or without."""
    from monai.data import NibabelReader

    angle, lengths = st.floats(-1, 1), np.array([1.5, 1.25, 10.0])
    forms = []
    for _ in range(2):
        scale = data.draw(st.sampled_from([1.0, 1.0, 1.0 + 2e-3, 1.3, 1 / 1.5]))
        form = np.eye(4)
        form[:3, :3] = turn(*(data.draw(angle) for _ in range(3))) * lengths * scale
        form[:3, 3] = [data.draw(st.floats(-200, 200)) for _ in range(3)]
        forms.append(form)
    codes = data.draw(st.sampled_from([(1, 0), (1, 1), (0, 1), (2, 1)]))
    path = write(tmp_path / "a.nii", with_forms(sform=forms[0] if codes[0] else None, qform=forms[1], codes=codes))
    try:
        volume = open_volume(path, axes=3)
    except DataError:
        assert codes[1] == 0
        assert not np.allclose(np.linalg.norm(forms[0][:3, :3], axis=0), lengths, rtol=0.01)
        return
    np.testing.assert_allclose(volume.header.spacing, lengths, rtol=0.01)
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), volume.header.spacing)
    near = codes[0] and np.allclose(np.linalg.norm(forms[0][:3, :3], axis=0), lengths, rtol=0.01)
    if near and not np.allclose(np.linalg.norm(forms[0][:3, :3], axis=0), lengths):
        np.testing.assert_allclose(volume.affine, forms[0], rtol=0.01, atol=0.11)
        return
    np.testing.assert_array_equal(volume.affine, NibabelReader().read(path).affine)


@pytest.mark.parametrize(
    ("unit", "scale", "note"),
    [("micron", 1000.0, "were converted to mm"), ("meter", 0.001, "were converted to mm"), ("mm", 1.0, None),
     ("unknown", 1.0, None), ("micron", 1.0, "which cannot be"), ("meter", 1.0, "which cannot be")],
)  # fmt: skip
def test_positions_in_other_units_become_mm(tmp_path, unit, scale, note):
    made = image(spacing=tuple(scale * step for step in (1.5, 1.25, 10.0)))
    made.header.set_xyzt_units(unit, "sec")
    made.to_filename(tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii", axes=3)
    assert volume.header.spacing == pytest.approx((1.5, 1.25, 10.0))
    np.testing.assert_allclose(volume.affine, np.diag([1.5, 1.25, 10.0, 1.0]), rtol=1e-6)
    assert [note in line for line in volume.header.notes] == ([True] if note else [])


@pytest.mark.parametrize(("shape", "axes"), [((6, 5, 4, 1), 3), ((6, 5, 4, 1, 1), 3), ((6, 5, 4, 7, 1), 4)])
def test_axes_of_one_voxel_at_the_end_are_dropped(tmp_path, shape, axes):
    image(shape).to_filename(tmp_path / "a.nii.gz")
    volume = open_volume(tmp_path / "a.nii.gz", axes=axes)
    assert volume.header.shape == volume.proxy.shape == shape[:axes]


def test_capital_endings_are_read(tmp_path):
    image().to_filename(tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    volume = open_volume(tmp_path / "A.NII.GZ", axes=3)
    np.testing.assert_array_equal(np.asanyarray(volume.proxy), image().get_fdata())
    (tmp_path / "A.NII.GZ").write_bytes((tmp_path / "A.NII.GZ").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"A\.NII\.GZ is (not a readable|truncated)"):
        read_header(tmp_path / "A.NII.GZ", axes=3)
