"""Grey levels: those of another toolkit, whatever the encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEGLSLossless, RLELossless

from monai_fedlora.clinic import dicom_pixels
from monai_fedlora.clinic.dicom_headers import ImageHeader, read_image_headers
from monai_fedlora.clinic.dicom_pixels import read_dataset, read_voxels
from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.errors import DataError
from tests.clinic.cine_studies import image_dataset, save


def stack_of(*headers: ImageHeader) -> Stack:
    return Stack(images=(headers,), affine=np.eye(4), times=None, notes=(), doubts=())


def write(path: Path, pixels: np.ndarray, **changes: Any) -> ImageHeader:
    settings = {"position": (0, 0, 0), "series": "1.2.3", "study": "1.2", "number": 1, "trigger_time": 0.0}
    save(image_dataset(pixels, **settings | changes), path)
    (header,) = read_image_headers([path], path.parent).headers
    return header


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_levels_are_those_of_another_toolkit(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (12, 10)).astype(dtype)
    headers = [
        write(tmp_path / name, pixels + number, RescaleSlope="1.5", RescaleIntercept="-7")
        for number, name in enumerate("ab")
    ]
    voxels = read_voxels(stack_of(*headers))
    assert voxels.shape == (12, 10, 1, 2)
    assert voxels.dtype == np.float32
    for frame, header in enumerate(headers):
        reference = sitk.GetArrayFromImage(sitk.ReadImage(str(header.path)))[0]
        np.testing.assert_allclose(voxels[..., 0, frame], reference.T, rtol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_images_give_the_same_levels(tmp_path: Path, syntax: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (12, 10)).astype(np.uint16)
    plain = write(tmp_path / "plain", pixels)
    dataset = read_dataset(plain)
    dataset.compress(syntax, generate_instance_uid=False)
    save(dataset, tmp_path / "packed")
    (packed,) = read_image_headers([tmp_path / "packed"], tmp_path).headers
    np.testing.assert_array_equal(read_voxels(stack_of(packed)), read_voxels(stack_of(plain)))
    copy = read_dataset(packed)
    assert not copy.file_meta.TransferSyntaxUID.is_compressed
    assert packed.uid == plain.uid == copy.SOPInstanceUID


def test_lossless_jpeg_of_an_archive_is_read(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    pixels = np.random.default_rng(0).integers(0, 3000, (12, 10)).astype(np.uint16)
    plain = write(tmp_path / "plain", pixels)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain.path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "packed"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    (packed,) = read_image_headers([tmp_path / "packed"], tmp_path).headers
    np.testing.assert_array_equal(read_voxels(stack_of(packed)), pixels[..., None, None])


@pytest.mark.parametrize(("dtype", "value"), [(np.uint16, 3000), (np.int16, -2000)])
def test_unused_bits_are_cleared(tmp_path: Path, dtype: type, value: int) -> None:
    """Bits above those stored hold an overlay; the sign of a stored negative number survives."""
    pixels = np.full((12, 10), value, dtype)
    hidden = ((pixels.view(np.uint16) & 0x0FFF) | 0x5000).view(dtype)
    header = write(tmp_path / "image", hidden, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_voxels(stack_of(header)), float(value))
    stored = np.frombuffer(read_dataset(header).PixelData, dtype)
    np.testing.assert_array_equal(stored, value)


@pytest.mark.parametrize("value", [None, ""])
def test_empty_attributes_are_absent_ones(tmp_path: Path, value: Any) -> None:
    pixels = np.arange(120, dtype=np.uint16).reshape(12, 10)
    dataset = image_dataset(pixels, position=(0, 0, 0), series="1.2.3", study="1.2", number=1, trigger_time=0.0)
    for keyword in (
        "RescaleSlope", "RescaleIntercept", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
        "PhotometricInterpretation", "NumberOfFrames",
    ):  # fmt: skip
        setattr(dataset, keyword, None if keyword[:3] in ("Bit", "Hig", "Pix", "Sam") else value)
    (header,) = read_image_headers([save(dataset, tmp_path / "image")], tmp_path).headers
    np.testing.assert_array_equal(read_voxels(stack_of(header))[..., 0, 0], pixels)


@pytest.mark.parametrize("value", ["0", "1e400"])
def test_a_scale_that_is_none_is_refused_by_name(tmp_path: Path, value: str) -> None:
    header = write(tmp_path / "image", np.ones((12, 10), np.uint16), RescaleSlope=value)
    with pytest.raises(DataError, match=r"image has unusable pixels .*RescaleSlope"):
        read_voxels(stack_of(header))


@pytest.mark.parametrize("bits", [7, 9, 10, 12, 13, 15])
@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_any_number_of_stored_bits_is_read(tmp_path: Path, bits: int, kind: Any) -> None:
    low = -(1 << bits - 1) if kind == np.int16 else 0
    pixels = np.random.default_rng(bits).integers(low, low + (1 << bits), (12, 10)).astype(kind)
    header = write(tmp_path / "image", pixels, BitsStored=bits, HighBit=bits - 1)
    np.testing.assert_array_equal(read_voxels(stack_of(header))[..., 0, 0], pixels)


@pytest.mark.parametrize(
    "changes", [{"PixelData": b"short"}, {"PixelData": None}, {"HighBit": 3}, {"BitsAllocated": 12}, {"BitsStored": 0}]
)
def test_undecodable_image_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    header = write(tmp_path / "image", np.ones((12, 10), np.uint16), **changes)
    with pytest.raises(DataError, match="image cannot be decoded"):
        read_voxels(stack_of(header))


def test_pixels_that_contradict_the_header_are_refused(tmp_path: Path) -> None:
    header = write(tmp_path / "image", np.ones((12, 10), np.uint16))
    write(tmp_path / "image", np.ones((10, 12), np.uint16))
    with pytest.raises(DataError, match="its header says"):
        read_voxels(stack_of(header))


def test_more_voxels_than_a_cine_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = write(tmp_path / "image", np.ones((12, 10), np.uint16))
    monkeypatch.setattr(dicom_pixels, "MAXIMUM_VOXELS", 119)
    with pytest.raises(DataError, match="12 x 10 x 1 x 1 voxels are more"):
        read_voxels(stack_of(header))
