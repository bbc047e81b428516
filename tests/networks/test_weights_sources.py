"""Finding weights: folders with several files, and the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from monai_fedlora.networks.weights import backbone_sha256, load_backbone
from tests.networks.published import (
    EMPTY,
    STORED,
    assert_refused,
    assert_same,
    folder_of,
    network_of,
    split_folder,
    state_of,
    write,
)


def test_weights_in_several_files_are_read_together(tmp_path: Path) -> None:
    whole, parts = network_of(), network_of()
    load_backbone(whole, folder_of(tmp_path / "one"))
    several = split_folder(tmp_path / "many")
    info = load_backbone(parts, several)
    assert_same(state_of(whole), state_of(parts))
    assert info.path == several
    names = sorted(path.name for path in several.glob("*.safetensors"))
    printed = "".join(f"{hashlib.sha256((several / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert info.sha256 == hashlib.sha256(printed.encode()).hexdigest() == backbone_sha256(several)


def test_a_part_alone_is_refused(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    part = folder / "model-00001-of-00002.safetensors"
    said = "is one part of weights in several files; give their folder"
    assert_refused(EMPTY, part, said, str(folder))
    (folder / "model.safetensors.index.json").unlink()
    assert_refused(EMPTY, part, said, str(folder))
    assert_refused(EMPTY, folder, f"Of {part.name}, model-00002-of-00002.safetensors the list is missing")


def test_a_link_to_nowhere_is_called_one(tmp_path: Path) -> None:
    """As in a folder of the hub's cache that was copied alone."""
    folder = folder_of(tmp_path / "copied")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(Path("..") / "blobs" / "abc")
    for source in (folder, folder / "model.safetensors"):
        assert_refused(EMPTY, source, "is a link to ../blobs/abc, which does not exist", "cp -L")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert_refused(EMPTY, folder, "model-00002-of-00002.safetensors, which is missing")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": "../secret.safetensors"}}'])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    folder = split_folder(tmp_path)
    (folder / "model.safetensors.index.json").write_text(content)
    assert_refused(EMPTY, folder, "model.safetensors.index.json")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    save_file(STORED, folder / "model-00002-of-00002.safetensors")
    assert_refused(EMPTY, folder, "which another file")


def test_a_folder_with_a_checkpoint_of_torch_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(STORED, folder / "pytorch_model.bin")
    network, other = network_of(), network_of()
    load_backbone(network, folder)
    load_backbone(other, write(tmp_path, STORED))
    assert_same(state_of(network), state_of(other))


def test_an_incomplete_folder_says_what_it_lacks(tmp_path: Path) -> None:
    assert_refused(EMPTY, tmp_path, str(tmp_path), "holds no config.json")
    torch.save(STORED, tmp_path / "teacher.pth")
    assert_refused(EMPTY, tmp_path, "give the path of the weights file itself. Of weights there is teacher.pth")
    folder = folder_of(tmp_path)
    (folder / "model.safetensors").unlink()
    assert_refused(EMPTY, folder, "holds no weights", "model.safetensors")
    assert_refused(EMPTY, tmp_path / "absent", "does not exist")


# ---- the hub -------------------------------------------------------------------------------------------


def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the hub with a folder; returns the list of what is asked for."""
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append(f"{repo_id}/{filename}")
        if not (folder / filename).is_file():
            raise EntryNotFoundError(f"404: {filename}")
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_repository_of_the_hub_is_loaded_like_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, network, local = split_folder(tmp_path), network_of(), network_of()
    asked = hub(folder, monkeypatch)
    info = load_backbone(network, "hf://owner/repo", sha256=backbone_sha256(folder))
    load_backbone(local, folder)
    assert_same(state_of(network), state_of(local))
    assert info.sha256 == backbone_sha256("hf://owner/repo")
    assert set(asked) == {
        f"owner/repo/{name}"
        for name in (
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        )
    }


def test_a_file_of_the_hub_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    torch.save({"model": STORED}, tmp_path / "some" / "w.pth")
    asked = hub(tmp_path, monkeypatch)
    load_backbone(network_of(), "hf://owner/repo/some/w.pth")
    assert asked == [f"owner/repo/some/{name}" for name in ("config.json", "open_clip_config.json", "w.pth")]


def test_a_file_of_the_hub_that_is_here_already_is_loaded_without_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(STORED, tmp_path / "w.pth")

    def download(*, repo_id: str, filename: str) -> str:
        if filename != "w.pth":
            raise LocalEntryNotFoundError("offline")
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load_backbone(network_of(), "hf://owner/repo/w.pth")
    assert "by its tensors alone" in caplog.text


@pytest.mark.parametrize("error", [ConnectionError("no route to host"), LocalEntryNotFoundError("offline")])
def test_without_network_the_message_says_what_to_download_by_hand(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(**_: str) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_refused(
        network_of(),
        "hf://owner/repo",
        str(error),
        "https://huggingface.co/owner/repo/resolve/main/config.json",
        "by hand",
    )


@pytest.mark.parametrize("source", ["hf://repo", "hf://", "hf:///repo"])
def test_a_malformed_hub_id_is_refused(source: str) -> None:
    assert_refused(EMPTY, source, "hf://owner/repo")
