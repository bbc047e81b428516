"""The licence file of an exported model."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_NOTICE = """\
This folder holds a model made with monai-fedlora.

Weights: derived from the backbone {backbone} and from training data of
the institutions that took part. The backbone's own terms continue to apply. This file grants no right to pass
the weights on; that is for those institutions to decide. Research use only: not a medical device, not for
clinical use.

Software (the configuration files, and the preprocessing and network code inside the model files): Apache
License, Version 2.0, http://www.apache.org/licenses/LICENSE-2.0{copy}
"""


def licence_text(backbone: str) -> str:
    """Terms of weights and software, with a copy of the software's licence if this installation has one."""
    full = _apache_licence()
    return _NOTICE.format(backbone=backbone, copy=f"; a copy follows.\n\n{full}" if full else "").rstrip() + "\n"


def _apache_licence() -> str | None:
    try:
        text = distribution("monai-fedlora").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    beside = Path(__file__).resolve().parents[2] / "LICENSE"
    return text or (beside.read_text(encoding="utf-8") if beside.is_file() else None)
