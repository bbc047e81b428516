"""Questions and answers between a site's NVFlare client and the process that does its work.

Each is a JSON object with tensors beside it, as safetensors: nothing that arrives can be code.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

TAKEN = {"taken": True}
"""What a worker says when it begins with a question; until then, nothing has been done about it."""
_LENGTHS = struct.Struct(">QQ")


class Channel:
    """One end of a connected pair of sockets.

    Args:
        connection: the end, which belongs to the channel from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, said: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> None:
        """Send an object, and tensors by name.

        Raises:
            OSError: nobody is at the other end any more.
        """
        text = json.dumps(said).encode()
        file = safetensors.numpy.save({key: np.asarray(value, order="C") for key, value in (tensors or {}).items()})
        with self._sending:
            for part in (_LENGTHS.pack(len(text), len(file)), text, file):
                self._connection.sendall(part)

    def receive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Wait for what :meth:`send` has sent.

        Raises:
            EOFError: nobody is at the other end any more, or left while sending.
        """
        text, file = (self._exactly(length) for length in _LENGTHS.unpack(self._exactly(_LENGTHS.size)))
        return json.loads(text), safetensors.numpy.load(file)

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._connection.fileno()

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _exactly(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            try:
                part = self._connection.recv(min(length - len(content), 1 << 20))
            except OSError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            content += part
        return bytes(content)
