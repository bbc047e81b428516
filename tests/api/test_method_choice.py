"""From the words of a researcher to a method and the places where it goes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from torch import nn

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.layers import Layers


@pytest.mark.parametrize("name", method_names())
def test_a_method_without_settings_is_the_registered_one(name: str) -> None:
    choice = fl.method(name)
    assert choice.method == get_method(name)
    assert choice.layers is None


@pytest.mark.parametrize(
    ("words", "settings", "layers"),
    [
        ({"targets": r"blocks\.\d\.attn"}, {}, Layers(targets=r"blocks\.\d\.attn")),
        ({"targets": ["q", "fc1"]}, {"targets": ("q", "fc1")}, None),
        ({"targets": ("layer.7.fc",)}, {"targets": ("layer.7.fc",)}, None),
        ({"blocks": 3}, {"blocks": 3}, None),
        ({"blocks": "encoder.layer"}, {}, Layers(blocks="encoder.layer")),
        ({"head": "private"}, {"head": "private"}, None),
        ({"head": "classifier"}, {}, Layers(head=("classifier",))),
        ({"head": ("one", "two")}, {}, Layers(head=("one", "two"))),
        ({"head": "classifier", "share_head": False}, {"head": "private"}, Layers(head=("classifier",))),
        ({"share_head": True}, {"head": "shared"}, None),
        ({"rank": 3, "alpha": 6.0}, {"rank": 3, "alpha": 6.0}, None),
    ],
    ids=str,
)
def test_words_become_settings_or_places(words: dict[str, Any], settings: dict[str, Any], layers: Any) -> None:
    choice = fl.method("dual_lora", **words)
    assert choice.method == get_method("dual_lora", settings)
    assert choice.layers == layers


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("dual_lroa", {}, "dual_lora"),
        ("dual_lora", {"rnak": 3}, "rank"),
        ("dual_lora", {"targets": "blocks.("}, "no regular expression"),
        ("dual_lora", {"targets": []}, "targets"),
        ("dual_lora", {"targets": ""}, "targets"),
        ("dual_lora", {"head": ["classifier", 3]}, "head holds 3"),
        ("dual_lora", {"head": "private", "share_head": True}, "share_head"),
        ("linear_probe", {"targets": "blocks.*"}, "adapts no layers"),
        ("fedavg", {"targets": ["q"]}, "targets"),
        ("fedper", {"share_head": True}, "private"),
        ("dual_lora", {"batch_size": 4}, "setting of training.*fl.federate"),
    ],
)
def test_bad_words_are_refused(name: str, words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fl.method(name, **words)


class HeadCalled(nn.Sequential):
    """A network whose head has one of the two words for a name."""

    def __init__(self, word: str) -> None:
        super().__init__(OrderedDict([("first", nn.Linear(4, 4)), (word, nn.Linear(4, 2))]))


@pytest.mark.parametrize("word", ["shared", "private"])
def test_a_head_called_as_what_may_happen_to_it_is_never_taken_for_that(word: str) -> None:
    with pytest.raises(ConfigError, match="the network has a layer of that name: rename the layer"):
        fl.attach(HeadCalled(word), fl.method("fedit", targets="first", head=word))
    with pytest.raises(ConfigError, match=f"head is 'top.{word}'.*rename the layer"):
        fl.method("fedit", targets="first", head=[f"top.{word}"], share_head=True)
    assert fl.attach(HeadCalled("head"), fl.method("fedit", targets="first", head="shared")).shared()
