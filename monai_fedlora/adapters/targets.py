"""Which layers of a network get an adapter, and which cannot have one."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.layers import like, roles_of
from monai_fedlora.networks.opened import INSIDE

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ADAPTABLE = (nn.Linear, *CONVOLUTIONS)
_READ_WITHOUT_A_CALL = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""What computes with the weights of its layers without calling these, at least in evaluation: an adapter on one of
them would do nothing."""


def target_modules(network: Any, *, targets: Sequence[str], blocks: int) -> list[str]:
    """Dotted names of the layers that get an adapter.

    A target is a role or a path inside a block, which is looked for in the last blocks, or a layer's whole dotted name.
    In a network whose list of blocks is unknown, roles and ends of names are looked for everywhere but in the head.

    Args:
        network: a backbone, or a :class:`monai_fedlora.networks.opened.OpenedNetwork`.
        targets, blocks: see :class:`monai_fedlora.adapters.lora.LoraSettings`.

    Raises:
        ConfigError: there are fewer blocks, a target is nowhere (the nearest are given), or it cannot have an adapter.
    """
    find = _in_blocks if is_backbone(network) else _anywhere
    places = list(find(network, targets, blocks))
    names = list(dict.fromkeys(name for name, _ in sorted(places, key=lambda place: place[1])))
    for name in names:
        check_layer(network, name)
    return names


def _in_blocks(network: Any, targets: Sequence[str], blocks: int) -> Iterator[tuple[str, int]]:
    """Names, each with the number of its block, and the depth for those that a whole name gives."""
    depth = len(network.blocks)
    if blocks > depth:
        raise ConfigError(f"blocks is {blocks}, but the network has only {depth}")
    modules = dict(network.named_modules())
    for target in targets:
        path = network.target_names.get(target, target)
        names = [f"{network.block_name(index)}.{path}" for index in range(depth - (blocks or depth), depth)]
        if isinstance(modules.get(names[0]), _ADAPTABLE):
            if missing := [name for name in names if name not in modules]:
                raise ConfigError(
                    f"{target!r} is not in every block: there is no {missing[0].removeprefix(INSIDE)}; give whole names"
                )
            yield from zip(names, range(depth - len(names), depth), strict=True)
        elif whole := _whole(target, modules):
            yield whole, depth
        else:
            inside = (name for name, module in network.blocks[0].named_modules() if isinstance(module, _ADAPTABLE))
            known = ", ".join([*network.target_names, *inside])
            raise ConfigError(f"{target!r} is not a linear layer of a block; choose from {known}")


def _anywhere(network: Any, targets: Sequence[str], blocks: int) -> Iterator[tuple[str, int]]:
    """Names in a network whose blocks are unknown."""
    modules = dict(network.named_modules())
    layers = [
        name
        for name, module in modules.items()
        if isinstance(module, _ADAPTABLE) and not f"{name}.".startswith(network.head_prefixes)
    ]
    for target in targets:
        if whole := _whole(target, modules):
            yield whole, 0
            continue
        found = [name for name in layers if target in roles_of(name) or name.endswith(f".{target}")]
        if not found:
            known = like(target, [name.removeprefix(INSIDE) for name in layers])
            raise ConfigError(f"targets has {target!r}: no layer of this network is called so or ends in it{known}")
        if blocks:
            lists = " or ".join(map(repr, network.block_lists)) or "none is to be seen"
            raise ConfigError(
                f"blocks is {blocks}: {target!r} shall be adapted in so many last blocks, and nothing says where the "
                f"network has them. Name its list of blocks, blocks=... ({lists}), write targets as a regular "
                "expression of whole names, or set blocks to 0 for all of the network"
            )
        yield from ((name, 0) for name in found)


def _whole(target: str, modules: Container[str]) -> str | None:
    """The dotted name of a target that is one, as the user's own module or the network around it has it."""
    return next((name for name in (target, f"{INSIDE}{target}") if name in modules), None)


def check_layer(network: Any, name: str) -> None:
    """Refuse a layer that cannot have an adapter.

    Raises:
        ConfigError: it is in the head, of another type than linear or convolutional, a convolution in groups, with
            dilation or another padding than zeros, a part of a module that reads its weight without calling it, or its
            weight is no parameter of its own.
    """
    layer, said = network.get_submodule(name), name.removeprefix(INSIDE)
    if f"{name}.".startswith(network.head_prefixes):
        raise ConfigError(f"layer {said} belongs to the head, which trains as it is; leave it out of targets")
    for holder in _holders(name):
        module = network.get_submodule(holder)
        if isinstance(module, _READ_WITHOUT_A_CALL):
            place = f"{holder}.".removeprefix(INSIDE)[:-1] or "the network"
            raise ConfigError(
                f"layer {said} cannot be adapted: {place} is a {type(module).__name__}, which reads its layers' "
                "weights without calling them, so that an adapter would have no effect. Choose layers outside of it, "
                "or write the attention with linear layers of its own"
            )
    if type(layer) not in _ADAPTABLE:
        inside = [f"{said}.{child}" for child, module in layer.named_modules() if child and type(module) in _ADAPTABLE]
        hint = f"; inside of it are {', '.join(inside[:4])}" if inside else ""
        raise ConfigError(
            f"layer {said} is a {type(layer).__name__}, which LoRA cannot adapt; adapters go on nn.Linear, nn.Conv1d, "
            f"nn.Conv2d and nn.Conv3d{hint}"
        )
    if isinstance(layer, CONVOLUTIONS):
        for setting, usual in (("groups", 1), ("padding_mode", "zeros"), ("dilation", (1,) * len(layer.dilation))):
            if (value := getattr(layer, setting)) != usual:
                raise ConfigError(f"{said} has {setting} {value!r}, and PEFT adapts convolutions of {usual!r} only")
    if layer._parameters.get("weight") is None:
        raise ConfigError(f"{said} computes its weight anew in every pass, so that an adapter cannot be merged into it")
    alike = [
        other
        for other, parameter in network.named_parameters(remove_duplicate=False)
        if parameter is layer.weight and other != f"{name}.weight"
    ]
    if alike:
        raise ConfigError(
            f"{said} shares its weight with {alike[0].removeprefix(INSIDE)}, so that an adapter cannot be merged into "
            "one of them; leave it out of targets"
        )


def _holders(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def check_matrices(network: Any, names: Iterable[str], what: str) -> None:
    """Refuse convolutions where a method computes with products of matrices; ``what`` names it.

    Raises:
        ConfigError: a layer is a convolution.
    """
    for name in names:
        if isinstance(layer := network.get_submodule(name), CONVOLUTIONS):
            raise ConfigError(
                f"{what} computes with the matrices B A of linear layers, and {name.removeprefix(INSIDE)} is a "
                f"{type(layer).__name__}; leave convolutions out of targets, or choose a method that averages factors, "
                "such as dual_lora"
            )


def in_peft_words(network: nn.Module, names: Sequence[str]) -> list[str] | str:
    """Whole dotted names so that PEFT takes these layers alone: it also takes those whose names end in a listed one."""
    ends = tuple(f".{name}" for name in names)
    if any(name.endswith(ends) for name, _ in network.named_modules()):
        return "|".join(map(re.escape, names))
    return list(names)
