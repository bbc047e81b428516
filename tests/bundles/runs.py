"""Runs of jobs that are stopped after their first round, and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.files import load_tensors


class Stopped(Exception):
    """Ends a run as an interrupt does."""


def stop_in_the_second_round(results: Mapping[str, Any]) -> None:
    """Called with the record as it grows."""
    if len(results["rounds"]) == 2:
        raise Stopped


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two files hold the same bits by the same names."""
    (found, _), (expected, _) = load_tensors(one), load_tensors(other)
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
