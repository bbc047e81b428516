"""What a server's job tells those who follow it from outside, by app commands of NVFlare's job API."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.flare_context import run_folder
from monai_fedlora.federated.run_record import BEST_NAME, LAST_NAME, RESULTS_NAME
from monai_fedlora.files import read_json

PROGRESS = "monai_fedlora.progress"
"""Answered with ``results``, and ``stored``, which changes with every file of shared tensors; None before the first."""
STORED = "monai_fedlora.stored"
"""Answered with a piece of a file of shared tensors: ``content`` (base64), and ``size`` and ``sha256`` of the whole."""
PIECE = 1 << 20
"""Bytes of a piece (ours)."""


class Followed(FLComponent):
    """Answers :data:`PROGRESS` and :data:`STORED` while the job runs, to whoever has the key that the job names.

    NVFlare (2.9) lets everybody with a startup kit send app commands to every job, also those who may not download its
    results. The key is therefore kept by who has submitted the job, and the job, which all sites get, has its hash.

    Args:
        key_sha256: SHA-256 of the key, in hexadecimal digits.
    """

    def __init__(self, key_sha256: str) -> None:
        super().__init__()
        self.key_sha256 = key_sha256

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Offer both commands as the run starts."""
        if event_type == EventType.START_RUN:
            engine = fl_ctx.get_engine()
            engine.register_app_command(PROGRESS, self._answer)
            engine.register_app_command(STORED, self._answer)

    def _answer(self, topic: str, data: Any, fl_ctx: FLContext) -> dict[str, Any]:
        check_key(data, self.key_sha256)
        folder = run_folder(fl_ctx)
        return progress(folder) if topic == PROGRESS else piece(folder, data)


def check_key(data: Any, key_sha256: str) -> None:
    """Refuse a command that comes without the key.

    Raises:
        PrivacyError: it does.
    """
    key = data.get("key") if isinstance(data, Mapping) else None
    known = isinstance(key, str) and hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), key_sha256)
    if not known:
        raise PrivacyError("only who has submitted the job may follow it: the command came without the job's key")


def progress(folder: Path) -> dict[str, Any]:
    """The answer to :data:`PROGRESS` of the run in a folder."""
    results, stored = folder / RESULTS_NAME, folder / LAST_NAME
    return {
        "results": read_json(results) if results.is_file() else {},
        "stored": stored.stat().st_mtime_ns if stored.is_file() else None,
    }


def piece(folder: Path, wanted: Any) -> dict[str, Any]:
    """The answer to :data:`STORED` of the run in a folder.

    Args:
        folder: of the run.
        wanted: the ``name`` of the file, one of the two with shared tensors, and ``offset``, the place of its first
            byte.

    Raises:
        ConfigError: another file is wanted.
    """
    if not isinstance(wanted, Mapping) or wanted.get("name") not in (LAST_NAME, BEST_NAME):
        raise ConfigError(f"only {LAST_NAME} and {BEST_NAME} are given away")
    offset = wanted.get("offset", 0)
    if type(offset) is not int or offset < 0:
        raise ConfigError("the offset is a whole number of bytes")
    path = folder / wanted["name"]
    content = path.read_bytes() if path.is_file() else b""
    return {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content": base64.b64encode(content[offset : offset + PIECE]).decode("ascii"),
    }
