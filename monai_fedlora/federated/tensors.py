"""The tensors of a message as one safetensors file.

Left to itself, NVFlare announces arrays in the message and has the receiver fetch them, each in an archive of its own.
For a low-rank update that is as many messages again, and hundreds of bytes around every tensor of a few thousand.

Importing this module tells NVFlare how to read such a message, and without it a process cannot. The filters and the
executor of a job import it; a site that runs an executor of its own without the filters has to import it there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from nvflare.fuel.utils import fobs
from nvflare.fuel.utils.fobs.datum import DatumManager

LARGEST = 2**21
"""Bytes (ours, and the size of NVFlare's own chunks) above which tensors are fetched one by one."""


class Tensors(dict[str, np.ndarray]):
    """Tensors by name, which travel together."""


class TensorsDecomposer(fobs.Decomposer):
    """Tells NVFlare how to write :class:`Tensors`."""

    def supported_type(self) -> type[Tensors]:
        """What it writes."""
        return Tensors

    def decompose(self, target: Tensors, manager: DatumManager | None = None) -> Any:
        """Return the tensors as bytes; where they are large, or not all of them are arrays, as they are."""
        arrays = [value for value in target.values() if type(value) is np.ndarray]
        if len(arrays) < len(target) or sum(array.nbytes for array in arrays) > LARGEST:
            return dict(target)
        return safetensors.numpy.save({key: np.asarray(value, order="C") for key, value in target.items()})

    def recompose(self, data: Any, manager: DatumManager | None = None) -> Any:
        """Return the tensors; what is no safetensors file stays bytes, which every gate refuses."""
        if not isinstance(data, bytes):
            return Tensors(data) if isinstance(data, dict) else data
        try:
            return Tensors(safetensors.numpy.load(data))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
            return data


fobs.register(TensorsDecomposer)
