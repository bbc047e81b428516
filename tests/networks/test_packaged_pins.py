"""Plans pin weights of this and of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.errors import WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks import catalogue
from monai_fedlora.networks.catalogue import demo_weights, pinned_demo_weights
from monai_fedlora.networks.cinema import convvit
from monai_fedlora.networks.weights import backbone_sha256


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of size ``tiny`` of an earlier version, beside today's."""
    paths = [tmp_path / "today.safetensors", tmp_path / "earlier.safetensors"]
    for path in paths:
        save_tensors(path, dict(convvit("tiny", out_chans=2).state_dict()), {})
    monkeypatch.setattr(catalogue, "weights_path", lambda name: tmp_path / name)
    monkeypatch.setitem(catalogue._DEMO_FILES, "tiny", tuple(path.name for path in paths))
    return paths[1]


def test_a_new_plan_gets_the_weights_of_today(earlier: Path) -> None:
    assert demo_weights("tiny") == earlier.with_name("today.safetensors")


def test_a_plan_that_pins_earlier_weights_gets_them(earlier: Path) -> None:
    pin = backbone_sha256(earlier)
    assert pinned_demo_weights("tiny", pin) == earlier
    by_pin = build_network(size="tiny", out_chans=2, backbone_sha256=pin, method="fedavg").state_dict()
    given = build_network(size="tiny", out_chans=2, backbone=str(earlier), method="fedavg").state_dict()
    assert all(by_pin[key].equal(value) for key, value in given.items())


def test_a_pin_of_other_weights_is_refused_with_the_file_that_was_tried(earlier: Path) -> None:
    assert pinned_demo_weights("tiny", "0" * 64) is None
    with pytest.raises(WeightsError, match="today"):
        build_network(size="tiny", out_chans=2, backbone_sha256="0" * 64, method="fedavg")
