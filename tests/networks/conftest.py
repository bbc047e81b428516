from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from torch import nn

from tests.networks.clip import clip_model, write_clip


class Checkpoint(NamedTuple):
    folder: Path
    model: nn.Module


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A CLIP with random weights: its folder, which no test changes, and transformers' own model."""
    model = clip_model()
    return Checkpoint(write_clip(tmp_path_factory.mktemp("clip"), model), model)
