"""Made-up beating hearts, and DICOM studies of them as a scanner writes them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

ACROSS = np.array([0.71, 0.70, -0.05])
SPACING = (4.0, 4.0, 10.0)
ES_FRAME = 4


def axes() -> np.ndarray:
    """(2, 3) directions of rows and columns of a short axis, as a patient lies: the normal points to the base."""
    across = ACROSS / np.linalg.norm(ACROSS)
    down = np.array([-0.31, 0.27, -0.91])
    down -= (down @ across) * across
    return np.stack([across, down / np.linalg.norm(down)])


def beating_heart(*, frames: int = 10, slices: int = 6, contraction: float = 0.42, seed: int = 0) -> np.ndarray:
    """(44, 40, slices, frames) int16, base first: blood in a ring of muscle that is narrowest in frame 4.

    Nothing in it is symmetric: a mark lies in one corner, and every slice is smaller than the one before.
    """
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(44) - 20.0, np.arange(40) - 22.0, indexing="ij")
    distance = 4.0 * np.hypot(x, y)
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * np.clip(np.arange(frames) / (2 * ES_FRAME), 0, 1))
    cine = np.full((44, 40, slices, frames), 150.0)
    for place in range(slices):
        size = 34.0 - 2.5 * place
        for frame in range(frames):
            image = cine[:, :, place, frame]
            image[distance < size + 8] = 60
            image[distance < size * (1 - contraction * beat[frame])] = 400
    cine[2:6, 3:12] = 330
    cine += generator.normal(0, 6, cine.shape)
    return cine.round().astype(np.int16)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def image_dataset(
    pixels: np.ndarray,
    *,
    position: Iterable[float],
    series: str,
    study: str,
    number: int,
    trigger_time: float | None,
    plane: np.ndarray | None = None,
    spacing: tuple[float, float] = SPACING[:2],
    **changes: Any,
) -> Dataset:
    """One MR image; ``pixels`` is (columns, rows). Attributes given by keyword win, and None removes one."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240102", "101112.131415", "A1"
    dataset.Modality, dataset.Manufacturer, dataset.ReferringPhysicianName = "MR", "Maker", "House^Gregory"
    dataset.PatientName, dataset.PatientID = "Doeringer^Janette", "PID-Q4711-ZZQ"
    dataset.PatientBirthDate, dataset.PatientSex = "19500102", "F"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "GR", "SS", "CG"
    dataset.MRAcquisitionType, dataset.EchoTime, dataset.EchoTrainLength = "2D", "1.6", "1"
    dataset.RepetitionTime, dataset.SliceThickness, dataset.PatientPosition = "3.2", "8", "HFS"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.StudyID = study, series, "S1"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = f"{study[:60]}.9", ""
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.SeriesDescription = 5, number, "cine sax"
    dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]
    dataset.ImageOrientationPatient = [f"{value:.7g}" for value in (axes() if plane is None else plane).ravel()]
    dataset.PixelSpacing = [spacing[1], spacing[0]]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = pixels.shape
    bits = 8 * pixels.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels.T).tobytes()
    if trigger_time is not None:
        dataset.TriggerTime = f"{trigger_time:g}"
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_study(
    folder: Path,
    cine: np.ndarray,
    *,
    change: Callable[[Dataset, int, int], Any] = lambda dataset, place, frame: None,
    **options: Any,
) -> Path:
    """Write a cine (X, Y, Z, T), base first, as one series with file names that say nothing.

    ``change`` may alter each image, given its slice and frame; an image for which it returns False is left out.
    """
    study, series = generate_uid(), generate_uid()
    plane = options.pop("plane", axes())
    normal = np.cross(*plane)
    order = np.random.default_rng(1).permutation(cine.shape[2] * cine.shape[3])
    for index, name in enumerate(order):
        place, frame = divmod(index, cine.shape[3])
        settings = {
            "series": series,
            "study": study,
            "number": index + 1,
            "trigger_time": 10.0 + 50.0 * frame,
            "position": np.array([-30.0, -120.0, 60.0]) - 10.0 * place * normal,
            "plane": plane,
            **options,
        }
        dataset = image_dataset(cine[:, :, place, frame], **settings)
        if change(dataset, place, frame) is not False:
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            save(dataset, folder / f"IM{name:04d}")
    return folder


def classic_images(cine: np.ndarray, order: Sequence[int] | None = None, **changes: Any) -> list[Dataset]:
    """The images of a cine, in the order given of their slices and frames."""
    normal = np.cross(*axes())
    images = []
    for index in range(cine.shape[2] * cine.shape[3]) if order is None else order:
        place, frame = divmod(int(index), cine.shape[3])
        images.append(
            image_dataset(
                cine[:, :, place, frame],
                position=np.array([-30.0, -120.0, 60.0]) - 10.0 * place * normal,
                series="1.2.3.4", study="1.2.3", number=index + 1, trigger_time=10.0 + 50.0 * frame, **changes,
            )
        )  # fmt: skip
    return images


def shuffled(cine: np.ndarray, seed: int = 5) -> list[int]:
    """Numbers of all images of a cine, in disorder."""
    return np.random.default_rng(seed).permutation(cine.shape[2] * cine.shape[3]).tolist()


def enhanced_dataset(
    classic: Sequence[Dataset],
    *,
    in_time: bool = True,
    change: Callable[[Dataset, int], Any] = lambda group, number: None,
) -> Dataset:
    """One enhanced MR object of the same images, a frame each, in their order.

    ``in_time`` gives each frame its trigger time and its rescaling; ``change`` may alter its functional groups.
    """
    first = classic[0]
    dataset = copy.deepcopy(first)
    for keyword in (
        "TriggerTime", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
        "RescaleIntercept",
    ):  # fmt: skip
        dataset.pop(tag_for_keyword(keyword), None)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"]
    dataset.NumberOfFrames = len(classic)
    dataset.PixelData = b"".join(image.PixelData for image in classic)
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence={"PixelSpacing": first.PixelSpacing},
            PlaneOrientationSequence={"ImageOrientationPatient": first.ImageOrientationPatient},
            MRImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"]},
        )
    ]
    frames = []
    for number, image in enumerate(classic, 1):
        groups = {"PlanePositionSequence": {"ImagePositionPatient": image.ImagePositionPatient}}
        if in_time:
            time = float(image.TriggerTime)
            groups["CardiacSynchronizationSequence"] = {"NominalCardiacTriggerDelayTime": time}
            slope, intercept = image.get("RescaleSlope", 1), image.get("RescaleIntercept", 0)
            groups["PixelValueTransformationSequence"] = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        frames.append(group(**groups))
        change(frames[-1], number)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def group(**sequences: Mapping[str, Any]) -> Dataset:
    """Functional groups of one item each."""
    made = Dataset()
    for keyword, content in sequences.items():
        item = Dataset()
        for name, value in content.items():
            setattr(item, name, value)
        setattr(made, keyword, [item])
    return made


def affine_of(cine: np.ndarray) -> np.ndarray:
    """What :func:`write_study` writes, as a NIfTI affine: voxel (column, row, slice from the base) to world."""
    plane = axes()
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = 4.0 * plane[0], 4.0 * plane[1]
    affine[:3, 2], affine[:3, 3] = -10.0 * np.cross(*plane), (-30.0, -120.0, 60.0)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
