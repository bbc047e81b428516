"""Code of a test job: keep every byte that arrives at the server."""

from __future__ import annotations

import threading
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.fuel.f3.sfm.conn_manager import ConnManager


class WireTap(FLComponent):
    """Append each frame that this process receives to a file, before anything looks at it.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        lock, process_frame = threading.Lock(), ConnManager.process_frame

        def tapped(manager: ConnManager, connection: Any, frame: Any) -> None:
            with lock, open(path, "ab") as stream:
                stream.write(frame)
            process_frame(manager, connection, frame)

        ConnManager.process_frame = tapped
