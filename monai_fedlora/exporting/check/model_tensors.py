"""The tensors of the model files: check their records, and that all files hold the same weights."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.pickles import Instance
from monai_fedlora.exporting.check.plain_zip import read_member
from monai_fedlora.exporting.check.views import Storage, View
from monai_fedlora.exporting.check.words import shortened

_DTYPES = {
    1: ("torch ByteStorage", 1), 2: ("torch CharStorage", 1), 3: ("torch ShortStorage", 2), 4: ("torch IntStorage", 4),
    5: ("torch LongStorage", 8), 6: ("torch HalfStorage", 2), 7: ("torch FloatStorage", 4),
    8: ("torch DoubleStorage", 8), 12: ("torch BoolStorage", 1), 13: ("torch BFloat16Storage", 2),
}  # fmt: skip
"""By number in `torch.export`'s schema: type, and bytes per element."""
_STRIDED = 7  # the strided layout in the same schema


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """The tensors of one archive.

    Attributes:
        views: by name; the key of a storage is the name of its record.
        folder: prefix of the records' names, before the key.
    """

    views: Mapping[str, View]
    folder: str


def record_problems(archive: zipfile.ZipFile, folder: str, storages: Mapping[str, Storage]) -> Iterator[str]:
    """Storages whose records are missing or have another size.

    Args:
        archive: the model file.
        folder: prefix of the records' names, before the key.
        storages: by key.
    """
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    for key, storage in storages.items():
        found = sizes.get(folder + key)
        if found != storage.nbytes:
            yield f"has a storage {key} of {storage.nbytes:,} bytes; its record has {found}"


def unreferenced(archive: zipfile.ZipFile, folder: str, keys: set[str]) -> Iterator[str]:
    """Records that belong to no tensor."""
    for name in archive.namelist():
        key = name.removeprefix(folder)
        if name.startswith(folder) and "/" not in key and key not in keys:
            yield f"has a record {key[:80]} that no tensor lies in"


def named_views(value: Any) -> dict[str, View]:
    """The tensors of a state dictionary, or of an object and the objects in it, by dotted name."""
    found: dict[str, View] = {}
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, part = stack.pop()
        if isinstance(part, View):
            found[name] = part
        elif isinstance(part, (Instance, dict)) and name.count(".") < 100:
            inner = part.attributes if isinstance(part, Instance) else part
            stack += [(f"{name}.{key}" if name else key, item) for key, item in inner.items()]
    return found


def program_views(table: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, View]:
    """The tensors of a table of `torch.export`, by name.

    Args:
        table: parsed.
        sizes: bytes of the records by name.

    Raises:
        ExportError: one is no plain tensor, exceeds its record, or is followed by further bytes.
    """
    found: dict[str, View] = {}
    reach: dict[str, int] = {}
    try:
        for name, entry in table["config"].items():
            meta = entry["tensor_meta"]
            if meta["dtype"] not in _DTYPES or meta["layout"] != _STRIDED or meta["device"]["type"] != "cpu":
                raise ExportError(f"has {name[:80]!r} of a type or in a place that no export writes")
            kind, item = _DTYPES[meta["dtype"]]
            size, stride = (tuple(number["as_int"] for number in meta[key]) for key in ("sizes", "strides"))
            key = entry["path_name"]
            storage = Storage(key=key, kind=kind, item=item, count=sizes[key] // item)
            found[name] = View(storage=storage, offset=meta["storage_offset"]["as_int"], size=size, stride=stride)
            reach[key] = max(reach.get(key, 0), found[name].end * item)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"is no table of tensors ({shortened(error)})") from error
    for key, end in reach.items():
        if sizes[key] != end:
            raise ExportError(f"has a record {key} of {sizes[key]:,} bytes, where its tensors need {end:,}")
    return found


def differing(first: IO[bytes], one: Tensors, second: IO[bytes], other: Tensors) -> Iterator[str]:
    """The tensors of the first archive that the second does not hold, bit for bit.

    The names in the second may have a common prefix, because its network is part of a larger module.

    Raises:
        ArchiveError: a record is damaged.
    """
    ends = {name.removesuffix(key) for key in list(one.views)[:1] for name in other.views if name.endswith(key)}
    prefixes = [start for start in ends if all(start + key in other.views for key in one.views)]
    if not prefixes:
        yield "does not hold the weights of models/model.pt under their names"
        return
    prefix = min(prefixes, key=len)
    with zipfile.ZipFile(first) as here, zipfile.ZipFile(second) as there:
        for key, view in one.views.items():
            twin = other.views[prefix + key]
            same = (view.size, view.storage.kind) == (twin.size, twin.storage.kind)
            if not same or not np.array_equal(_bits(here, one.folder, view), _bits(there, other.folder, twin)):
                yield f"holds another {shortened(key)} than models/model.pt"


def _bits(archive: zipfile.ZipFile, folder: str, view: View) -> np.ndarray:
    """The elements of a tensor as integers, for a comparison of their bits."""
    content = read_member(archive, folder + view.storage.key, view.storage.nbytes)
    flat = np.frombuffer(content, np.dtype(f"u{view.storage.item}"))[view.offset :]
    return np.lib.stride_tricks.as_strided(
        flat, view.size, tuple(step * view.storage.item for step in view.stride), writeable=False
    )
