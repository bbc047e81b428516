"""Read and write files; writing is atomic, and files are readable by their owner only."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from monai_fedlora.errors import FedLoraError, WeightsError

if TYPE_CHECKING:
    import torch

_METADATA = "monai_fedlora"


def for_the_owner(path: str, flags: int) -> int:
    """An ``opener`` for files that only their owner can read."""
    return os.open(path, flags, 0o600)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and its missing parents, readable by their owner only from the start.

    An existing folder stays as it is.
    """
    path = Path(path)
    if path.is_dir():
        return
    if not path.parent.exists():
        make_folder(path.parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not path.is_dir():
            raise


def open_new(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a new file for writing; only its owner can read it.

    Raises:
        FileExistsError: the file exists.
    """
    return open(path, "xb", opener=for_the_owner)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that only its owner can read. Not atomic: for folders that are moved to their place afterwards."""
    with open(path, "wb", opener=for_the_owner) as stream:
        stream.write(content)


@contextmanager
def private_umask() -> Iterator[None]:
    """Make all files and folders that this process creates inside the block readable by their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` when the block succeeds.

    The file is flushed to disk before the rename; after an exception it is removed and ``target`` stays as it was. The
    file and missing folders are readable by their owner only from the start.
    """
    target = Path(target)
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    flush(target.parent)


def flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_cell(value: object) -> object:
    """A value as a csv has it: six significant digits of a float, nothing for None and NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows of cells as the text of a csv, separated by commas, with ``\\n`` at the end of each line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Raises:
        FedLoraError: the file is missing, unreadable or not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FedLoraError(f"{path} does not exist") from None
    except OSError as error:
        raise FedLoraError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FedLoraError(f"{path} is not valid JSON ({error}); it may be truncated") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and string metadata as safetensors, atomically.

    The same content gives the same bytes: several metadata entries are stored as one sorted JSON entry, because
    safetensors does not keep their order.
    """
    from safetensors.torch import save_file

    plain = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with (
        atomic_path(path) as temporary,
        TemporaryDirectory(prefix=f"{temporary.name}.", dir=temporary.parent) as scratch,
    ):
        entries = dict(metadata or {})
        if len(entries) > 1:
            entries = {_METADATA: json.dumps(entries, sort_keys=True)}
        written = Path(scratch) / temporary.name  # safetensors creates a new file, which others could read
        save_file(plain, written, metadata=entries or None)
        written.chmod(0o600)
        os.replace(written, temporary)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read every tensor of a safetensors file, and its metadata.

    Raises:
        WeightsError: the file is missing, truncated or not safetensors; the message names it.
    """
    with _opened(path) as stream:
        return {key: stream.get_tensor(key) for key in stream.keys()}, _metadata(stream)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata of a safetensors file alone.

    Raises:
        WeightsError: the file is missing, truncated or not safetensors; the message names it.
    """
    with _opened(path) as stream:
        return _metadata(stream)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise WeightsError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from error


def _metadata(stream: Any) -> dict[str, str]:
    metadata = dict(stream.metadata() or {})
    return json.loads(metadata[_METADATA]) if _METADATA in metadata else metadata
