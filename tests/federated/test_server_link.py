"""What a link to a server brings over is there whole or not at all."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import JobNotFound

from monai_fedlora import files
from monai_fedlora.federated.run_record import BEST_NAME, LAST_NAME
from monai_fedlora.federated.server_link import UNKNOWN, ServerLink


class Session:
    """A server's answers."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def do_app_command(self, job_id: str, topic: str, wanted: Any) -> dict[str, Any]:
        content = self.content if wanted["name"] == LAST_NAME else b""
        said = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {**said, "content": base64.b64encode(content).decode()}

    def download_job_result(self, job_id: str, scratch: str) -> str:
        if job_id == "lost":
            raise JobNotFound("no such job")
        folder = Path(scratch) / job_id / "workspace"
        folder.mkdir(parents=True)
        (folder / LAST_NAME).write_bytes(self.content)
        return str(folder.parent)

    def get_job_meta(self, job_id: str) -> dict[str, Any]:
        raise JobNotFound("no such job")

    def get_system_info(self) -> Any:
        class Info:
            client_info = ()

            class server_info:
                start_time = "now"

        return Info()


def linked(tmp_path: Path, content: bytes) -> ServerLink:
    kit = tmp_path / "kit" / "startup"
    kit.mkdir(parents=True)
    (kit / "fed_admin.json").write_text(json.dumps({"admin": {"username": "lead@example.org"}}))
    link, session = ServerLink(kit.parent), Session(content)
    link._session = session  # type: ignore[assignment]
    return link


@pytest.mark.parametrize("how", ["fetch", "download"])
def test_a_full_disk_leaves_the_tensors_of_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, link = tmp_path / "run", linked(tmp_path, b"the next round")
    folder.mkdir()
    (folder / LAST_NAME).write_bytes(b"the round before")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        link.fetch("job", folder, key="key") if how == "fetch" else link.download("job", folder)
    assert (folder / LAST_NAME).read_bytes() == b"the round before"
    monkeypatch.undo()
    link.fetch("job", folder, key="key") if how == "fetch" else link.download("job", folder)
    assert (folder / LAST_NAME).read_bytes() == b"the next round"
    assert (folder / LAST_NAME).stat().st_mode & 0o77 == 0
    assert [path.name for path in folder.iterdir()] == [LAST_NAME] and BEST_NAME != LAST_NAME


def test_a_job_that_the_server_does_not_know_is_seen_as_such(tmp_path: Path) -> None:
    link = linked(tmp_path, b"")
    seen = link.look("lost", key="key")
    assert (seen.status, seen.ended, seen.running) == (UNKNOWN, True, False)
    assert link.download("lost", tmp_path) == {}
