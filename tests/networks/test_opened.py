"""Any module as a network: its logits, its head, and the same numbers as the module alone."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.opened import OpenedNetwork, evaluating, logits_of
from tests.own_networks import OWN, Own

LOGITS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, [torch.ones(3, 4)]),
        [LOGITS],
        {"loss": None, "logits": LOGITS},
        OrderedDict(logits=LOGITS),
        SimpleNamespace(logits=LOGITS),
    ],
    ids=["tensor", "tuple", "list", "dict", "ordered", "object"],
)
def test_logits_are_found_in_what_networks_return(output: Any) -> None:
    assert logits_of(output, batch=3) is LOGITS


@pytest.mark.parametrize(
    ("output", "described"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), "int64 tensor of shape"),
        (torch.zeros(3), "tensor of shape"),
        (torch.zeros(4, 2), "tensor of shape"),
        ((), "empty tuple"),
        ((torch.zeros(3), LOGITS), "tuple that begins with"),
        ({"prediction": LOGITS}, "dict with prediction"),
        (SimpleNamespace(prediction=LOGITS), "SimpleNamespace"),
        (None, "NoneType"),
        ("logits", "str"),
        ([[LOGITS]], "list that begins with"),
    ],
    ids=str,
)
def test_what_is_no_logits_is_described(output: Any, described: str) -> None:
    with pytest.raises(ConfigError, match=rf"no logits, but .*{described}.*\(3, classes\)"):
        logits_of(output, batch=3)


@torch.no_grad()
@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_an_opened_network_gives_the_modules_logits(own: Own) -> None:
    module, images = own.network(), own.images()
    opened = OpenedNetwork(module, head=[own.head])
    assert torch.equal(opened(images), logits_of(own.network()(images), batch=2))
    assert opened.module is module
    assert list(opened.state_dict()) == [f"module.{key}" for key in module.state_dict()]
    assert opened.head_prefixes == (f"module.{own.head}.",)
    assert not is_backbone(opened)


def test_a_head_that_is_not_there_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"'clasifier'.*nearest are classifier"):
        OpenedNetwork(OWN["cnn"].network(), head=["clasifier"])
    with pytest.raises(ConfigError, match=r"drop.*no parameters"):
        OpenedNetwork(OWN["cnn"].network(), head=["drop"])


def test_what_is_no_module_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"function.*torch\.nn\.Module"):
        OpenedNetwork(lambda x: x)  # type: ignore[arg-type]


def test_modes_come_back_after_an_evaluation() -> None:
    network: nn.Module = OWN["cnn"].network().train()
    network.get_submodule("body").eval()
    before = [module.training for module in network.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise ZeroDivisionError
    assert [module.training for module in network.modules()] == before
