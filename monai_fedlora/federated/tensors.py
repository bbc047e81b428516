"""The tensors of a message as one safetensors file.

Left to itself, NVFlare announces arrays in the message and has the receiver fetch them, each in an archive of its own.
For a low-rank update that is as many messages again, and hundreds of bytes around every tensor of a few thousand.

The server does not open a message that is longer than its manifest and a report can need; one that also has more than
a megabyte it does not receive, see :mod:`monai_fedlora.federated.unreadable`. By then NVFlare has unpacked it (msgpack,
into plain values and bytes), and has fetched and read arrays that a site did not put into this file; what these are,
the gates check afterwards.

Importing this module tells NVFlare how to read such a message, and without it a process cannot. The filters and the
executor of a job import it; a site that runs an executor of its own without the filters has to import it there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.utils import fobs
from nvflare.fuel.utils.fobs.datum import DatumManager

from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import MetricsForm, report_nbytes

if TYPE_CHECKING:
    from nvflare.fuel.f3.cellnet.cell import Cell

LARGEST = 2**21
"""Bytes (ours, and the size of NVFlare's own chunks) above which tensors are fetched one by one."""

_FRAME = 2**14
"""Bytes (ours) for what NVFlare puts around an answer: 3 to 4 kB with a site's name of usual length."""
_ENTRY = 128
"""Bytes for shape, dtype and place of a tensor in a safetensors file, beside its name."""
_MOST_BYTES = "monai_fedlora.most_bytes"


def most_bytes(manifest: Manifest, *, form: MetricsForm) -> int:
    """Length of the longest message that a site has reason to send."""
    names = sum(len(key.encode()) + _ENTRY for key in manifest.up.entries)
    return manifest.up.nbytes + names + report_nbytes(form=form) + _FRAME


def limit_messages(cell: Cell, most: int) -> None:
    """Have tensors in longer messages that arrive in this process left unread.

    Args:
        cell: of the engine. A job's messages arrive at it, or in the simulator at another one of the same process.
        most: bytes.
    """
    for each in (cell, *CoreCell.ALL_CELLS.values()):
        each.update_fobs_context({_MOST_BYTES: most})


def _is_too_long(data: bytes, manager: DatumManager | None) -> bool:
    context = manager.get_fobs_context() if manager else {}
    message = context.get(fobs.FOBSContextKey.MESSAGE)
    length = message.get_header(MessageHeaderKey.PAYLOAD_LEN, 0) if message else 0
    return max(length, len(data)) > context.get(_MOST_BYTES, math.inf)


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
        """Return the tensors; what is too long or no safetensors file stays bytes, which every gate refuses.

        It is never an error, so that the gates can say what is wrong.
        """
        if not isinstance(data, bytes):
            return Tensors(data) if isinstance(data, dict) else data
        if _is_too_long(data, manager):
            return data
        try:
            return Tensors(safetensors.numpy.load(data))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
            return data


fobs.register(TensorsDecomposer)
