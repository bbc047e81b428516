"""A network of one's own that can be cut between its blocks, without a change of its code.

The part before a block runs the network's own ``forward`` until it calls that block, and stops there. The part from a
block on runs ``forward`` on an image of zeros, in which the blocks before the cut hand on what they were given and the
block at the cut gets the kept tokens; what lies in front of the blocks, such as the patch embedding, then computes for
nothing, for one image. This is right only where nothing but the blocks' first argument carries the image past the cut.
The first use of a cut compares both ways on random images and refuses a network in which something else does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features, Taps
from monai_fedlora.networks.layers import block_lists, module_called, roles_of
from monai_fedlora.networks.opened import INSIDE, OpenedNetwork, evaluating, logits_of, random_images
from monai_fedlora.out_of_memory import tell_out_of_memory

_RTOL, _ATOL = 1e-5, 1e-6


@dataclass
class _Learned:
    """What the first use of a network's cuts showed, which is no setting of the network.

    Attributes:
        lengths: how many values a block returns where it returns a tuple, by the block's number; None for a tensor.
        one_image: whether the part in front of the blocks may run for one image instead of a batch.
        cuts: the blocks before which the network was found to be one that can be cut.
    """

    lengths: dict[int, int | None] = field(default_factory=dict)
    one_image: bool = True
    cuts: set[int] = field(default_factory=set)


_LEARNED: WeakKeyDictionary[nn.Module, _Learned] = WeakKeyDictionary()


class _Stop(Exception):
    """The network has come to the block where it is cut."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


@dataclass(frozen=True)
class _Call:
    """One call of a block by the network."""

    number: int
    forward: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def tokens(self) -> Any:
        """Its first argument."""
        return self.arguments[0] if self.arguments else next(iter(self.named.values()), None)

    def run(self, tokens: Tensor | None = None) -> Any:
        """What the block makes of its arguments, or of other tokens in the place of the first one."""
        if tokens is None:
            return self.forward(*self.arguments, **self.named)
        if self.arguments:
            return self.forward(tokens, *self.arguments[1:], **self.named)
        return self.forward(**{**self.named, next(iter(self.named)): tokens})


@contextmanager
def _instead(blocks: Iterable[nn.Module], do: Callable[[_Call], Any]) -> Iterator[None]:
    """Let ``do`` run in the place of these blocks' ``forward``."""

    def called(number: int, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return do(_Call(number, forward, arguments, named))

    changed = [(block, vars(block).get("forward")) for block in blocks]
    try:
        for number, (block, _) in enumerate(changed):
            block.forward = partial(called, number, block.forward)
        yield
    finally:
        for block, own in changed:
            del block.forward
            if own is not None:
                block.forward = own


class BlockedNetwork(OpenedNetwork):
    """A network of one's own whose list of blocks is named: a :class:`~monai_fedlora.networks.backbone.Backbone`.

    Args:
        module, head: see :class:`~monai_fedlora.networks.opened.OpenedNetwork`.
        blocks: dotted name of the ``nn.ModuleList`` or ``nn.Sequential`` of the blocks, in the order they run.

    Attributes:
        target_names: the path inside the first block of the layer that plays a role.
        reads_class_token_alone: always False: what the readout takes is not known.

    Raises:
        ConfigError: there is no such list (the nearest names are given); see also :class:`OpenedNetwork`.
    """

    reads_class_token_alone = False

    def __init__(self, module: nn.Module, *, head: Sequence[str] = (), blocks: str) -> None:
        super().__init__(module, head=head)
        found = module_called(module, blocks, what="blocks", among=block_lists(module))
        if not isinstance(found, (nn.ModuleList, nn.Sequential)) or not len(found):
            raise ConfigError(
                f"blocks is {blocks!r}, a {type(found).__name__}; name an nn.ModuleList or nn.Sequential that is not "
                f"empty, such as {' or '.join(block_lists(module)) or 'encoder.layers'}"
            )
        self._list = f"{INSIDE}{blocks}"
        self.target_names = _roles(found[0])

    @property
    def blocks(self) -> Any:
        """The blocks, in the order they run."""
        return self.get_submodule(self._list)

    def block_name(self, block: int) -> str:
        """The dotted path of a block."""
        return f"{self._list}.{list(self.blocks._modules)[block]}"

    def embed(self, x: Tensor) -> Features:
        """The input of block 0."""
        return self.prefix(x, 0)

    def readout(self, features: Features) -> Tensor:
        """Logits from the output of the last block."""
        return self.suffix(features, len(self.blocks))

    def prefix(self, x: Tensor, block: int) -> Features:
        """The input of a block, or the output of the last one, for images (B, ...).

        Nothing is added behind the blocks: the addend is (B, 0, ...), empty, and tells the shape of the images.

        Raises:
            ConfigError: there is no such block, or the network cannot be cut there.
        """
        self._check(x, block)
        return Features(self._stopped(x, block), _nothing(x))

    def suffix(self, features: Features, block: int) -> Tensor:
        """Logits from what :meth:`prefix` gave.

        Raises:
            ConfigError: see :meth:`prefix`.
        """
        self._check(features.tokens.new_empty(1, *features.addend.shape[2:]), block)
        return self._resumed(features, block)

    @torch.no_grad()
    def taps(self, x: Tensor) -> Taps:
        """The inputs of all blocks, without an autograd graph; the last block does not run."""
        last = len(self.blocks) - 1
        self._check(x, last)
        hidden: list[Tensor] = []
        self._stopped(x, last, hidden)
        return Taps(tuple(hidden), _nothing(x))

    def forward(self, x: Tensor | Features | Taps, block: int = 0) -> Tensor:
        """Logits of images (B, ...), or of what :meth:`prefix` (of the same ``block``) or :meth:`taps` made of them."""
        if isinstance(x, Features):
            return self.suffix(x, block)
        if self.side is not None:
            logits: Tensor = self.side(self, x if isinstance(x, Taps) else self.taps(x))
            return logits
        if isinstance(x, Taps):
            raise ConfigError("the inputs of all blocks are of use to a network with a side network alone")
        return super().forward(x)

    def _stopped(self, x: Tensor, block: int, passed: list[Tensor] | None = None) -> Tensor:
        """Run the module until it is at ``block``, or behind the last one; ``passed`` gets the input of every block."""
        depth = len(self.blocks)

        def step(call: _Call) -> Any:
            if passed is not None:
                passed.append(call.tokens)
            if call.number == block:
                raise _Stop(call.tokens)
            output = call.run()
            if call.number == block - 1 == depth - 1:
                raise _Stop(_tokens_of(output))
            return output

        with _instead(self.blocks, step):
            try:
                self.module(x)
            except _Stop as stop:
                return stop.tokens
        raise ConfigError(f"the network never runs {self.block_name(min(block, depth - 1))}, so that it cannot be cut")

    def _resumed(self, features: Features, block: int) -> Tensor:
        """Run the module from ``block`` on."""
        learned, depth, batch = _LEARNED[self], len(self.blocks), len(features.tokens)

        def step(call: _Call) -> Any:
            if call.number == block:
                return call.run(features.tokens)
            if call.number > block:
                return call.run()
            tokens = features.tokens if call.number == depth - 1 else call.tokens
            length = learned.lengths[call.number]
            return tokens if length is None else (tokens, *[None] * (length - 1))

        zeros = features.tokens.new_zeros(1 if learned.one_image else batch, *features.addend.shape[2:])
        with _instead(self.blocks, step):
            return logits_of(self.module(zeros), batch=batch)

    def _check(self, like: Tensor, block: int) -> None:
        """Refuse a cut that changes what the network computes; the result is remembered."""
        if not 0 <= block <= len(self.blocks):
            raise ConfigError(f"block {block} lies outside 0..{len(self.blocks)}, the depth of this network")
        learned = _LEARNED.setdefault(self, _Learned())
        if block in learned.cuts:
            return
        images = random_images(like, 2)
        with torch.no_grad(), evaluating(self):
            whole = self._observed(images, learned)
            features = Features(self._stopped(images, block), _nothing(images))
            reason = self._difference(whole, features, block)
            if reason and learned.one_image:
                learned.one_image = False
                reason = self._difference(whole, features, block)
        if reason:
            raise ConfigError(
                f"the network cannot be cut before block {block} of {self._list.removeprefix(INSIDE)!r}: {reason}. "
                "Leave blocks=... out, and it trains as a whole"
            )
        learned.cuts.add(block)

    def _observed(self, images: Tensor, learned: _Learned) -> Tensor:
        """The logits of images; notes what blocks return, and refuses those that do not run once, one by one."""
        order: list[int] = []

        def watch(call: _Call) -> Any:
            order.append(call.number)
            output = call.run()
            learned.lengths[call.number] = len(output) if isinstance(output, tuple) else None
            if not isinstance(call.tokens, Tensor) or not isinstance(_tokens_of(output), Tensor):
                raise ConfigError(
                    f"{self.block_name(call.number)} makes a {type(_tokens_of(output)).__name__} of a "
                    f"{type(call.tokens).__name__}; blocks between which a network is cut make a tensor of a tensor"
                )
            return output

        with _instead(self.blocks, watch):
            whole = logits_of(self.module(images), batch=len(images))
        if order != list(range(len(self.blocks))):
            raise ConfigError(
                f"the network runs the blocks of {self._list.removeprefix(INSIDE)!r} in the order {order}, not each "
                "once, one after the other, so that it cannot be cut between them"
            )
        return whole

    def _difference(self, whole: Tensor, features: Features, block: int) -> str | None:
        """Why the rest of the network does not give the same logits; None where it does."""
        try:
            again = self._resumed(features, block)
        except Exception as error:
            tell_out_of_memory(error, "trying the network's blocks on one image")
            return f"without what came before, it fails with {type(error).__name__}: {error}"
        if again.shape == whole.shape and torch.allclose(again, whole, rtol=_RTOL, atol=_ATOL):
            return None
        return (
            "cut there, its logits for a random image are others. Something beside the block's input carries the image "
            "past it, such as a skip connection around blocks or an argument that depends on the image"
        )


def _tokens_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _nothing(images: Tensor) -> Tensor:
    return images.new_empty(len(images), 0, *images.shape[1:])


def _roles(block: nn.Module) -> dict[str, str]:
    """The path of the first layer of a block that plays each role."""
    paths: dict[str, str] = {}
    for path, module in block.named_modules():
        if isinstance(module, nn.Linear):
            for role in roles_of(path):
                paths.setdefault(role, path)
    return paths
