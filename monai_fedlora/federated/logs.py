"""Keeping what libraries log about a site's work out of logs that leave the site."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from monai_fedlora.files import for_the_owner

_MAY_TRAVEL = ("nvflare", "monai_fedlora.federated")


class _OwnFile(logging.FileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=for_the_owner)


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Write what is logged inside the block to ``path`` instead of to the root logger's handlers.

    NVFlare sends a site's ``error_log.txt`` to the server by default, and everything that reaches the root logger
    is in it. Ignite, for one, logs the text of every exception, and ours name files and patients. The records of
    NVFlare and of the federation's own components, which carry no such text, go where they always go.

    Args:
        path: file that records are appended to; it is created with the first one, for its owner alone.
    """
    root = logging.getLogger()
    handlers = tuple(root.handlers)
    own = _OwnFile(path, encoding="utf-8", delay=True)
    own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    own.addFilter(_stays)
    for handler in handlers:
        handler.addFilter(_may_travel)
    root.addHandler(own)
    try:
        yield
    finally:
        root.removeHandler(own)
        own.close()
        for handler in handlers:
            handler.removeFilter(_may_travel)


def _may_travel(record: logging.LogRecord) -> bool:
    return record.name.startswith(_MAY_TRAVEL)


def _stays(record: logging.LogRecord) -> bool:
    return not _may_travel(record)
