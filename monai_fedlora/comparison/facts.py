"""Sizes and abilities of a method that are known before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_fedlora.scope import Role
from monai_fedlora.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class PhaseFacts:
    """A phase of a round's training; the whole round is one where a method trains everything all the time.

    Attributes:
        share: of the round's steps.
        shared, private: whether shared and private parameters train in it.
    """

    share: float
    shared: bool
    private: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Sizes and abilities of a method with a named backbone.

    Attributes:
        bytes_up: bytes of the tensors that a site sends in a round, without message overhead.
        bytes_down: bytes of the tensors that a site receives in a round.
        shared: number of shared parameters.
        private: number of private parameters.
        private_head: whether the head is private.
        has_shared_model: whether the backbone with the shared parameters alone is a model, which a new site can use.
        can_keep_features: whether features can be cached: the network's first blocks are frozen.
        phases: of a round's training, in order.
    """

    bytes_up: int
    bytes_down: int
    shared: int
    private: int
    private_head: bool
    has_shared_model: bool
    can_keep_features: bool
    phases: tuple[PhaseFacts, ...] = ()


def method_facts(method: str, method_args: Mapping[str, Any], *, size: str, names: int, task: Task) -> Facts:
    """Determine the facts from a method's network on torch's meta device, without weights.

    Args:
        method, method_args: registered name and hyper-parameters.
        size: name of the backbone.
        names: number of classes, structures or values.
        task: what is learnt.

    Raises:
        ConfigError: the method, one of its settings or the backbone's name is unknown.
    """
    import torch

    from monai_fedlora.engines.frozen import frozen_part
    from monai_fedlora.methods.base import Phase, get_method
    from monai_fedlora.methods.build import UNTRAINED, build_network

    chosen = get_method(method, method_args)
    with torch.device("meta"):
        network = build_network(
            size=size,
            out_chans=task.outputs(names),
            backbone=UNTRAINED,
            method=method,
            method_args=method_args,
            masks=task.gives_masks,
        )
    scope = chosen.scope(network, wire_dtype="float16")
    state = network.state_dict()
    whole = Phase(share=1.0, trains=lambda key: True)
    shared, private = (sum(state[key].numel() for key in scope.keys(role)) for role in (Role.SHARED, Role.PRIVATE))
    return Facts(
        bytes_up=scope.manifest.up.nbytes,
        bytes_down=scope.manifest.down.nbytes,
        shared=shared,
        private=private,
        private_head=any(key.startswith(network.head_prefixes) for key in scope.keys(Role.PRIVATE)),
        has_shared_model=chosen.shared_only(network) is not None,
        can_keep_features=frozen_part(network) is not None,
        phases=tuple(
            PhaseFacts(
                share=phase.share,
                shared=any(map(phase.trains, scope.keys(Role.SHARED))),
                private=any(map(phase.trains, scope.keys(Role.PRIVATE))),
            )
            for phase in chosen.phases(network) or (whole,)
        ),
    )
