"""Telling a program of TorchScript from a checkpoint; both are archives."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from monai_fedlora.errors import WeightsError

_PROGRAM = re.compile(r"[^/]+/(constants\.pkl|code/.+)")


def refuse_program(path: Path) -> None:
    """Refuse an archive of TorchScript, in which OpenAI publishes CLIP, and say how its weights are saved alone.

    Raises:
        WeightsError: it is one.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):  # damaged, which whoever reads it says
        return
    if not any(map(_PROGRAM.fullmatch, names)):
        return
    state = f"{path.stem}_state{path.suffix}"
    raise WeightsError(
        f"{path} is a program of TorchScript, as OpenAI publishes CLIP, and is not run here; where you trust it, save "
        f"its weights alone with these two lines, and give {state}: model = torch.jit.load({path.name!r}, "
        f"map_location='cpu'); torch.save(model.state_dict(), {state!r})"
    )
