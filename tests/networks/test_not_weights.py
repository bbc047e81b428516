"""What lies under the name of weights and is something else is named, with what to do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.networks.published import EMPTY, STORED, assert_refused, split_folder


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save(STORED, stream)
    return stream.getvalue()


def old_checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save(STORED, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def numpys() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, kernel=np.zeros(3), bias=np.zeros(3))
    return stream.getvalue()


def tar(mode: Literal["w", "w:gz"]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("model/model.safetensors"))
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/model.safetensors", save(STORED))
    return stream.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 345636463\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: a download was interrupted"),
        (POINTER, "run `git lfs pull` in its folder"),
        (PAGE, "a web page that was saved under the name of weights"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b'{"error": "Repository not found"}', "a description in JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "TensorFlow's weights"),
        (b"GGUF" + bytes(40), "llama.cpp"),
        (numpys(), "timm's or transformers'"),
        (tar("w"), "an archive of files; unpack it"),
        (tar("w:gz"), "an archive of files; unpack it"),
        (zipped(), "an archive of files; unpack it"),
    ],
    ids=["empty", "pointer", "page", "denied", "JSON", "HDF5", "GGUF", "npz", "tar", "gzip", "zip"],
)
def test_what_is_no_weights_is_named(tmp_path: Path, suffix: str, content: bytes, said: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert_refused(EMPTY, path, str(path), said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.pth", save(STORED), "rename it to end in .safetensors"),
        ("w.safetensors", checkpoint(), "rename it to end in .pth"),
        ("w.safetensors", old_checkpoint(), "rename it to end in .pth"),
    ],
    ids=["safetensors", "checkpoint", "old checkpoint"],
)
def test_weights_under_the_name_of_the_other_format_are_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(EMPTY, tmp_path / name, name, said)


def test_the_index_of_several_files_given_alone_says_to_give_the_folder(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    assert_refused(EMPTY, folder / "model.safetensors.index.json", "give the weights file, or the folder of both")
