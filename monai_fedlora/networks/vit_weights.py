"""Loading a published vision transformer into ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.bare_files import check_bare
from monai_fedlora.networks.checkpoint_files import BackboneInfo, CheckpointFiles, listed
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor, Shape, opened, written_size
from monai_fedlora.networks.fitting import fitting_sizes
from monai_fedlora.networks.layouts.others import of_adapters, other_names
from monai_fedlora.networks.layouts.recognise import Recognised, recognise
from monai_fedlora.networks.layouts.sizes import sizes_in
from monai_fedlora.networks.layouts.vit_layout import Origin
from monai_fedlora.networks.open_clip_config import open_clip_config_beside
from monai_fedlora.networks.position import Resizing, resize_image_position
from monai_fedlora.networks.turned_tensors import check_turned
from monai_fedlora.networks.vit import CHANNELS, VisionTransformer, ViTSettings
from monai_fedlora.networks.vit_config import check_config, check_open_clip, config_beside

_CLS, _POSITION, _PATCH = "embed.cls", "embed.position", "embed.patch.weight"
_ADDED = (_CLS, "embed.registers")  # which their positions, where there are some, become part of
_NORM = ("norm.weight", "norm.bias")
_BEFORE_HEAD = "pre_logits."  # of timm's and torchvision's networks

Stored = Mapping[str, CheckpointTensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How a file fits a network.

    Attributes:
        found: the vision transformer in the file.
        origins: where each of our tensors comes from.
        skipped: the file's names that are left out, sorted.
        assumed: settings of the network that neither the file nor a description beside it tells.
    """

    found: Recognised
    origins: Mapping[str, Origin]
    skipped: tuple[str, ...]
    assumed: tuple[str, ...] = ()

    def name(self, key: str) -> str:
        """The file's name of what our tensor ``key`` comes from."""
        return self.found.names[str(self.origins[key].key)]

    def resizing(self, settings: ViTSettings) -> Resizing:
        """How positions are interpolated."""
        return self.found.layout.resizing_of(settings)

    @property
    def names(self) -> frozenset[str]:
        """The file's names of all that is read."""
        return frozenset(map(self.name, self.origins))


def match_vision_transformer(
    network: VisionTransformer, checkpoint: CheckpointFiles, tensors: Stored, *, heads: bool, pinned: bool
) -> Match:
    """Say how weights fit ``network``, by names, by shapes and by what lies beside them.

    Args:
        network: without adapters.
        checkpoint: the files.
        tensors: of them.
        heads: False keeps the network's own head.
        pinned: whether the file is the one of a pin; see :func:`~monai_fedlora.networks.bare_files.check_bare`.

    Raises:
        WeightsError: they do not fit; the message names the file and the keys.
    """
    path = checkpoint.path
    config, open_clip = checkpoint.config or config_beside(path), open_clip_config_beside(path)
    assumed = () if config is None else check_config(config, network.settings)
    if open_clip is not None:
        check_open_clip(open_clip, network.settings)
    match = _match(network, tensors, path, heads=heads)
    _check_shapes(match, network, tensors, path)
    check_turned(match.found, tensors, network.settings, path)
    described, size = bool(config or open_clip), written_size(checkpoint)
    untold = check_bare(match.found, tensors, network.settings, path, size=size, described=described, pinned=pinned)
    return replace(match, assumed=assumed + untold)


def load_vision_transformer(
    network: VisionTransformer, checkpoint: CheckpointFiles, *, sha256: str | None, heads: bool
) -> BackboneInfo:
    """Load weights into ``network`` in place; after an error it is as it was.

    What stands in front of all names is found (:func:`~monai_fedlora.networks.layouts.recognise.recognise`), and what
    is elsewhere in the file is left out. Positions of the class token and of registers become part of them, fused
    queries, keys, values and gates are taken apart, and a patch embedding of one channel is spread evenly over three.
    Positions of another image size are interpolated, here and for images to come, as the code does whose names the file
    has. A network that reads the mean of the patch tokens takes the norm that a file was fine-tuned with behind the
    mean; where the file has none, its norm is left out, because it was trained on single tokens, and the network keeps
    its own. A head is loaded only with the norm in front of it.

    Args:
        network: where the weights go, without adapters.
        checkpoint: the files.
        sha256: what their hash must be; None accepts any.
        heads: False keeps the network's own head.

    Raises:
        WeightsError: a file is unreadable, not the pinned one, or does not fit the network; the message names the
            file and the keys.
    """
    found, path = checkpoint.check_pin(sha256), checkpoint.path
    targets = network.state_dict()
    with opened(checkpoint, pickled=True) as tensors:
        match = match_vision_transformer(network, checkpoint, tensors, heads=heads, pinned=sha256 is not None)
        values = {key: _converted(key, match, network, tensors, path) for key in match.origins}
        with torch.no_grad():
            for key, value in values.items():
                targets[key].copy_(value)
    network.embed.resizing = match.resizing(network.settings)
    loaded_heads = any(key.startswith(network.head_prefixes) for key in values)
    return BackboneInfo(
        path=path,
        sha256=found,
        n_loaded=len(values),
        layout="classifier" if loaded_heads else "pretrained",
        heads=loaded_heads,
        own_heads=() if loaded_heads else network.head_prefixes,
        skipped=match.skipped,
        assumed=match.assumed,
        resizing=network.embed.resizing,
    )


def _match(network: VisionTransformer, tensors: Stored, path: Path, *, heads: bool) -> Match:
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    found = recognise(shapes, path)
    layout, names = found.layout, found.names
    own = [key for key in network.state_dict() if not key.startswith(network.head_prefixes)]
    origins = {key: layout.origin(key) for key in own}
    left_out = set()
    if network.settings.readout == "mean":
        left_out = {origins.pop(key).key for key in _NORM}
        behind_mean = {key: Origin(key.replace("norm", str(layout.mean_norm), 1)) for key in _NORM}
        if any(origin.key in names for origin in behind_mean.values()):
            origins |= behind_mean
    if heads and origins.keys() >= set(_NORM):
        origins |= _head(network, found, tensors)
    missing = sorted(found.prefix + (origin.key or key) for key, origin in origins.items() if origin.key not in names)
    rest = names.keys() - {origin.key for origin in origins.values()}
    unknown = sorted(names[name] for name in rest - left_out if not layout.is_leftover(name))
    problems = [f"it lacks {listed(missing)}"] if missing else []
    if unknown:
        problems.append(f"the network has no {listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the network: {'; '.join(problems)} (read as {_read_as(found)}); it is probably the "
            "weights of another architecture or size, or the network already carries adapters"
            f"{_advice(found, shapes, network.settings)}"
        )
    skipped = (*(names[name] for name in rest), *found.outside)
    return Match(found=found, origins=origins, skipped=tuple(sorted(skipped)))


def _read_as(found: Recognised) -> str:
    return f"{found.layout.title}, all under {found.prefix!r}" if found.prefix else found.layout.title


def _advice(found: Recognised, shapes: Mapping[str, Shape], settings: ViTSettings) -> str:
    """Which sizes the file fits, or whose it is, to follow what is wrong."""
    if adapted := of_adapters(shapes):
        return f". By its names {adapted}"
    if other := other_names(shapes):
        return f". By its names it is of {other.sentence}"
    said = sizes_in(found, shapes)
    fitting = fitting_sizes(said)
    if fitting and not all(getattr(settings, name) == value for name, value in said.items()):
        return f". By its shapes it fits {', '.join(fitting)}"
    return "; a network of another kind is brought by a plug-in or by monai_fedlora.attach"


def _head(network: VisionTransformer, found: Recognised, tensors: Stored) -> dict[str, Origin]:
    """Where the head comes from; empty unless all of it is in the file, beside the backbone or outside, and fits.

    A head behind a further layer reads other features than ours.
    """
    if any(_BEFORE_HEAD in name for name in tensors):
        return {}
    own = {key: tuple(value.shape) for key, value in network.head.state_dict(prefix="head.").items()}
    theirs = {key: key.replace("head", str(found.layout.head), 1) for key in own}
    fits = all(name in found.names and tensors[found.names[name]].shape == own[key] for key, name in theirs.items())
    return {key: Origin(name) for key, name in theirs.items()} if fits else {}


def _check_shapes(match: Match, network: VisionTransformer, tensors: Stored, path: Path) -> None:
    wrong = []
    for key, origin in match.origins.items():
        name = match.name(key)
        found = tensors[name].shape
        expected = tuple(network.state_dict()[key].shape)
        expected = (origin.parts * expected[0], *expected[1:]) if key not in _ADDED else expected
        if key == _POSITION:
            fits = _grid(found, match, network) is not None
        elif key == _PATCH:
            fits = found in _patch_shapes(expected, linear=match.found.layout.patch_linear)
            if len(found) == 5:
                wrong.append("it is of volumes, and this network is of images")
        else:
            fits = found == expected or (key in _ADDED and found in (expected[1:], expected[2:]))
        if not fits and key == _POSITION and found[-1:] == expected[-1:]:
            wrong.append(_unfit_positions(name, found, match, network))
        elif not fits:
            wrong.append(f"{name} is {found} instead of {expected}")
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    if not wrong:  # a gate that nobody asked for hides in the layer that it is packed into
        said = sizes_in(match.found, shapes).items()
        settings = network.settings
        wrong = [
            f"its {name} is {value}, not {own}" for name, value in said if (own := getattr(settings, name)) != value
        ]
    if wrong:
        raise WeightsError(
            f"{path} does not fit the network: {listed(wrong)}; it is probably of another size, patch or image shape"
            f"{_advice(match.found, shapes, network.settings)}"
        )


def _patch_shapes(expected: Shape, *, linear: bool) -> tuple[Shape, ...]:
    """Shapes of a patch embedding that can be read: of colour images, and of images with one channel."""
    rows, _, height, width = expected
    if linear:
        return (rows, CHANNELS * height * width), (rows, height * width)
    return expected, (rows, 1, height, width)


def _unfit_positions(name: str, table: Shape, match: Match, network: VisionTransformer) -> str:
    """What is wrong with a table of positions of the right width."""
    rows = math.prod(table[:-1])
    front = max(match.found.layout.front_rows(network.settings))
    of = {0: "", 1: ", one of them the class token's"}.get(front, f", {front} of them in front of the patches'")
    height, width = network.embed.grid
    return (
        f"{name} is {table}, with {rows} positions{of} (read as {match.found.layout.title}); {rows - front} patches "
        f"are neither a square nor the network's {height} x {width}"
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of positions: the rows in front of the patches', and the patches' grid."""

    front: int
    grid: tuple[int, int]


def _grid(table: Shape, match: Match, network: VisionTransformer) -> _Table | None:
    """How a table (T, D) or (1, T, D) is read: as the network's grid or as a square; None if none or both would do."""
    dim, grid = network.settings.dim, network.embed.grid
    if table[-1:] != (dim,) or len(table) not in (2, 3) or (len(table) == 3 and table[0] != 1):
        return None
    fronts = match.found.layout.front_rows(network.settings)
    counts = {front: table[-2] - front for front in fronts}
    as_own = {front: grid for front, count in counts.items() if count == math.prod(grid)}
    sides = {front: math.isqrt(count) for front, count in counts.items() if count > 0}
    squares = {front: (side, side) for front, side in sides.items() if side**2 == counts[front]}
    read = squares | as_own
    return _Table(*read.popitem()) if len(read) == 1 else None


def _converted(key: str, match: Match, network: VisionTransformer, tensors: Stored, path: Path) -> torch.Tensor:
    """A tensor of the file as the network's ``key``, refused if it is not finite."""

    def read(name: str) -> torch.Tensor:
        return tensors[match.name(name)].read_finite(match.name(name), path)

    value, dim, origin = read(key), network.settings.dim, match.origins[key]
    if origin.parts > 1:
        return value.chunk(origin.parts)[origin.part]
    if key == _PATCH:
        return _patch_weight(value, network.settings.patch, linear=match.found.layout.patch_linear)
    if key not in (_POSITION, *_ADDED):
        return value
    rows = value.float().reshape(1, -1, dim) if key in _ADDED else value.reshape(1, -1, dim)
    if _POSITION not in match.origins:
        return rows
    table = _grid(tensors[match.name(_POSITION)].shape, match, network)
    assert table is not None
    if key in _ADDED:
        first = 0 if key == _CLS else int(network.settings.class_token)
        last = first + rows.shape[1]
        positions = read(_POSITION).float().reshape(1, -1, dim)[:, first:last] if table.front >= last else 0.0
        return rows + positions
    patches, grid = rows[:, table.front :], network.embed.grid
    if table.grid == grid:
        return patches
    return resize_image_position(patches.float(), table.grid, grid, resizing=match.resizing(network.settings))


def _patch_weight(value: torch.Tensor, patch: int, *, linear: bool) -> torch.Tensor:
    """A patch embedding as a convolution of colour images.

    One of images with a single channel is spread evenly over the three: of a grey image in three equal channels it
    makes what the file's network makes of one.
    """
    if linear:
        value = value.reshape(len(value), patch, patch, -1).permute(0, 3, 1, 2)
    return value if value.shape[1] == CHANNELS else value.float().expand(-1, CHANNELS, -1, -1) / CHANNELS
