"""Loading a backbone's weights from disk or from the Hugging Face hub, all of them or none.

Two layouts are understood, both of CineMA (Fu et al., arXiv 2506.00679): a fine-tuned classifier, whose keys
are those of :class:`~monai_fedlora.networks.cinema.ConvViT`, and a pre-trained masked auto-encoder, whose
decoder is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.cinema import VIEW, ConvViT
from monai_fedlora.networks.position import find_grid, resize_position

HUB_PREFIX = "hf://"

Layout = Literal["classifier", "pretrained"]
Shape = tuple[int, ...]

_POSITION = f"enc_down_dict.{VIEW}.pos_embed"
_FIRST_CONV = f"enc_down_dict.{VIEW}.conv_blocks.0.patch_embed.conv.weight"
_AUTO_ENCODER = ("mask", "decoder", "dec_linear")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """What was loaded.

    Attributes:
        path: the file on this machine.
        sha256: of the file's bytes.
        n_loaded: tensors of the network that now hold values of the file.
        layout: ``"classifier"`` for a fine-tuned file, ``"pretrained"`` for one without heads or with a
            masked auto-encoder's decoder.
        heads: whether the classification heads were loaded.
        skipped: the file's keys that were left out, sorted.
    """

    path: Path
    sha256: str
    n_loaded: int
    layout: Layout
    heads: bool
    skipped: tuple[str, ...]


def load_backbone(
    network: ConvViT, source: str | Path, *, sha256: str | None = None, heads: bool = True
) -> BackboneInfo:
    """Load weights into ``network`` in place; after an error it is as it was.

    Heads are loaded when all of them are in a classifier's file and fit; otherwise the network keeps its own
    and they are listed as skipped. A pre-trained file whose first convolution has one input channel has it
    repeated over the frames, not divided. Positions of a classifier trained on another image size are
    interpolated; a pre-trained file's are replaced by the network's own.

    Args:
        network: where the weights go, without adapters.
        source: a safetensors file, or ``hf://owner/repo/path/in/repo.safetensors``.
        sha256: what the file's SHA-256 must be; None accepts any file.
        heads: False keeps the network's own heads.

    Raises:
        WeightsError: the file is missing, unreadable, not the pinned one, or does not fit the network; the
            message names the file and the keys.
        ConfigError: ``sha256`` is not 64 hexadecimal digits.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"the SHA-256 to expect must be 64 hexadecimal digits, not {sha256!r}")
    path = _locate(source)
    found = _digest(path)
    if sha256 is not None and found != sha256.lower():
        raise WeightsError(
            f"{path} is not the pinned weights file: expected SHA-256 {sha256.lower()}, found {found}; "
            "the file was replaced or damaged, get it again from its origin"
        )
    targets = network.state_dict()
    with _opened(path) as stream:
        slices = {key: stream.get_slice(key) for key in stream.keys()}
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        layout = _layout_of(shapes, network.head_prefixes)
        wanted = _wanted_keys(network, shapes, layout=layout, heads=heads)
        _check_keys(network, wanted, path)
        _check_shapes(shapes, targets, wanted, layout=layout, path=path)
        for key in wanted:
            if slices[key].get_dtype() not in _FLOATS:
                raise WeightsError(f"{path}: {key} holds {slices[key].get_dtype()} values, not floating-point ones")
        values = {key: _converted(key, stream.get_tensor(key), network, path) for key in wanted}
        with torch.no_grad():
            for key, value in values.items():
                targets[key].copy_(value)
    return BackboneInfo(
        path=path,
        sha256=found,
        n_loaded=len(values),
        layout=layout,
        heads=any(key.startswith(network.head_prefixes) for key in values),
        skipped=tuple(sorted(shapes.keys() - values.keys())),
    )


def _locate(source: str | Path) -> Path:
    """The local path of a source, downloading it first if it is on the hub."""
    if not str(source).startswith(HUB_PREFIX):
        if not Path(source).is_file():
            raise WeightsError(f"{source} does not exist or is not a file; give the path of a safetensors file")
        return Path(source)
    match = re.fullmatch(r"hf://([^/]+/[^/]+)/(.+\.safetensors)", str(source))
    if match is None:
        raise WeightsError(f"{source} is not of the form hf://owner/repo/path/in/repo.safetensors")
    repo, name = match.groups()
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo_id=repo, filename=name))
    except Exception as error:  # the hub client raises its own, its HTTP library's and the system's errors
        raise WeightsError(
            f"{source} cannot be downloaded ({type(error).__name__}: {error}); on a machine without network, "
            f"download https://huggingface.co/{repo}/resolve/main/{name} by hand and give the file's path"
        ) from error


def _digest(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Map a safetensors file into memory; tensors are read from it without a copy."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated, or of another format "
            "(pickled checkpoints are not accepted)"
        ) from error


def _layout_of(keys: Collection[str], head_prefixes: tuple[str, ...]) -> Layout:
    if any(part in key for key in keys for part in _AUTO_ENCODER):
        return "pretrained"
    return "classifier" if any(key.startswith(head_prefixes) for key in keys) else "pretrained"


def _wanted_keys(network: ConvViT, shapes: Mapping[str, Shape], *, layout: Layout, heads: bool) -> tuple[str, ...]:
    """The keys of the file that should go into the network; what is not listed is left out on purpose."""
    if layout == "pretrained":
        dropped = (*_AUTO_ENCODER, "_head", "pos_embed")
        other_view = re.compile(rf"enc_(down|fusion)_dict\.(?!{VIEW}\.)")
        return tuple(k for k in shapes if not any(part in k for part in dropped) and not other_view.match(k))
    own = {k: tuple(v.shape) for k, v in network.state_dict().items() if k.startswith(network.head_prefixes)}
    if heads and all(shapes.get(key) == shape for key, shape in own.items()):
        return tuple(shapes)
    return tuple(key for key in shapes if key not in own)


def _check_keys(network: ConvViT, wanted: Collection[str], path: Path) -> None:
    own = network.state_dict().keys()
    unknown = sorted(set(wanted) - own)
    missing = sorted(key for key in own - set(wanted) if key != _POSITION and not key.startswith(network.head_prefixes))
    problems = []
    if missing:
        problems.append(f"it lacks {_listed(missing)}")
    if unknown:
        problems.append(f"the network has no {_listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the network: {'; '.join(problems)}; it is probably the weights of another "
            "architecture or size, or the network already carries adapters"
        )


def _check_shapes(
    shapes: Mapping[str, Shape],
    targets: Mapping[str, torch.Tensor],
    wanted: Collection[str],
    *,
    layout: Layout,
    path: Path,
) -> None:
    wrong = []
    for key in wanted:
        found, expected = shapes[key], tuple(targets[key].shape)
        accepted = {expected}
        if key == _FIRST_CONV and layout == "pretrained":
            accepted.add((expected[0], 1, *expected[2:]))
        if key == _POSITION and len(found) == 3:
            accepted.add((1, found[1], expected[2]))
        if found not in accepted:
            wrong.append(f"{key} is {found} instead of {expected}")
    if wrong:
        raise WeightsError(
            f"{path} does not fit the network: {_listed(wrong)}; it is probably of another size or another "
            "number of frames"
        )


def _converted(key: str, value: torch.Tensor, network: ConvViT, path: Path) -> torch.Tensor:
    """A tensor of the file in the shape of the network's, refused if it is not finite."""
    if not torch.isfinite(value).all():
        raise WeightsError(f"{path}: {key} holds NaN or infinite values; the file is damaged")
    if key == _FIRST_CONV:
        return value.expand(-1, network.n_frames, -1, -1, -1)
    if key == _POSITION:
        grid = find_grid(value)
        if grid is not None and grid != network.stem.grid:
            return resize_position(value.float(), grid, network.stem.grid)
        expected = network.stem.pos_embed.shape
        if value.shape != expected:
            raise WeightsError(
                f"{path}: {key} has {value.shape[1]} positions, the network {expected[1]}, and they are no "
                "sine-cosine table that could be interpolated; build the network with the image size of the file"
            )
    return value


def _listed(items: list[str], limit: int = 8) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
