"""Files that lie under the name of weights and are something else, each refused with what to do."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from monai_fedlora.errors import WeightsError

_BEGINNINGS = (
    (
        rb"version https://git-lfs\.github\.com/",
        "is the pointer that git keeps in place of a large file; run `git lfs pull` in its folder, or download the "
        "file itself",
    ),
    (
        rb"\s*<(!doctype html|html|\?xml|head|body)",
        "is a web page that was saved under the name of weights, such as one that asks to log in or to accept a "
        "licence; do that in a browser, and download the file itself",
    ),
    (rb"\s*[{\[]", "is a description in JSON and holds no weights; give the weights file, or the folder of both"),
    (rb"\x89HDF", "holds TensorFlow's weights; get those of PyTorch, which most owners publish beside them"),
    (rb"GGUF", "holds weights quantised for llama.cpp; get those that the owner publishes for PyTorch"),
)
_BEGINNING_OF_SAFETENSORS = re.compile(rb'.{6}\0\0\s*\{\s*"', re.DOTALL)  # the length of what follows, and its JSON
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf", b"Rar!")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def refuse_other_files(path: Path, *, pickled: bool) -> None:
    """Refuse what its beginning shows to be no file of weights of the kind that its name says.

    Args:
        path: of the file.
        pickled: whether it will be read as a checkpoint of ``torch.save``; else as a safetensors file.

    Raises:
        WeightsError: it cannot be read, is empty, or is something else that is known; the message says what.
    """
    try:
        with path.open("rb") as stream:
            beginning = stream.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    what = _what(path, beginning, pickled=pickled)
    if what:
        raise WeightsError(f"{path} {what}")


def _what(path: Path, beginning: bytes, *, pickled: bool) -> str | None:
    if not beginning:
        return "is empty: a download was interrupted or a disk is full; get it again from its origin"
    for pattern, what in _BEGINNINGS:
        if re.match(pattern, beginning, re.IGNORECASE):
            return what
    if _is_numpys(path):
        return (
            "holds NumPy's arrays, in which Google publishes weights of JAX; get their conversion to PyTorch, timm's "
            "or transformers'"
        )
    if beginning.startswith(_PACKED) or beginning[257:262] == b"ustar" or _is_other_archive(path):
        return "is an archive of files; unpack it, and give what is inside"
    if pickled and _BEGINNING_OF_SAFETENSORS.match(beginning):
        return "is a safetensors file under another name; rename it to end in .safetensors"
    if not pickled and (_PICKLE.match(beginning) or beginning.startswith(b"PK")):
        return (
            "is no safetensors file but a checkpoint of torch.save; rename it to end in .pth if that is how its owner "
            "publishes it, which vision transformers are read from, or convert it to safetensors"
        )
    return None


def _is_numpys(path: Path) -> bool:
    names = _inside(path)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _is_other_archive(path: Path) -> bool:
    """Whether it is an archive of ZIP that torch did not write."""
    names = _inside(path)
    return bool(names) and not any(name.endswith("/data.pkl") for name in names)


def _inside(path: Path) -> list[str]:
    """Names in an archive of ZIP; none of anything else."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):  # damaged, which whoever reads it says
        return []
