"""Choosing a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
from monai_fedlora.methods import get_method
from monai_fedlora.methods.choice import MethodChoice
from monai_fedlora.networks.layers import Layers

__all__ = ["MethodChoice", "method"]

_WORDS = ("shared", "private")


def method(
    name: str,
    *,
    targets: str | Sequence[str] | None = None,
    head: str | Sequence[str] | None = None,
    share_head: bool | None = None,
    blocks: int | str | None = None,
    **settings: Any,
) -> MethodChoice:
    r"""Choose a federated method, its settings, and where in a network its parts go.

    Args:
        name: of the method; ``monai-fedlora methods`` lists them all.
        targets: the layers that get an adapter. A text is a regular expression that must match a layer's whole dotted
            name, as in PEFT. A list holds roles (q, k, v, proj, fc1, fc2), paths inside a block, or whole dotted names.
            None for the method's default.
        head: dotted name of the module that is the classification head, or several; or "shared" or "private", which say
            whether it travels, so that no head can be called so. The networks of the catalogue know their head.
        share_head: whether the head travels, where ``head`` is its name; None for the method's default.
        blocks: a number: roles and paths are looked for in so many last blocks, 0 for all. A text: the dotted name of
            the network's list of blocks; what frozen blocks compute is then kept.
        settings: all other settings of the method, such as ``rank``.

    Raises:
        ConfigError: an unknown method or setting (the nearest one is suggested), or a bad value.

    Examples:
        >>> import monai_fedlora as fl
        >>> choice = fl.method("dual_lora", rank=4, targets=r"blocks\.[23]\.attn\.qkv", head="classification_head")
        >>> choice.method.rank, choice.method.head, choice.layers.head
        (4, 'shared', ('classification_head',))
        >>> fl.method("dual_lora", targets=["q", "v"], blocks=3).layers is None
        True
    """
    if others := [each for each in settings if each in TRAINING_SETTINGS or each in FEDERATION_SETTINGS]:
        kind = "training" if others[0] in TRAINING_SETTINGS else "the federation"
        raise ConfigError(
            f"{others[0]} is a setting of {kind}, not of {name}: give it to fl.federate, or in settings= to "
            "fl.write_job and fl.compare"
        )
    values = dict(settings)
    names: tuple[str, ...] = ()
    if isinstance(head, str) and head in _WORDS:
        values["head"] = head
    elif head is not None:
        names = (head,) if isinstance(head, str) else tuple(head)
        if taken := [each for each in names if isinstance(each, str) and set(_WORDS) & set(each.split("."))]:
            raise ConfigError(
                f"head is {taken[0]!r}: methods call parts of theirs shared and private, so that it could not be told "
                "from them; rename the layer in your network"
            )
    if share_head is not None:
        if "head" in values:
            raise ConfigError(f"head is {head!r}, which says what share_head says; give one of them")
        values["head"] = "shared" if share_head else "private"
    if targets is not None and not isinstance(targets, str):
        values["targets"] = list(targets)
    if blocks is not None and not isinstance(blocks, str):
        values["blocks"] = blocks
    chosen = get_method(name, values)
    pattern = targets if isinstance(targets, str) else None
    if pattern is not None and not hasattr(chosen, "targets"):
        raise ConfigError(f"{name} has no setting 'targets': it adapts no layers")
    layers = Layers(targets=pattern, head=names, blocks=blocks if isinstance(blocks, str) else None)
    word = head if isinstance(head, str) and head in _WORDS else None
    return MethodChoice(chosen, None if layers == Layers() else layers, word)


def named(choice: str | MethodChoice) -> tuple[str, dict[str, Any]]:
    """The name of a method for networks of the catalogue, and those of its settings that are not its defaults.

    Raises:
        ConfigError: the choice names layers, which the networks of the catalogue know themselves.
    """
    if isinstance(choice, str):
        return choice, {}
    method = choice.method
    if choice.layers is not None:
        raise ConfigError(
            f"networks of the catalogue know their head and their blocks; leave the layers of {method.name!r} out, and "
            "list targets by role"
        )
    values = {field.name: (getattr(method, field.name), field.default) for field in dataclasses.fields(method)}
    return method.name, {name: value for name, (value, default) in values.items() if value != default}
