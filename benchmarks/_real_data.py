"""Where the real data sets lie that some benchmarks are made of; nothing of them is in the project."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

REAL = "MONAI_FEDLORA_REAL_DATA"
"""Environment variable: folder of the real data sets."""
_FED_ISIC = "fed_isic2019"


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the option that names another folder of Fed-ISIC2019."""
    parser.add_argument("--source", type=Path, help=f"folder of Fed-ISIC2019 (default: {_FED_ISIC} in ${REAL})")


def fed_isic(source: Path | None) -> Path:
    """The folder of Fed-ISIC2019 that was given, or that of the environment; ends the program where there is none."""
    if source is not None:
        return source
    if REAL not in os.environ:
        raise SystemExit(f"give --source, or set {REAL} to the folder with {_FED_ISIC}")
    return Path(os.environ[REAL]) / _FED_ISIC
