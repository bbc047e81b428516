"""Micro networks are among the architectures, and exports look at noise in place of phantoms."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _micro(micro: None) -> None:
    """For every test of this folder."""
