"""Finding the layout of a file, and what stands in front of all names of its vision transformer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import listed
from monai_fedlora.networks.checkpoint_tensors import Shape
from monai_fedlora.networks.layouts import LAYOUTS
from monai_fedlora.networks.layouts.others import of_adapters, other_names
from monai_fedlora.networks.layouts.vit_layout import ViTLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A vision transformer in a file.

    Attributes:
        layout: how its tensors are named.
        prefix: what stands in front of all of them, such as ``"teacher.backbone."``; empty where nothing does.
        names: the file's name of each of them, by its name in the layout.
        outside: the file's other names, sorted.
    """

    layout: ViTLayout
    prefix: str
    names: Mapping[str, str]
    outside: tuple[str, ...]


def recognise(shapes: Mapping[str, Shape], path: Path) -> Recognised:
    """Find the one vision transformer of a file.

    A layout fits where all its anchors have one and the same prefix, whatever that is. Of layouts that fit in one
    place, the one that knows most of the names is taken.

    Args:
        shapes: of the file's tensors by name; names of nested dictionaries are joined by dots.
        path: of the file, for messages.

    Raises:
        WeightsError: there is no vision transformer of a known layout, or there are several.
    """
    candidates = [found for layout in LAYOUTS for found in _candidates(layout, shapes)]
    fitting = [found for found in candidates if found.names.keys() >= set(found.layout.anchors)]
    # A file that lacks an anchor is refused; what it lacks can be said where most of it is known.
    fitting = fitting or [found for found in candidates if _is_nearly_there(found)]
    if not fitting:
        titles = "; ".join(dict.fromkeys(layout.title for layout in LAYOUTS))
        raise WeightsError(
            f"{path} does not fit the network: it names its tensors {listed(sorted(shapes), 3)}, which is none of the "
            f"known layouts of vision transformers ({titles}); {_instead(shapes)}"
        )
    prefixes = sorted({found.prefix for found in fitting})
    if len(prefixes) > 1:
        raise WeightsError(_several(prefixes, path))
    return max(fitting, key=lambda found: (_has_its_mlp(found, shapes), _known(found)))


def _instead(names: Iterable[str]) -> str:
    names = list(names)
    if adapted := of_adapters(names):
        return adapted
    other = other_names(names)
    if other:
        return f"by its names it is of {other.sentence}"
    return "networks of other kinds are brought by a plug-in or by monai_fedlora.attach"


def _candidates(layout: ViTLayout, shapes: Mapping[str, Shape]) -> Iterator[Recognised]:
    """What has an anchor, for every prefix of one."""
    names: dict[str, str] = {}
    for key in shapes:
        if names.setdefault(layout.canonical(key), key) != key:
            return
    prefixes = {name.removesuffix(anchor) for name in names for anchor in layout.anchors if name.endswith(anchor)}
    for prefix in sorted(prefixes):
        if prefix and not prefix.endswith("."):
            continue
        inside = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
        inside = _heads_around(layout, prefix, names) | inside
        outside = tuple(sorted(shapes.keys() - inside.values()))
        yield Recognised(layout=layout, prefix=prefix, names=inside, outside=outside)


def _heads_around(layout: ViTLayout, prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """The head of the model that holds the vision transformer under a name."""
    around = prefix[:-1].rpartition(".")
    heads = [f"{layout.head}.{leaf}" for leaf in ("weight", "bias")]
    return {name: names[there] for name in heads if (there := "".join(around[:2]) + name) in names}


def _origins(layout: ViTLayout) -> set[str]:
    """The layout's names of all that ours may have outside of the blocks and in the first one."""
    modules = [*layout.modules, *(f"blocks.0.{module}" for module in layout.block_modules if "gamma" not in module)]
    modules += [f"blocks.0.{part}" for part in ("attn.q", "mlp.gate", "mlp.fc1")]
    own = [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]
    own += ["blocks.0.ls1.gamma", "blocks.0.ls2.gamma", "embed.cls", "embed.registers", "embed.position"]
    return {origin.key for key in own if (origin := layout.origin(key)).key is not None}


def _is_nearly_there(found: Recognised) -> bool:
    """Whether most names are there, in blocks and in front of them."""
    first = {str(found.layout.origin(key).key) for key in ("embed.patch.weight", "embed.position")}
    return bool(first & found.names.keys()) and 2 * _known(found) > len(_origins(found.layout))


def _known(found: Recognised) -> int:
    """How many of the layout's names are in the file, its marks counting as one."""
    marks = set(found.layout.marks)
    return len(_origins(found.layout) & found.names.keys()) + bool(marks and marks <= found.names.keys())


def _has_its_mlp(found: Recognised, shapes: Mapping[str, Shape]) -> bool:
    """Whether the first MLP's two layers meet: a gate that is packed into one of them doubles it."""
    first, last = (found.layout.origin(f"blocks.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    above, below = (found.names.get(str(origin.key)) for origin in (first, last))
    if above is None or below is None:
        return False
    return shapes[above][:1] == tuple(first.parts * size for size in shapes[below][1:])


def _several(prefixes: list[str], path: Path) -> str:
    *others, last = [repr(prefix) if prefix else "no prefix" for prefix in prefixes]
    parts = [prefix.split(".")[:-1] for prefix in prefixes]
    shared = next(place for place in count() if len({tuple(names[: place + 1]) for names in parts}) > 1)
    part = next(names[shared] for names in reversed(parts) if len(names) > shared)
    alone = f"{path.stem}_{part}{path.suffix}"
    flat = f"{{k: v for k, v in state.items() if {f'.{part}.'!r} in '.' + k}}"
    if path.suffix == ".safetensors":
        lines = f"state = safetensors.torch.load_file({path.name!r}); safetensors.torch.save_file({flat}, {alone!r})"
    else:
        load = f"torch.load({path.name!r}, map_location='cpu', weights_only=True)"
        load += f"; state = state.get({parts[0][0]!r}, state)" if shared else ""
        lines = f"state = {load}; torch.save(state.get({part!r}) or {flat}, {alone!r})"
    return (
        f"{path} holds several vision transformers, under {', '.join(others)} and {last}; which one is meant is not "
        f"guessed. Save the one you mean alone, such as that of {part}, with these lines: {lines}"
    )
