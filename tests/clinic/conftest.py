"""Micro bundles, and studies of a made-up heart for them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _micro(micro: None) -> None:
    """For every test of this folder."""
