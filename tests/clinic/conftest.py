"""Micro bundles, and studies of a made-up heart for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _micro(micro: None) -> None:
    """For every test of this folder."""


@pytest.fixture
def study_folder(stored_study: Path, tmp_path: Path) -> Path:
    """The folder of a DICOM study that tests may change."""
    return Path(shutil.copytree(stored_study, tmp_path / "heart"))
