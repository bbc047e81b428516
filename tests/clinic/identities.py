"""Identifiers planted wherever a DICOM image can hold one."""

from __future__ import annotations

from functools import cache

from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from monai_fedlora.clinic.deidentify import KEPT

DATES = ("20240102", "101112.131415", "19500102")
PLANTED = "ZZPLANTEDZZ"
UID = "1.2.3.4711.4711"
_TEXT = {"LO", "SH", "LT", "ST", "UT", "UC", "PN", "AE", "CS", "UR"}


@cache
def planted_everywhere() -> Dataset:
    """An identifier in every attribute that the dictionary knows and that holds text, a date, a UID or a sequence."""
    dataset = Dataset()
    values = {"DA": DATES[0], "DT": DATES[0], "TM": DATES[1], "UI": f"{UID}.9", **dict.fromkeys(_TEXT, PLANTED)}
    item = Dataset()
    item.PatientName, item.TextValue, item.StudyInstanceUID = PLANTED, PLANTED, f"{UID}.1"
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if keyword and keyword not in KEPT and tag >> 16 > 2 and (vr in values or vr == "SQ"):
            dataset.add_new(tag, vr, values.get(vr, Sequence([item])))
    return dataset


def plant(dataset: Dataset, *, every: int = 1) -> Dataset:
    """Put identifiers into every attribute that an image need not have, private ones, overlays and the file's head.

    Another ``every`` than 1 takes one in so many of the attributes of the dictionary, which is faster.
    """
    everywhere = planted_everywhere()
    dataset.update({tag: everywhere[tag] for tag in sorted(everywhere.keys() - dataset.keys())[::every]})
    block = dataset.private_block(0x0011, f"MAKER {PLANTED}", create=True)
    block.add_new(0x01, "LO", PLANTED)
    block.add_new(0x02, "OB", PLANTED.encode() + b" ")
    for group in (0x6000, 0x6002):
        dataset.add_new((group, 0x0022), "LO", PLANTED)
        dataset.add_new((group, 0x3000), "OW", PLANTED.encode() + b" ")
    dataset.add_new((0x5000, 0x0022), "LO", PLANTED)
    dataset.add_new((0x5000, 0x3000), "OB", PLANTED.encode() + b" ")
    dataset.PatientName, dataset.PatientID = f"{PLANTED}^Jane", PLANTED
    dataset.file_meta.SourceApplicationEntityTitle = PLANTED
    dataset.file_meta.PrivateInformationCreatorUID = UID
    dataset.file_meta.PrivateInformation = PLANTED.encode() + b" "
    dataset.preamble = PLANTED.encode().ljust(128, b"\0")
    return dataset
