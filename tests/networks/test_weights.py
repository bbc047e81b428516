from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.weights import load_backbone

REFERENCE = os.environ.get("MONAI_FEDLORA_REFERENCE")

POSITION = "enc_down_dict.sax.pos_embed"
FIRST_CONV = "enc_down_dict.sax.conv_blocks.0.patch_embed.conv.weight"
HEADS = {f"pred_head_dict.{name}.{kind}" for name in ("sax", "cls") for kind in ("weight", "bias")}


def build(*, seed: int = 0, image_size=(8, 8, 2), n_frames: int = 2, out_chans: int = 2) -> ConvViT:
    torch.manual_seed(seed)
    return ConvViT(
        image_size=image_size,
        n_frames=n_frames,
        out_chans=out_chans,
        patch_size=(2, 2, 1),
        scale_factor=(2, 2, 1),
        conv_chans=(2,),
        conv_n_blocks=1,
        embed_dim=12,
        depth=1,
        n_heads=2,
    )


def state_of(network: ConvViT) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def auto_encoder_state() -> dict[str, torch.Tensor]:
    """A pre-trained file of one frame per image and several views, with the keys of CineMA's auto-encoder."""
    state = {key: value for key, value in state_of(build(seed=5, n_frames=1)).items() if key not in HEADS}
    for view in ("lax_2c", "lax_4c"):
        state[f"enc_down_dict.{view}.linear.weight"] = torch.randn(12, 12)
        state[f"enc_fusion_dict.{view}.norm.weight"] = torch.randn(12)
        state[f"enc_down_dict.{view}.pos_embed"] = torch.randn(1, 4, 12)
    for key in ("dec_linear.weight", "decoder.blocks.0.norm1.weight", "decoder.norm.bias"):
        state[key] = torch.randn(6)
    state["dec_embed_dict.sax.mask_token"] = torch.randn(1, 1, 6)
    state["dec_embed_dict.sax.pos_embed"] = torch.randn(1, 8, 6)
    state["pred_head_dict.sax.weight"] = torch.randn(16, 6)
    return state


def write(folder: Path, state: dict[str, torch.Tensor], name: str = "weights.safetensors") -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, folder / name)
    return folder / name


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# ---- classifier files ----------------------------------------------------------------------------------


def test_a_classifier_file_is_loaded_whole(tmp_path: Path) -> None:
    source, network = build(seed=1), build(seed=2)
    path = write(tmp_path, source.state_dict())
    info = load_backbone(network, path)
    assert_same(state_of(network), state_of(source))
    assert (info.n_loaded, info.layout, info.heads, info.skipped) == (
        len(source.state_dict()),
        "classifier",
        True,
        (),
    )
    assert info.path == path
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("out_chans", "heads"), [(5, True), (2, False)])
def test_heads_that_do_not_fit_or_are_not_wanted_are_kept_and_reported(
    tmp_path: Path, out_chans: int, heads: bool
) -> None:
    source, network = build(seed=1), build(seed=2, out_chans=out_chans)
    before = state_of(network)
    info = load_backbone(network, write(tmp_path, source.state_dict()), heads=heads)
    expected = {**state_of(source), **{key: before[key] for key in HEADS}}
    assert_same(state_of(network), expected)
    assert not info.heads
    assert set(info.skipped) == HEADS


def test_one_missing_head_leaves_all_heads_alone(tmp_path: Path) -> None:
    source, network = state_of(build(seed=1)), build(seed=2)
    del source["pred_head_dict.cls.bias"]
    before = state_of(network)
    assert not load_backbone(network, write(tmp_path, source)).heads
    assert_same({key: network.state_dict()[key] for key in HEADS}, {key: before[key] for key in HEADS})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    source, network = build(seed=1), build(seed=2)
    load_backbone(network, write(tmp_path, {key: value.to(dtype) for key, value in source.state_dict().items()}))
    assert_same(state_of(network), {key: value.to(dtype).float() for key, value in source.state_dict().items()})


def test_positions_of_another_image_size_are_interpolated(tmp_path: Path) -> None:
    source, network = build(seed=1, image_size=(16, 8, 3)), build(seed=2)
    load_backbone(network, write(tmp_path, source.state_dict()))
    x = torch.randn(1, 2, 8, 8, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), source(x))


def test_positions_of_a_grid_with_as_many_tokens_are_interpolated(tmp_path: Path) -> None:
    source, network = build(seed=1, image_size=(16, 4, 2)), build(seed=2)
    load_backbone(network, write(tmp_path, source.state_dict()))
    x = torch.randn(1, 2, 8, 8, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), source(x))


def test_positions_of_no_known_grid_are_taken_only_as_they_are(tmp_path: Path) -> None:
    state = state_of(build(seed=1))
    state[POSITION] = torch.randn(1, 8, 12)
    network = build(seed=2)
    load_backbone(network, write(tmp_path, state))
    assert_same({"p": network.stem.pos_embed}, {"p": state[POSITION]})
    with pytest.raises(WeightsError, match=r"pos_embed has 8 positions, the network 16"):
        load_backbone(build(image_size=(16, 8, 2)), write(tmp_path, state))


# ---- pre-trained files ---------------------------------------------------------------------------------


def test_an_auto_encoder_gives_its_encoder_and_repeats_the_first_convolution(tmp_path: Path) -> None:
    state, network = auto_encoder_state(), build(seed=2)
    before = state_of(network)
    info = load_backbone(network, write(tmp_path, state))
    after = state_of(network)
    assert (info.layout, info.heads) == ("pretrained", False)
    for key, value in after.items():
        if key in HEADS or key == POSITION:
            expected = before[key]
        elif key == FIRST_CONV:
            expected = torch.cat([state[key], state[key]], dim=1)
        else:
            expected = state[key]
        assert_same({key: value}, {key: expected})
    assert info.n_loaded == len(after) - len(HEADS) - 1
    assert set(info.skipped) == {
        key for key in state if "lax" in key or "dec" in key or "head" in key or "pos_embed" in key
    }


def test_a_file_without_heads_is_a_pretrained_one(tmp_path: Path) -> None:
    state = {key: value for key, value in state_of(build(seed=1)).items() if key not in HEADS}
    network = build(seed=2)
    info = load_backbone(network, write(tmp_path, state))
    assert info.layout == "pretrained"
    assert_same({key: network.state_dict()[key] for key in state}, state)


def test_a_classifier_of_another_number_of_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="number of frames"):
        load_backbone(build(), write(tmp_path, build(n_frames=1).state_dict()))


# ---- refusals: the file and the keys are named, the network is untouched --------------------------------


def assert_refused(network: ConvViT, path: Path, *names: str, **options) -> None:
    before = state_of(network)
    with pytest.raises(WeightsError) as caught:
        load_backbone(network, path, **options)
    for name in (str(path), *names):
        assert name in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


BACKBONE_KEYS = sorted(build().state_dict().keys() - HEADS - {POSITION})
EMPTY = build()
"""For files that are refused, which leave it alone."""
FILES = {False: state_of(build(seed=1)), True: auto_encoder_state()}
"""What a fine-tuned and a pre-trained file hold."""
fuzz = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(key=st.sampled_from(BACKBONE_KEYS), pretrained=st.booleans())
def test_a_missing_key_is_named(tmp_path: Path, key: str, pretrained: bool) -> None:
    state = dict(FILES[pretrained])
    del state[key]
    assert_refused(EMPTY, write(tmp_path, state), key)


@fuzz
@given(
    name=st.text("abcxyz._0", min_size=1, max_size=20).map(lambda name: f"encoder.{name}"),
    pretrained=st.booleans(),
)
def test_an_extra_key_is_named(tmp_path: Path, name: str, pretrained: bool) -> None:
    state = dict(FILES[pretrained])
    state[name] = torch.zeros(2)
    assert_refused(EMPTY, write(tmp_path, state), name)


@fuzz
@given(key=st.sampled_from(BACKBONE_KEYS), pretrained=st.booleans(), data=st.data())
def test_a_wrong_shape_is_named(tmp_path: Path, key: str, pretrained: bool, data: st.DataObject) -> None:
    state = dict(FILES[pretrained])
    axis = data.draw(st.integers(0, state[key].ndim - 1))
    state[key] = torch.cat([state[key]] * 3, dim=axis)
    assert_refused(EMPTY, write(tmp_path, state), key, str(tuple(state[key].shape)))


@fuzz
@given(key=st.sampled_from(BACKBONE_KEYS), bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, key: str, bad: float) -> None:
    state = {**FILES[False], key: FILES[False][key].clone()}
    state[key].view(-1)[-1] = bad
    assert_refused(EMPTY, write(tmp_path, state), key)


def test_integers_are_refused(tmp_path: Path) -> None:
    state = state_of(build(seed=1))
    state["encoder.norm.weight"] = torch.ones(12, dtype=torch.int32)
    assert_refused(EMPTY, write(tmp_path, state), "encoder.norm.weight", "I32")


WHOLE_FILE = save(state_of(build(seed=1)))


@settings(fuzz, max_examples=40)
@given(length=st.integers(0, len(WHOLE_FILE) - 1))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WHOLE_FILE[:length])
    assert_refused(EMPTY, path)


@pytest.mark.slow
@settings(fuzz, max_examples=80)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_loads_whole(tmp_path: Path, position: int, value: int) -> None:
    """The header is the first part of the file; damage to the values alone can only be found by the pin."""
    damaged = bytearray(WHOLE_FILE)
    damaged[position] = value
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)
    network = build()
    before = state_of(network)
    message = None
    try:
        load_backbone(network, path)
    except WeightsError as error:
        message = str(error)
    if message is not None:
        assert str(path) in message
        assert_same(state_of(network), before)
    if damaged != WHOLE_FILE:
        assert_refused(EMPTY, path, sha256=hashlib.sha256(WHOLE_FILE).hexdigest())


@settings(fuzz, max_examples=40)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert_refused(EMPTY, path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(build().state_dict(), tmp_path / "weights.pt")
    assert_refused(EMPTY, tmp_path / "weights.pt", "a checkpoint of torch.save")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert_refused(EMPTY, tmp_path / "absent.safetensors", "does not exist")
    assert_refused(EMPTY, tmp_path, "not a file")


# ---- the pin -------------------------------------------------------------------------------------------


def test_the_pinned_file_is_accepted_in_either_case(tmp_path: Path) -> None:
    path = write(tmp_path, build(seed=1).state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_backbone(build(), path, sha256=digest.upper()).sha256 == digest


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, build(seed=1).state_dict())
    assert_refused(EMPTY, path, "a" * 64, hashlib.sha256(path.read_bytes()).hexdigest(), sha256="a" * 64)


def test_a_malformed_pin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        load_backbone(build(), write(tmp_path, build().state_dict()), sha256="abc")


# ---- the hub -------------------------------------------------------------------------------------------


def test_a_hub_id_is_downloaded_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, network = build(seed=1), build(seed=2)
    (tmp_path / "some" / "folder").mkdir(parents=True)
    write(tmp_path / "some" / "folder", source.state_dict())
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append(repo_id)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load_backbone(network, "hf://owner/repo/some/folder/weights.safetensors")
    assert asked == ["owner/repo"]
    assert_same(state_of(network), state_of(source))


def test_without_network_the_message_says_what_to_download_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(**_: str) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="no route to host") as caught:
        load_backbone(build(), "hf://owner/repo/a/b.safetensors")
    assert "https://huggingface.co/owner/repo/resolve/main/a/b.safetensors" in str(caught.value)
    assert "give the file's path" in str(caught.value)


@pytest.mark.parametrize("source", ["hf://owner/repo", "hf://owner/repo/weights.bin", "hf://weights.safetensors"])
def test_a_malformed_hub_id_is_refused(source: str) -> None:
    with pytest.raises(WeightsError, match="hf://owner/repo/path"):
        load_backbone(build(), source)


# ---- the original implementation's file ----------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(REFERENCE is None, reason="set MONAI_FEDLORA_REFERENCE to a folder with reference outputs")
def test_the_original_implementations_file_is_loaded_whole() -> None:
    folder = Path(str(REFERENCE))
    network = ConvViT(**json.loads((folder / "cinema_reference.json").read_text()))
    info = load_backbone(network, folder / "cinema_reference.safetensors")
    assert info.skipped == ()
    assert_same(state_of(network), load_file(folder / "cinema_reference.safetensors"))
