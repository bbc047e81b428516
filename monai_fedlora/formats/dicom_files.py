"""Read DICOM files: with or without preamble, in any byte order, deflated or not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from monai_fedlora.errors import ConfigError, DataError, FedLoraError
from monai_fedlora.out_of_memory import tell_out_of_memory

DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
MAXIMUM_HEADER = 1 << 25
"""Largest size of an inflated header, bytes (ours); what follows is not read."""
MAXIMUM_OBJECT = 1 << 29
"""Largest size of an inflated file, bytes (ours)."""
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_PREAMBLE = 128
_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_FIRST_ELEMENT, _LONGEST_FIRST_VALUE = 0x0100, 1 << 16


def need_pydicom() -> ModuleType:
    """Return pydicom.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ConfigError("DICOM needs further packages: pip install 'monai-fedlora[dicom]'") from error
    return pydicom


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Hide pydicom's warnings about broken rules of the standard; this package checks those that matter here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\b.*")
        yield


@contextmanager
def naming_damage(what: str, advice: str) -> Iterator[None]:
    """Turn whatever pydicom raises inside the block into a `DataError`, and hide its warnings.

    pydicom reports damage by many kinds of errors, often only when a value is read.

    Args:
        what: start of the message, such as "a.dcm is a damaged DICOM file".
        advice: end of the message: what to do.

    Raises:
        DataError: something failed inside the block; errors of this package pass unchanged.
    """
    try:
        with quiet_pydicom():
            yield
    except FedLoraError:
        raise
    except Exception as error:
        tell_out_of_memory(error, "reading DICOM")
        raise DataError(f"{what} ({error}); {advice}") from error


def is_dicom(path: Path) -> bool:
    """Whether the first bytes of a file are those of DICOM, with or without preamble and ``DICM``."""
    with open(path, "rb") as stream:
        return _start(stream) is not None


def read_object(path: Path, tags: Sequence[str] | None = None) -> Any:
    """Read a file as DICOM.

    A file is DICOM if ``DICM`` follows a preamble of 128 bytes, or if it starts with a data set, as old archives write
    files without both.

    Args:
        path: the file.
        tags: attributes to read, without pixels; None reads all.

    Returns:
        The pydicom data set with ``file_meta.TransferSyntaxUID`` set; for a deflated file it is that of the inflated
        one. None if the file is not DICOM.

    Raises:
        ConfigError: it is DICOM, and pydicom is not installed.
        DataError: the file is damaged, or inflates to more than :data:`MAXIMUM_OBJECT` bytes.
    """
    wanted = None if tags is None else ["SOPClassUID", *tags]
    with naming_damage(f"{path} is a damaged DICOM file", "copy it again from the source"), open(path, "rb") as stream:
        start = _start(stream)
        if start is None:
            return None
        pydicom = need_pydicom()
        dataset = pydicom.dcmread(
            _inflated(stream, start, path, whole=wanted is None),
            force=start == 0,
            stop_before_pixels=wanted is not None,
            specific_tags=wanted,
        )
        is_directory = dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY
        if "SOPClassUID" not in dataset and not is_directory:
            if start == 0:
                return None
            raise ValueError("it does not say what kind of object it is")
        if not dataset.file_meta.get("TransferSyntaxUID"):
            implicit, little = dataset.original_encoding
            plain = _IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(plain)
        return dataset


def _start(stream: Any) -> int | None:
    """Offset of the first attribute; None if the file is not DICOM. The stream is set back to its start."""
    head = stream.read(_PREAMBLE + 4)
    stream.seek(0)
    if head[_PREAMBLE:] == b"DICM":
        return _PREAMBLE + 4
    if len(head) < 8:
        return None
    kind = head[4:6]
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        has_value = (kind.isalpha() and kind.isupper()) or (order == "<" and length < _LONGEST_FIRST_VALUE)
        if group in _FIRST_GROUPS and element <= _LAST_FIRST_ELEMENT and has_value:
            return 0
    return None


def _inflated(stream: Any, start: int, path: Path, *, whole: bool) -> Any:
    """The same stream, inflated if it was deflated; never more than the limits is in memory."""
    pydicom = need_pydicom()
    stream.seek(start)
    meta = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        stream.seek(0)
        return stream
    limit = MAXIMUM_OBJECT if whole else MAXIMUM_HEADER
    packed = stream.read()
    try:
        plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit + 1)
    except zlib.error:  # some writers add zlib's own header
        plain = zlib.decompressobj().decompress(packed, limit + 1)
    if whole and len(plain) > limit:
        raise DataError(f"{path} inflates to more than {limit >> 20} MiB, which no image has; export it uncompressed")
    made = io.BytesIO()
    made.write(bytes(_PREAMBLE) + b"DICM")
    meta = pydicom.dataset.FileMetaDataset(meta)
    meta.TransferSyntaxUID = EXPLICIT_LITTLE
    pydicom.filewriter.write_file_meta_info(made, meta, enforce_standard=False)
    made.write(plain)
    made.seek(0)
    return made
