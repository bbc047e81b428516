"""Training mode for the parts that train, evaluation mode for the frozen rest."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def set_training_mode(network: nn.Module) -> list[nn.Module]:
    """Put the trainable parts of ``network`` in training mode and everything else in evaluation mode.

    In training mode are: every module all of whose parameters train, with its children; every module that
    owns a trainable parameter itself; and the dropout of a low-rank adapter of which a factor trains (PEFT keeps
    it in ``lora_dropout`` beside ``lora_A`` and ``lora_B``). Dropout, stochastic depth and running statistics of a
    frozen backbone therefore stay off. Batch normalisation with running statistics is always in evaluation mode: these
    are buffers, which neither train nor travel.

    Returns:
        The modules that are in training mode.
    """
    network.eval()
    _train_inside(network)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.eval()
    return [module for module in network.modules() if module.training]


def modes_of(network: nn.Module) -> list[bool]:
    """Modes of all modules and whether each parameter trains: equal again only where none of it has changed."""
    found: list[bool] = []
    left: list[nn.Module | None] = [network]
    while left:
        if (module := left.pop()) is not None:
            found.append(module.training)
            found += [parameter.requires_grad for parameter in module._parameters.values() if parameter is not None]
            left += module._modules.values()
    return found


def _train_inside(module: nn.Module) -> tuple[bool, bool]:
    """Set the modes below and in ``module``; return whether any and whether all of its parameters train."""
    own = [parameter.requires_grad for parameter in module._parameters.values() if parameter is not None]
    below = [_train_inside(child) for child in module.children()]
    any_trains = any(own) or any(child[0] for child in below)
    all_train = all(own) and all(child[1] for child in below)
    if any_trains and all_train:
        module.train()
    elif any(own):
        module.training = True
    dropouts = getattr(module, "lora_dropout", None)
    factors = [part for part in (getattr(module, f"lora_{ab}", None) for ab in "AB") if isinstance(part, nn.ModuleDict)]
    if isinstance(dropouts, nn.ModuleDict):
        for name, dropout in dropouts.items():
            if any(p.requires_grad for part in factors if name in part for p in part[name].parameters()):
                dropout.train()
    return any_trains, all_train
