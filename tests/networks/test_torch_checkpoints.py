"""Checkpoints of ``torch.save``: read without running code, or refused with what to do."""

from __future__ import annotations

import argparse
import collections
import fractions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import (
    EMPTY,
    STORED,
    assert_refused,
    assert_same,
    fuzz,
    network_of,
    state_of,
)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return ran.touch, ()

    torch.save({"model": STORED, "args": Payload()}, tmp_path / "w.pth")
    assert_refused(EMPTY, tmp_path / "w.pth", "w.pth", "could run code")
    assert not ran.exists()


@settings(fuzz, max_examples=30)
@given(share=st.floats(0, 0.999))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(STORED, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(EMPTY, path, str(path))


@settings(fuzz, max_examples=30)
@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_random_bytes_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert_refused(EMPTY, path, str(path))


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 1}}, torch.zeros(3)])
def test_a_checkpoint_without_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert_refused(EMPTY, tmp_path / "w.pt", "no tensors by name")


def test_an_old_checkpoint_equals_a_new_one(tmp_path: Path) -> None:
    states = []
    for zipped in (True, False):
        torch.save(STORED, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
        network = network_of()
        load_backbone(network, tmp_path / "w.bin")
        states.append(state_of(network))
    assert_same(*states)


class Asks:
    """What a pickle that runs a command holds."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("ran",)


@pytest.mark.parametrize("content", [{"w": Asks()}, b"junk", b"", {"w": object}])
def test_a_refused_checkpoint_is_a_line_of_plain_text(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError) as refusal:
        load_backbone(network_of(), path)
    said = str(refusal.value)
    assert said.isprintable()
    assert "trust" not in said
    assert str(path) in said
    if isinstance(content, dict) and isinstance(content["w"], Asks):
        assert "it asks for print" in said


class Holder(torch.nn.Module):
    """A network that was pickled whole."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for key, value in state.items():
            path, _, leaf = key.rpartition(".")
            module = self
            for name in path.split("."):
                if name not in module._modules:
                    module.add_module(name, torch.nn.Module())
                module = module.get_submodule(name)
            module.register_parameter(leaf, torch.nn.Parameter(value))


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"best": np.float64(0.9)}, "numpy"),
        ({"args": {"output": Path("runs")}}, "pathlib"),
        ({"state_dict": collections.defaultdict(list, STORED)}, "collections.defaultdict"),
        ({"config": fractions.Fraction(1, 2)}, "fractions.Fraction"),
        ({"state_dict": {"state": {"dict": dict(STORED), "config": fractions.Fraction(1, 2)}}}, "fractions.Fraction"),
        ({"state_dict": Holder(STORED)}, "Holder"),
    ],
    ids=["numpy scalar", "path", "defaultdict", "another class", "nested settings", "whole module"],
)
def test_a_refused_type_is_named_with_the_two_lines_that_convert_the_file(
    tmp_path: Path, beside: dict[str, Any], named: str
) -> None:
    torch.save({"state_dict": dict(STORED), "epoch": 3, **beside}, tmp_path / "best.pth")
    network = network_of()
    with pytest.raises(WeightsError, match=f"it asks for [a-z._]*{named}") as refusal:
        load_backbone(network, tmp_path / "best.pth")
    lines = str(refusal.value).rpartition("best_tensors.pth: ")[2]
    exec(lines.replace("'best", f"'{tmp_path}/best"), {"torch": torch})
    load_backbone(network, tmp_path / "best_tensors.pth")
    torch.testing.assert_close(network.norm.weight, STORED["layernorm.weight"])


def test_settings_in_a_namespace_are_no_obstacle(tmp_path: Path) -> None:
    torch.save({"model": STORED, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    load_backbone(network_of(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["last.ckpt", "checkpoint.pth.tar"])
def test_checkpoints_of_torch_are_read_under_the_names_that_trainings_give_them(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": STORED}, tmp_path / name)
    assert load_backbone(network_of(), tmp_path / name).skipped == ()


def test_a_dictionary_inside_of_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": {"state_dict": dict(STORED)}}
    content["model"]["around"] = content
    torch.save(content, tmp_path / "w.pth")
    assert_refused(EMPTY, tmp_path / "w.pth", "w.pth", "lies inside of itself, below 'model.around'")


def test_one_dictionary_under_two_names_is_no_such_case(tmp_path: Path) -> None:
    settings = {"lr": 0.1}
    torch.save({"state_dict": STORED, "args": settings, "config": settings}, tmp_path / "w.pth")
    load_backbone(network_of(), tmp_path / "w.pth")
