"""The pin of one file or several."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.weights import backbone_sha256, load_backbone
from tests.networks.published import (
    EMPTY,
    STORED,
    assert_refused,
    network_of,
    split_folder,
    write,
)


def test_the_pinned_file_is_accepted_in_either_case_and_another_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, STORED)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_backbone(network_of(), path, sha256=digest.upper()).sha256 == digest == backbone_sha256(path)
    assert_refused(EMPTY, path, "a" * 64, digest, sha256="a" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        load_backbone(network_of(), path, sha256="abc")


def test_the_pin_of_several_files_notices_a_change_in_any(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    pin = backbone_sha256(folder)
    load_backbone(network_of(), folder, sha256=pin)
    for part in folder.glob("*.safetensors"):
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert_refused(EMPTY, folder, pin, sha256=pin)
        part.write_bytes(content)
