"""Finding the files of weights on this machine or on the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.checkpoint_files import CONFIG_NAME, OPEN_CLIP_CONFIG, PICKLED, CheckpointFiles, listed

HUB_PREFIX = "hf://"

_IN_FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_OPEN_CLIP_IN_FOLDER = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    "open_clip_pytorch_model.bin",
)
_log = logging.getLogger(__name__)


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
        source: a safetensors, ``.bin``, ``.pt``, ``.pth``, ``.ckpt`` or ``.pth.tar`` file; a folder as
            ``save_pretrained`` of ``transformers`` writes it, with ``config.json``, or as OpenCLIP does, with
            ``open_clip_config.json``; or such a file or folder on the hub, ``hf://owner/repo/path/in/repo.pth`` or
            ``hf://owner/repo``.

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
        _refuse_part(path)
        return CheckpointFiles(parts=(path,))
    if path.is_dir():
        return _in_folder(name, lambda wanted: path / wanted if (path / wanted).is_file() else None)
    if path.is_symlink():
        raise WeightsError(f"{source} {_to_nowhere(path)}")
    raise WeightsError(f"{source} does not exist; give a weights file, or a folder with {CONFIG_NAME} and the weights")


def _refuse_part(path: Path) -> None:
    """Refuse one file of several that are read together."""
    if _is_part(path):
        raise WeightsError(f"{path} is one part of weights in several files; give their folder, {path.parent}")


def _is_part(path: Path) -> bool:
    return re.search(r"-\d{5}-of-(?!00001)\d{5}$", path.stem) is not None


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
        for name in (CONFIG_NAME, OPEN_CLIP_CONFIG):
            _download(source, repo, f"{folder}{name}", optional=True)
    except WeightsError as error:
        _log.warning(
            "whether %s is of the architecture that is built is judged by its tensors alone: %s", source, error
        )


def _in_folder(name: str, get: Callable[[str], Path | None]) -> CheckpointFiles:
    """The weights of a folder, of which ``get`` returns a file's path, or None where there is no such file."""
    config = get(CONFIG_NAME)
    if config is None and get(OPEN_CLIP_CONFIG) is None:
        raise WeightsError(f"{name} holds no {CONFIG_NAME}; give the path of the weights file itself{_files_in(name)}")
    names = (*(_IN_FOLDER if config else ()), *_OPEN_CLIP_IN_FOLDER)
    found = next(((wanted, path) for wanted in names if (path := get(wanted))), None)
    if found is None:
        raise WeightsError(
            f"{name} holds no weights; one of {', '.join(names)} is needed, or the path of a file{_files_in(name)}"
        )
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


def _files_in(name: str) -> str:
    """Which files of a folder may be weights, to follow what is wrong with it; of the hub's cache, where they are."""
    folder = Path(name)
    if snapshots := sorted(folder.glob("snapshots/*/")):
        return f". It is a cache of the hub, in which they lie deeper: give {snapshots[-1]}"
    if not folder.is_dir():
        return ""
    there = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", *PICKLED))
    if lost := [path for path in there if path.is_symlink() and not path.exists()]:
        return f". {lost[0].name} is there and {_to_nowhere(lost[0])}"
    parts = [path.name for path in there if _is_part(path)]
    if parts and not any(folder.glob("*.index.json")):
        return f". Of {listed(parts)} the list is missing, whose name ends in .index.json: get it from their origin"
    return f". Of weights there is {listed([path.name for path in there])}" if there else ""


def _to_nowhere(link: Path) -> str:
    return (
        f"is a link to {link.readlink()}, which does not exist: the folder was copied without what its links lead to, "
        "as of the hub's cache; copy it anew with cp -L, or get the file from its origin"
    )


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
