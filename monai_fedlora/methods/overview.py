"""All registered methods with what they train and send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from monai_fedlora.errors import FedLoraError
from monai_fedlora.methods.base import METHODS, get_method
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.catalogue import architecture


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method with its default settings on a backbone.

    Attributes:
        name: of the method.
        summary: what it does.
        source: the paper, and the package that adds it.
        problem: why it cannot be used here; empty where it can.
        fits: whether the backbone is of a kind that it works with.
        trained: numbers that train; None where it does not fit.
        shared, bytes_up, bytes_down: numbers that go up in a round, and bytes in float16 that go up and come down; None
            where it does not fit, or sends nothing.
    """

    name: str
    summary: str = ""
    source: str = ""
    problem: str = ""
    fits: bool = True
    trained: int | None = None
    shared: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None


def method_facts(*, size: str, classes: int) -> Iterator[MethodFacts]:
    """Every registered method, in order.

    Args:
        size: a backbone's name.
        classes: their number.

    Raises:
        ConfigError: there is no such backbone.
    """
    reads_text = architecture(size).text is not None
    for name in METHODS.names():
        try:
            method, plugin = get_method(name), METHODS.plugin(name)
        except FedLoraError as error:  # of one plug-in
            yield MethodFacts(name=name, problem=str(error))
            continue
        source = f"{method.source}; added by {plugin.distribution} {plugin.version}" if plugin else method.source
        if method.reads_text and not reads_text:
            yield MethodFacts(name=name, summary=method.summary, source=source, fits=False)
            continue
        with torch.device("meta"):
            network = build_network(size=size, out_chans=classes, backbone=UNTRAINED, method=name)
        trained = {key: p.numel() for key, p in network.named_parameters() if p.requires_grad}
        manifest = method.scope(network, wire_dtype="float16").manifest
        sends = method.most_sites != 1
        yield MethodFacts(
            name=name,
            summary=method.summary,
            source=source,
            trained=sum(trained.values()),
            shared=sum(trained[key] for key in manifest.up.entries) if sends else None,
            bytes_up=manifest.up.nbytes if sends else None,
            bytes_down=manifest.down.nbytes if sends else None,
        )
