"""The files of a checkpoint: finding them, hashing them and reading tensors without running code."""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, FedLoraError, WeightsError
from monai_fedlora.out_of_memory import tell_out_of_memory

HUB_PREFIX = "hf://"
CONFIG_NAME = "config.json"

Layout = Literal["classifier", "segmentation", "pretrained"]
Shape = tuple[int, ...]

_SAFETENSORS = ".safetensors"
_PICKLED = (".bin", ".pt", ".pth")
_IN_FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_FLOATS = ("F64", "F32", "F16", "BF16")
_log = logging.getLogger(__name__)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_NESTED = ("model", "state_dict", "teacher")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """What was loaded.

    Attributes:
        path: the file on this machine; of several, their folder.
        sha256: of the file's bytes; of several, see :meth:`CheckpointFiles.sha256`.
        n_loaded: tensors of the network that now hold values of the file.
        layout: ``"classifier"`` for a fine-tuned file, ``"segmentation"`` for one with a segmentation decoder,
            ``"pretrained"`` for one without heads or with a masked auto-encoder's decoder.
        heads: whether the heads were loaded, all of them.
        own_heads: of the network's head prefixes, those whose values it keeps.
        skipped: the file's keys that were left out, sorted.
    """

    path: Path
    sha256: str
    n_loaded: int
    layout: Layout
    heads: bool
    own_heads: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """The files of one set of weights on this machine.

    Attributes:
        parts: one file, or several that hold different tensors.
        config: the architecture's description beside them; None where a file alone was named.
    """

    parts: tuple[Path, ...]
    config: Path | None = None

    @property
    def path(self) -> Path:
        """The file, or the folder of several."""
        return self.parts[0] if len(self.parts) == 1 else self.parts[0].parent

    def sha256(self) -> str:
        """The hash to pin: of the one file, or of what ``sha256sum`` prints for several, sorted by name.

        Raises:
            WeightsError: a file cannot be read.
        """
        try:
            if len(self.parts) == 1:
                return files.sha256(self.parts[0])
            lines = [f"{files.sha256(part)}  {part.name}\n" for part in sorted(self.parts)]
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error}") from error
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def check_pin(self, sha256: str | None) -> str:
        """Return the hash after comparing it with the expected one, if there is one.

        Raises:
            ConfigError: ``sha256`` is not 64 hexadecimal digits.
            WeightsError: the hashes differ, or a file cannot be read.
        """
        found = self.sha256()
        if sha256 is not None and found != sha256.lower():
            raise WeightsError(
                f"{self.path} is not the pinned weights file: expected SHA-256 {sha256.lower()}, found {found}; "
                "the file was replaced or damaged, get it again from its origin"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor:
    """A tensor in a file, not yet read.

    Attributes:
        shape: its sizes.
        dtype: the file format's name of its type.
        read: returns it.
    """

    shape: Shape
    dtype: str
    read: Callable[[], torch.Tensor]

    def read_finite(self, key: str, path: Path) -> torch.Tensor:
        """Read it, or refuse it under its name in the file.

        Raises:
            WeightsError: it holds no floating-point values, or NaN or infinite ones.
        """
        if self.dtype not in _FLOATS:
            raise WeightsError(f"{path}: {key} holds {self.dtype} values, not floating-point ones")
        value = self.read()
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key} holds NaN or infinite values; the file is damaged")
        return value


def check_pin_format(sha256: str | None) -> None:
    """Refuse what cannot be a SHA-256.

    Raises:
        ConfigError: ``sha256`` is not 64 hexadecimal digits.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"the SHA-256 to expect must be 64 hexadecimal digits, not {sha256!r}")


def find_file(source: str | Path) -> CheckpointFiles:
    """Find a single safetensors file, downloading ``hf://owner/repo/path/in/repo.safetensors`` first.

    Raises:
        WeightsError: it does not exist, is no file, or cannot be downloaded.
    """
    if not str(source).startswith(HUB_PREFIX):
        if not Path(source).is_file():
            raise WeightsError(f"{source} does not exist or is not a file; give the path of a safetensors file")
        return CheckpointFiles(parts=(Path(source),))
    match = re.fullmatch(r"hf://([^/]+/[^/]+)/(.+\.safetensors)", str(source))
    if match is None:
        raise WeightsError(f"{source} is not of the form hf://owner/repo/path/in/repo.safetensors")
    return CheckpointFiles(parts=(_download(str(source), *match.groups()),))


def find_weights(source: str | Path) -> CheckpointFiles:
    """Find the files of a source.

    Args:
        source: a safetensors, ``.bin``, ``.pt`` or ``.pth`` file; a folder as ``save_pretrained`` of ``transformers``
            writes it, with ``config.json``; or such a file or folder on the hub, ``hf://owner/repo/path/in/repo.pth``
            or ``hf://owner/repo``.

    Raises:
        WeightsError: something is missing or cannot be downloaded.
    """
    name = str(source)
    if name.startswith(HUB_PREFIX):
        repo, inside = _on_hub(name)
        if inside is not None:
            _bring_config(name, repo, inside)
            return CheckpointFiles(parts=(_download(name, repo, inside),))
        return _in_folder(name, lambda wanted: _download(name, repo, wanted, optional=True))
    path = Path(source)
    if path.is_file():
        return CheckpointFiles(parts=(path,))
    if path.is_dir():
        return _in_folder(name, lambda wanted: path / wanted if (path / wanted).is_file() else None)
    raise WeightsError(f"{source} does not exist; give a weights file, or a folder with {CONFIG_NAME} and the weights")


def find_beside(source: str | Path, name: str) -> Path | None:
    """Find a file of the folder in which the weights of a source are; None where there is no such file.

    Args:
        source: see :func:`find_weights`.
        name: of the file.

    Raises:
        WeightsError: a source on the hub cannot be reached.
    """
    if str(source).startswith(HUB_PREFIX):
        repo, inside = _on_hub(str(source))
        folder = f"{inside.rpartition('/')[0]}/" if inside and "/" in inside else ""
        found: Path | None = _download(str(source), repo, f"{folder}{name}", optional=True)
        return found
    path = Path(source)
    beside = (path if path.is_dir() else path.parent) / name
    return beside if beside.is_file() else None


def _on_hub(source: str) -> tuple[str, str | None]:
    """The repository that ``hf://...`` names, and the path inside it, if there is one."""
    match = re.fullmatch(r"hf://([^/]+/[^/]+)(?:/(.+))?", source)
    if match is None:
        raise WeightsError(f"{source} is not of the form hf://owner/repo or hf://owner/repo/path/in/repo.safetensors")
    repo, inside = match.groups()
    return repo, inside


def _bring_config(source: str, repo: str, inside: str) -> None:
    """Download the description of an architecture beside a file of weights, if there is one and it can be reached."""
    folder = f"{inside.rpartition('/')[0]}/" if "/" in inside else ""
    try:
        _download(source, repo, f"{folder}{CONFIG_NAME}", optional=True)
    except WeightsError as error:
        _log.warning(
            "whether %s is of the architecture that is built is judged by its tensors alone: %s", source, error
        )


def _in_folder(name: str, get: Callable[[str], Path | None]) -> CheckpointFiles:
    """The weights of a folder, of which ``get`` returns a file's path, or None where there is no such file."""
    config = get(CONFIG_NAME)
    if config is None:
        raise WeightsError(f"{name} holds no {CONFIG_NAME}; give the path of the weights file itself")
    found = next(((wanted, path) for wanted in _IN_FOLDER if (path := get(wanted))), None)
    if found is None:
        raise WeightsError(f"{name} holds no weights; one of {', '.join(_IN_FOLDER)} is needed")
    wanted, path = found
    if not wanted.endswith(".index.json"):
        return CheckpointFiles(parts=(path,), config=config)
    parts = []
    for part in _parts_of(path):
        part_path = get(part)
        if part_path is None:
            raise WeightsError(f"{path} names the file {part}, which is missing; the download is incomplete")
        parts.append(part_path)
    return CheckpointFiles(parts=tuple(parts), config=config)


def _parts_of(index: Path) -> list[str]:
    try:
        content = files.read_json(index)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error
    parts = content.get("weight_map") if isinstance(content, dict) else None
    names = set(parts.values()) if isinstance(parts, dict) else set()
    if not names or not all(isinstance(n, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", n) for n in names):
        raise WeightsError(f"{index} names no files of weights; it is damaged or of another format")
    return sorted(names)


def _download(source: str, repo: str, name: str, *, optional: bool = False) -> Any:
    """Download a file of the hub; None where it may be absent and is."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo_id=repo, filename=name))
    except Exception as error:  # the hub client raises its own, its HTTP library's and the system's errors
        unreachable = isinstance(error, LocalEntryNotFoundError)
        if optional and isinstance(error, EntryNotFoundError) and not unreachable:
            return None
        raise WeightsError(
            f"{source} cannot be downloaded ({type(error).__name__}: {error}); on a machine without network, "
            f"download https://huggingface.co/{repo}/resolve/main/{name} by hand and give the file's path"
        ) from error


@contextmanager
def opened(checkpoint: CheckpointFiles, *, pickled: bool) -> Iterator[dict[str, CheckpointTensor]]:
    """Open the files; tensors of a safetensors file are read from it when asked for.

    Args:
        checkpoint: the files.
        pickled: whether ``.bin``, ``.pt`` and ``.pth`` files are read as checkpoints of ``torch.save``, by torch's
            reader that runs no code; False takes them, like every other file, for safetensors.

    Raises:
        WeightsError: a file is of another format, truncated, or holds anything but tensors.
    """
    with ExitStack() as stack:
        tensors: dict[str, CheckpointTensor] = {}
        for part in checkpoint.parts:
            as_checkpoint = pickled and part.suffix in _PICKLED
            found = _unpickled(part) if as_checkpoint else stack.enter_context(_safetensors(part))
            if both := sorted(tensors.keys() & found.keys()):
                raise WeightsError(f"{part} holds {both[0]}, which another file of {part.parent} holds too")
            tensors |= found
        yield tensors


@contextmanager
def _safetensors(path: Path) -> Iterator[dict[str, CheckpointTensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            yield {key: _slice(stream, key) for key in stream.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated, or of another format "
            "(pickled checkpoints are not accepted)"
        ) from error


def _slice(stream: Any, key: str) -> CheckpointTensor:
    part = stream.get_slice(key)
    return CheckpointTensor(shape=tuple(part.get_shape()), dtype=part.get_dtype(), read=partial(stream.get_tensor, key))


def _unpickled(path: Path) -> dict[str, CheckpointTensor]:
    """Tensors of a checkpoint of ``torch.save``, whose only other content may be plain values and settings."""
    try:
        # The namespace of the training script's arguments is a plain object; checkpoints of MAE hold one.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can fail in any way
        tell_out_of_memory(error, f"reading {path}")
        raise WeightsError(
            f"{path} is not a readable checkpoint ({_reason(error)}); it may be truncated, or hold more than tensors, "
            "which is not accepted because it could run code"
        ) from error
    for name in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    tensors = {
        key: CheckpointTensor(shape=tuple(value.shape), dtype=_dtype_name(value), read=partial(torch.clone, value))
        for key, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; give a state dict, or a checkpoint that holds one")
    return tensors


def _reason(error: Exception) -> str:
    """What a reader says in a line of plain text: what a pickle asks for beyond tensors, or else how it failed."""
    text = _ESCAPES.sub("", str(error))
    if asked := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks for {asked[1]}, which is no tensor"
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Weights only load failed" not in line]
    return "".join(char for char in lines[0] if char.isprintable())[:200] if lines else type(error).__name__


def _dtype_name(value: torch.Tensor) -> str:
    """The name safetensors gives to a type."""
    sizes = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return sizes.get(value.dtype, str(value.dtype).removeprefix("torch."))


def listed(items: list[str], limit: int = 8) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
