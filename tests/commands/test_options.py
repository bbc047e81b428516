"""Settings as they are typed: every value of every setting is taken or refused in a line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.commands.options import parse_settings
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import save_tensors, sha256
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.pinned import pin_backbone
from tests.helpers import make_plan

FIELDS = [(name, field) for name in method_names() for field in dataclasses.fields(type(get_method(name)))]
LISTS = [(name, field.name) for name, field in FIELDS if isinstance(field.default, tuple)]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 0, 1, 2])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["q", "shared", "private", "R", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2,8", [2, 8]),
        ("[2,8]", [2, 8]),
        ("2,", [2]),
        ("q,v", ["q", "v"]),
        ("q,", ["q"]),
        ("0.5,1", [0.5, 1]),
        ("attn.q,3", ["attn.q", 3]),
        ("5", 5),
        ("q", "q"),
        ("", ""),
        (",", [""]),
        ("null", None),
        ("true", True),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_json_or_a_list_at_commas_or_a_word(text: str, value: Any) -> None:
    assert parse_settings([f"name={text}"]) == {"name": value}


@pytest.mark.parametrize(("method", "setting"), LISTS)
def test_a_list_valued_setting_takes_a_list_at_commas_and_names_itself_otherwise(method: str, setting: str) -> None:
    default = getattr(get_method(method), setting)
    typed = "q,v" if default and isinstance(default[0], str) else "2,8"
    typed_settings = parse_settings([f"{setting}={typed}"])
    wanted = ("q", "v") if typed == "q,v" else (2, 8)
    assert getattr(get_method(method, typed_settings), setting) == wanted
    for single in ("5", "q", "true", "null", "0.5", '{"a": 1}'):
        with pytest.raises(ConfigError, match=rf"^{setting} is .*takes a list"):
            get_method(method, parse_settings([f"{setting}={single}"]))


def try_out(method: str, setting: str, value: Any) -> None:
    """Build the method and a plan of it, or be refused in words."""
    try:
        built = get_method(method, {setting: value})
        make_plan(method=method, method_args={setting: value}).fingerprint  # noqa: B018
    except ConfigError as error:
        assert str(error)
        return
    assert dataclasses.asdict(built)


@pytest.mark.parametrize(
    "value", [5, -1, "5", [], [[1]], [None], [""], {}, True, None, float("nan"), 10**400, [10**400]]
)
def test_no_setting_of_any_method_fails_on_a_strange_value(value: Any) -> None:
    for method, field in FIELDS:
        try_out(method, field.name, value)


@settings(max_examples=300)
@given(st.sampled_from(FIELDS), VALUES)
def test_no_value_of_any_setting_ends_in_anything_but_a_method_or_a_refusal(field: Any, value: Any) -> None:
    try_out(field[0], field[1].name, value)


@given(st.sampled_from(FIELDS), st.text(st.characters(codec="ascii"), max_size=12))
def test_nothing_that_is_typed_ends_in_anything_but_a_method_or_a_refusal(field: Any, text: str) -> None:
    method, known = field
    try:
        get_method(method, parse_settings([f"{known.name}={text}"]))
    except ConfigError as error:
        assert str(error)


# ---- a backbone to pin -----------------------------------------------------------------------------------


def test_what_is_pinned_is_the_hash_of_a_file_that_fits() -> None:
    for size in ("small", "vit_demo", "clip_demo"):
        path = demo_weights(size)
        assert pin_backbone(size, str(path), texts=size == "clip_demo") == sha256(path)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "vit_demo"])
@pytest.mark.parametrize("kind", ["junk", "empty", "other size", "other family", "one tensor less", "not finite"])
def test_a_file_that_no_site_could_load_is_not_pinned(tmp_path: Path, size: str, kind: str) -> None:
    path = tmp_path / "w.safetensors"
    if kind in ("junk", "empty"):
        path.write_bytes(b"junk" * (kind == "junk"))
    else:
        other = {"other size": {"small": "tiny", "vit_demo": "vit_small_16"}[size]}
        other["other family"] = {"small": "vit_demo", "vit_demo": "small"}[size]
        network = build_backbone(other.get(kind, size), out_chans=2)
        state = {key: value for key, value in network.state_dict().items() if not key.startswith(network.head_prefixes)}
        if kind == "one tensor less":
            state.popitem()
        if kind == "not finite":
            state[next(key for key in state if key.endswith("blocks.0.mlp.fc1.weight"))][0, 0] = float("nan")
        save_tensors(path, state)
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        pin_backbone(size, str(path))


def test_a_checkpoint_without_a_text_tower_is_not_pinned_for_a_method_that_reads_texts(tmp_path: Path) -> None:
    network = build_backbone("clip_demo", out_chans=2)
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(network.head_prefixes)}
    save_tensors(tmp_path / "w.safetensors", state)
    assert pin_backbone("clip_demo", str(tmp_path / "w.safetensors"))
    with pytest.raises((WeightsError, ConfigError)):
        pin_backbone("clip_demo", str(tmp_path / "w.safetensors"), texts=True)


def test_looking_at_a_backbone_takes_no_random_number_and_no_network_of_its_size() -> None:
    before = torch.random.get_rng_state()
    pin_backbone("vit_demo", str(demo_weights("vit_demo")))
    assert torch.equal(torch.random.get_rng_state(), before)
