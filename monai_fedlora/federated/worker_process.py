"""The process that does a site's work, as NVFlare's client asks it to, see :mod:`monai_fedlora.federated.workers`.

Whatever ends it costs the site the task that it was at: the next one goes on from the site's private folder.
"""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_fedlora.federated.channel import TAKEN, Channel
from monai_fedlora.files import for_the_owner

if TYPE_CHECKING:
    from monai_fedlora.federated.site_work import SiteWork

LOG_NAME = "site.log"
_log = logging.getLogger("monai_fedlora.worker")
_Question = tuple[dict[str, Any], Mapping[str, np.ndarray]]


def work_for(channel: Channel, *, stays: bool) -> None:
    """Answer questions until nobody asks any more.

    The first message is the setup: ``environment``, ``folder`` and ``path`` (of imports) of the process that asks,
    ``work``, the name of a :class:`~monai_fedlora.federated.site_work.SiteWork`, and the arguments of that.

    Args:
        channel: to who asks.
        stays: whether there is more to do after the first answer.
    """
    setup, _ = channel.receive()
    os.environ.clear()
    os.environ.update(setup["environment"])
    os.chdir(setup["folder"])
    sys.path[:] = setup["path"]
    os.umask(0o077)
    _log_into(Path(setup["private"]) / LOG_NAME)
    try:
        _answer(channel, setup, stays=stays)
    except BaseException:
        _log.exception("the process that works for the site ends")
        raise


def _answer(channel: Channel, setup: Mapping[str, Any], *, stays: bool) -> None:
    inbox = _Inbox(channel)
    module, _, name = setup["work"].rpartition(".")
    work: SiteWork = getattr(importlib.import_module(module), name)(
        site=setup["site"],
        config=Path(setup["config"]),
        local=Path(setup["local"]) if setup["local"] else None,
        private=Path(setup["private"]),
        simulated=setup["simulated"],
        should_stop=inbox.stopped.is_set,
    )
    while (found := inbox.next()) is not None:
        channel.send(TAKEN)
        channel.send(*work.answer(*found))
        if not stays:
            return


class _Inbox:
    """What arrives, read at once, so that a request to stop is seen while a question is being answered."""

    def __init__(self, channel: Channel) -> None:
        self.stopped = threading.Event()
        self._channel = channel
        self._questions: queue.Queue[_Question | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> _Question | None:
        """Wait for a question; None when nobody is at the other end any more."""
        return self._questions.get()

    def _read(self) -> None:
        with suppress(EOFError):
            while True:
                question, tensors = self._channel.receive()
                if "stop" in question:
                    self.stopped.set()
                else:
                    self.stopped.clear()
                    self._questions.put((question, tensors))
        self.stopped.set()
        self._questions.put(None)


def _log_into(path: Path) -> None:
    """Write what is logged, printed and said of a crash to a file; to nobody where it cannot be written.

    NVFlare sends a site's log to the server by default. What this process logs may name files and patients.
    """
    try:
        descriptor = for_the_owner(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    faulthandler.enable()
