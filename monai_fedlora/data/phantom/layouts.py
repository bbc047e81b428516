"""Write phantom patients in the layouts of ACDC and M&Ms.

The same patient gives the same bytes: compressed files hold neither time nor file name. The writers fill a folder that
the caller moves to its place when it is complete.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from monai_fedlora.data.phantom.geometry import stored
from monai_fedlora.data.phantom.patient import PhantomPatient
from monai_fedlora.data.phantom.render import LV, MYO, RV
from monai_fedlora.data.phantom.vendors import Vendor
from monai_fedlora.data.phantom_mark import MARK
from monai_fedlora.data.records import FramePair
from monai_fedlora.files import csv_text, make_folder, write_bytes

ACDC_LABELS = {RV: 1, MYO: 2, LV: 3}
"""From this package's labels to ACDC's."""

MNMS_LABELS = {LV: 1, MYO: 2, RV: 3}
"""From this package's labels to those of M&Ms."""

MNMS_TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
MNMS_COLUMNS = (
    "", "External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Age", "Pathology", "Sex", "Height", "Weight",
)  # fmt: skip
_MNMS_PATHOLOGY = {"NOR": "NOR", "MINF": "IHD", "DCM": "DCM", "HCM": "HCM", "RV": "ARV"}
_MNMS_CENTRE = {"A": 1, "B": 2, "C": 4, "D": 5}


def write_acdc_patient(
    patient: PhantomPatient, folder: Path, *, cine: bool = False, oriented: bool = True
) -> FramePair:
    """Write ``Info.cfg``, the two frames and their masks into ``folder``, whose name is the patient's.

    Args:
        patient: the patient.
        folder: made if it does not exist.
        cine: write ``<name>_4d.nii.gz`` too.
        oriented: write affines with the patient's orientation; those of ACDC itself have none.

    Returns:
        The two image files.
    """
    make_folder(folder)
    name = folder.name
    ed, es = patient.ed_frame + 1, patient.es_frame + 1
    heart = patient.heart
    info = (
        f"ED: {ed}\nES: {es}\nGroup: {heart.group}\nHeight: {heart.height:.1f}\n"
        f"NbFrame: {len(patient.image)}\nWeight: {heart.weight:.1f}\n"
    )
    write_bytes(folder / "Info.cfg", info.encode())
    files = []
    for number in (ed, es):
        file = folder / f"{name}_frame{number:02d}.nii.gz"
        write_bytes(file, encode(patient.image[number - 1], patient, oriented=oriented))
        mask = relabel(patient.mask[number - 1], ACDC_LABELS)
        write_bytes(folder / f"{name}_frame{number:02d}_gt.nii.gz", encode(mask, patient, oriented=oriented))
        files.append(file)
    if cine:
        write_bytes(folder / f"{name}_4d.nii.gz", encode(patient.image, patient, oriented=oriented))
    return FramePair(*files)


def write_mnms_patient(
    patient: PhantomPatient, vendor: Vendor, folder: Path, *, oriented: bool = True
) -> tuple[object, ...]:
    """Write the 4D image and its mask (empty but at ED and ES) into ``folder``, whose name is the patient's code.

    Args:
        patient: the patient.
        vendor: the scanner.
        folder: made if it does not exist.
        oriented: write affines with the patient's orientation.

    Returns:
        The cells of the patient's line for :func:`write_mnms_table`, the code first.
    """
    make_folder(folder)
    code = folder.name
    write_bytes(folder / f"{code}_sa.nii.gz", encode(patient.image, patient, oriented=oriented))
    mask = np.zeros_like(patient.mask)
    for frame in (patient.ed_frame, patient.es_frame):
        mask[frame] = relabel(patient.mask[frame], MNMS_LABELS)
    write_bytes(folder / f"{code}_sa_gt.nii.gz", encode(mask, patient, oriented=oriented))
    heart = patient.heart
    return (
        code, vendor.name, vendor.code, _MNMS_CENTRE[vendor.code], patient.ed_frame, patient.es_frame, heart.age,
        _MNMS_PATHOLOGY[heart.group], heart.sex, f"{heart.height:.0f}", f"{heart.weight:.0f}",
    )  # fmt: skip


def write_mnms_table(rows: Iterable[Sequence[object]], root: Path) -> Path:
    """Write the csv of M&Ms into ``root``, sorted by code."""
    table = root / MNMS_TABLE
    by_code = sorted(rows, key=lambda cells: str(cells[0]))
    write_bytes(table, csv_text([MNMS_COLUMNS, *((index, *cells) for index, cells in enumerate(by_code))]).encode())
    return table


def relabel(mask: np.ndarray, labels: dict[int, int]) -> np.ndarray:
    """Return the mask with every label replaced as ``labels`` says; 0 stays."""
    table = np.zeros(256, np.uint8)
    table[list(labels)] = list(labels.values())
    return table[mask]


def encode(volume: np.ndarray, patient: PhantomPatient, *, oriented: bool = True) -> bytes:
    """Return the ``.nii.gz`` file of a (Z, Y, X) volume or a (T, Z, Y, X) cine of a patient.

    The header says that it is a phantom. Compression favours speed over size, because noise hardly compresses.

    Args:
        volume: the image, or a mask of it.
        patient: the patient whose it is.
        oriented: store the axes in the vendor's order, with an affine that holds the patient's orientation; otherwise
            in the order of the picture, with a diagonal affine.
    """
    import nibabel

    voxels, affine = stored(volume, patient.spacing, patient.directions if oriented else None, patient.vendor)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = 352
    header["descrip"] = MARK
    if volume.ndim == 4:
        header["pixdim"][4] = 0.9 / len(volume)
    raw = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    strategy = zlib.Z_DEFAULT_STRATEGY if volume.dtype == np.uint8 else zlib.Z_HUFFMAN_ONLY
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, strategy)
    return packer.compress(raw) + packer.flush()
