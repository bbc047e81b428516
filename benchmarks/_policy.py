"""The limits of sites that are as small as a measurement of bytes, memory or seconds needs them."""

from __future__ import annotations

import os
from pathlib import Path

from monai_fedlora.environment import POLICY

FILE = Path(__file__).with_name("policy.json")


def allow_small_sites() -> None:
    """Let sites of a few synthetic cases take part, in this process and in those that it starts."""
    os.environ[POLICY] = str(FILE)
