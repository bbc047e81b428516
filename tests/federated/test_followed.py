"""What a running job gives away, and what it does not."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated import followed
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.run_record import LAST_NAME, RESULTS_NAME
from tests.helpers import make_manifest, make_plan


def test_progress_is_the_record_and_changes_with_the_stored_tensors(tmp_path: Path) -> None:
    assert followed.progress(tmp_path) == {"results": {}, "stored": None}
    (tmp_path / RESULTS_NAME).write_text('{"rounds": []}')
    (tmp_path / LAST_NAME).write_bytes(b"tensors")
    said = followed.progress(tmp_path)
    assert said["results"] == {"rounds": []} and said["stored"] == (tmp_path / LAST_NAME).stat().st_mtime_ns


def test_pieces_make_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed, "PIECE", 5)
    content = bytes(range(13))
    (tmp_path / LAST_NAME).write_bytes(content)
    pieces = [followed.piece(tmp_path, {"name": LAST_NAME, "offset": offset}) for offset in (0, 5, 10)]
    assert b"".join(base64.b64decode(said["content"]) for said in pieces) == content
    assert {(said["size"], said["sha256"]) for said in pieces} == {(13, hashlib.sha256(content).hexdigest())}


@pytest.mark.parametrize(
    "wanted",
    [None, {"name": "../secret"}, {"name": "log.txt"}, {"name": LAST_NAME, "offset": -1}, {"name": [LAST_NAME]}],
)
def test_nothing_else_is_given_away(tmp_path: Path, wanted: Any) -> None:
    with pytest.raises(ConfigError):
        followed.piece(tmp_path, wanted)


@pytest.mark.parametrize("data", [None, {}, {"key": "another"}, {"key": None}, ["secret"], {"key": b"secret"}])
def test_a_command_without_the_key_is_refused(data: Any) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    followed.check_key({"key": "secret"}, digest)
    with pytest.raises(PrivacyError, match="without the job's key"):
        followed.check_key(data, digest)


def test_a_job_that_nobody_follows_answers_no_command(tmp_path: Path) -> None:
    for name, follower in (("quiet", None), ("followed", "0" * 64)):
        write_job(make_plan(), make_manifest(), tmp_path / name, follower=follower)
        written = (tmp_path / name / "app" / "config" / "config_fed_server.json").read_text()
        assert ("followed.Followed" in written) == (follower is not None)
