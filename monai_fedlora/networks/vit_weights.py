"""Loading a published vision transformer into ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import (
    BackboneInfo,
    CheckpointFiles,
    CheckpointTensor,
    Shape,
    listed,
    opened,
)
from monai_fedlora.networks.position import resize_image_position
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.vit_config import check_config, config_beside
from monai_fedlora.networks.vit_layouts import LAYOUTS, UNSUPPORTED, Origin, ViTLayout, find_layout

_CLS, _POSITION, _PATCH, _NORM = "embed.cls", "embed.position", "embed.patch.weight", ("norm.weight", "norm.bias")

Stored = Mapping[str, CheckpointTensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The file's key for each of our tensors, and the file's keys that are left out."""

    layout: ViTLayout
    origins: Mapping[str, Origin]
    skipped: tuple[str, ...]


def load_vision_transformer(
    network: VisionTransformer, checkpoint: CheckpointFiles, *, sha256: str | None, heads: bool
) -> BackboneInfo:
    """Load weights into ``network`` in place; after an error it is as it was.

    The position of the class token becomes part of the class token, fused queries, keys and values are taken apart,
    and positions of another image size are interpolated. A network that reads the mean of the patch tokens takes the
    norm that a file was fine-tuned with behind the mean; where the file has none, its norm is left out, because it
    was trained on single tokens, and the network keeps its own. A head is loaded only with the norm in front of it.

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
    config = checkpoint.config or config_beside(path)
    if config is not None:
        check_config(config, network.settings)
    targets = network.state_dict()
    with opened(checkpoint, pickled=True) as tensors:
        plan = _plan(network, tensors, path, heads=heads)
        _check_shapes(plan, network, tensors, path)
        values = {key: _converted(key, plan, network, tensors, path) for key in plan.origins}
        with torch.no_grad():
            for key, value in values.items():
                targets[key].copy_(value)
    loaded_heads = any(key.startswith(network.head_prefixes) for key in values)
    return BackboneInfo(
        path=path,
        sha256=found,
        n_loaded=len(values),
        layout="classifier" if loaded_heads else "pretrained",
        heads=loaded_heads,
        own_heads=() if loaded_heads else network.head_prefixes,
        skipped=plan.skipped,
    )


def _plan(network: VisionTransformer, tensors: Stored, path: Path, *, heads: bool) -> _Plan:
    for pattern, meaning in UNSUPPORTED.items():
        if present := sorted(key for key in tensors if re.match(pattern, key)):
            raise WeightsError(f"{path} holds {listed(present, 1)}: {meaning} are not supported")
    own = [key for key in network.state_dict() if not key.startswith(network.head_prefixes)]
    chosen = find_layout(tensors.keys(), own)
    if chosen is None:
        titles = "; ".join(dict.fromkeys(layout.title for layout in LAYOUTS))
        raise WeightsError(
            f"{path} does not fit the network: it names its tensors {listed(sorted(tensors), 3)}, which is none of "
            f"the known layouts ({titles})"
        )
    layout, prefix = chosen
    origins = {key: layout.origin(key, prefix) for key in own}
    left_out = set()
    if network.settings.readout == "mean":
        token_norm = {key: origins.pop(key) for key in _NORM}
        left_out = {origin.key for origin in token_norm.values()}
        behind_mean = {key: Origin(key.replace("norm", f"{prefix}{layout.mean_norm}", 1)) for key in _NORM}
        if any(origin.key in tensors for origin in behind_mean.values()):
            origins |= behind_mean
    if heads and origins.keys() >= set(_NORM):
        origins |= _head(network, layout, prefix, tensors)
    missing = sorted(origin.key or key for key, origin in origins.items() if origin.key not in tensors)
    rest = tensors.keys() - {origin.key for origin in origins.values()}
    unknown = sorted(key for key in rest - left_out if not layout.is_leftover(key, prefix))
    problems = [f"it lacks {listed(missing)}"] if missing else []
    if unknown:
        problems.append(f"the network has no {listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the network: {'; '.join(problems)} (read as {layout.title}); it is probably the "
            "weights of another architecture or size, or the network already carries adapters"
        )
    return _Plan(layout=layout, origins=origins, skipped=tuple(sorted(rest)))


def _head(network: VisionTransformer, layout: ViTLayout, prefix: str, tensors: Stored) -> dict[str, Origin]:
    """Where the head comes from; empty unless all of it is in the file and fits."""
    own = {key: tuple(value.shape) for key, value in network.head.state_dict(prefix="head.").items()}
    for start in (prefix, "") if layout.head else ():
        theirs = {key: key.replace("head", f"{start}{layout.head}", 1) for key in own}
        if all(name in tensors and tensors[name].shape == own[key] for key, name in theirs.items()):
            return {key: Origin(name) for key, name in theirs.items()}
    return {}


def _check_shapes(plan: _Plan, network: VisionTransformer, tensors: Stored, path: Path) -> None:
    wrong = []
    for key, origin in plan.origins.items():
        found = _stored(origin, tensors).shape
        expected = tuple(network.state_dict()[key].shape)
        if origin.third is not None:
            expected = (3 * expected[0], *expected[1:])
        if key == _PATCH and plan.layout.patch_linear:
            expected = (expected[0], math.prod(expected[1:]))
        if key == _POSITION:
            fits = _grid(found, plan, network) is not None
        else:
            fits = found == expected or (key == _CLS and found in (expected[1:], expected[2:]))
        if not fits and key == _POSITION and found[-1:] == expected[-1:]:
            wrong.append(_unfit_positions(str(origin.key), found, plan, network))
        elif not fits:
            wrong.append(f"{origin.key} is {found} instead of {expected}")
    if wrong:
        raise WeightsError(
            f"{path} does not fit the network: {listed(wrong)}; it is probably of another size, patch or image shape"
        )


def _unfit_positions(name: str, table: Shape, plan: _Plan, network: VisionTransformer) -> str:
    """What is wrong with a table of positions of the right width."""
    rows = math.prod(table[:-1])
    counted = f"{rows} positions" + (", one of them the class token's" if plan.layout.class_position else "")
    height, width = network.embed.grid
    return (
        f"{name} is {table}, with {counted} (read as {plan.layout.title}); {rows - plan.layout.class_position} patches "
        f"are neither a square nor the network's {height} x {width}"
    )


def _grid(table: Shape, plan: _Plan, network: VisionTransformer) -> tuple[int, int] | None:
    """The grid of a table of positions (T, D) or (1, T, D); square unless it is the network's; None if unusable."""
    dim, grid = network.settings.dim, network.embed.grid
    if table[-1:] != (dim,) or len(table) not in (2, 3) or (len(table) == 3 and table[0] != 1):
        return None
    count = table[-2] - plan.layout.class_position
    side = math.isqrt(max(count, 0))
    if side > 0 and side * side == count:
        return side, side
    return grid if count == math.prod(grid) else None


def _stored(origin: Origin, tensors: Stored) -> CheckpointTensor:
    assert origin.key is not None
    return tensors[origin.key]


def _converted(key: str, plan: _Plan, network: VisionTransformer, tensors: Stored, path: Path) -> torch.Tensor:
    """A tensor of the file as the network's ``key``, refused if it is not finite."""

    def read(name: str) -> torch.Tensor:
        origin = plan.origins[name]
        return _stored(origin, tensors).read_finite(str(origin.key), path)

    value, dim = read(key), network.settings.dim
    third = plan.origins[key].third
    if third is not None:
        return value.chunk(3)[third]
    if key == _PATCH and plan.layout.patch_linear:
        patch = network.settings.patch
        return value.reshape(dim, patch, patch, -1).permute(0, 3, 1, 2)
    if key == _CLS:
        own = value.float().reshape(1, 1, dim)
        return own + read(_POSITION).float().reshape(1, -1, dim)[:, :1] if plan.layout.class_position else own
    if key == _POSITION:
        rows = value.reshape(1, -1, dim)[:, int(plan.layout.class_position) :]
        grid = _grid(tuple(value.shape), plan, network)
        assert grid is not None
        return rows if grid == network.embed.grid else resize_image_position(rows.float(), grid, network.embed.grid)
    return value
