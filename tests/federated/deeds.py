"""Workers that do something else than their work."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Deeds:
    """Does what it is asked for by name."""

    def __init__(self, *, should_stop: Callable[[], bool], **_: Any) -> None:
        self._should_stop = should_stop

    def answer(self, question: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Any:
        return getattr(self, question["do"])(), {key: value + 1 for key, value in tensors.items()}

    def nothing(self) -> dict[str, Any]:
        return {"process": os.getpid(), "folder": os.getcwd(), "variable": os.environ.get("OF_THE_CLIENT")}

    def log(self) -> dict[str, Any]:
        logging.getLogger("some_library").info("patient007")
        print("patient008", flush=True)
        return {}

    def wait(self) -> dict[str, Any]:
        begun = time.time()
        while not self._should_stop():
            time.sleep(0.01)
        return {"begun": begun}

    def work_a_while(self) -> dict[str, Any]:
        begun = time.time()
        time.sleep(0.3)
        return {"process": os.getpid(), "begun": begun, "ended": time.time()}

    def hang(self) -> dict[str, Any]:
        """Outside of Python, which gets no turn meanwhile: no thread of this process does anything."""
        ctypes.PyDLL(None).sleep(300)
        return {}

    def kill(self) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def crash(self) -> dict[str, Any]:
        ctypes.string_at(0)
        return {}

    def leave(self) -> dict[str, Any]:
        raise SystemExit
