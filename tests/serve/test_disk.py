"""Everything that studies fill counts, and is given back when it goes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from monai_fedlora.serve.disk import Disk, Share
from monai_fedlora.serve.kinds import unpack
from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.uploads import StoredFile
from tests.serve.conftest import ADDRESS, finished, send, stored, zipped


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.booleans()), max_size=30))
def test_shares_never_exceed_the_disk_and_come_back(steps: list[tuple[int, int, bool]]) -> None:
    disk = Disk(100)
    shares, sizes = [Share(disk) for _ in range(3)], [0, 0, 0]
    for which, size, is_end in steps:
        if is_end:
            shares[which].give_back()
            sizes[which] = 0
        elif sum(sizes) + size > 100:
            with pytest.raises(Refused) as refusal:
                shares[which].take(size)
            assert refusal.value.status == 507
        else:
            shares[which].take(size)
            sizes[which] += size
        assert disk.used == sum(sizes)


def archive_of(path: Path, size: int) -> StoredFile:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("heart.nii.gz", bytes(range(256)) * (size // 256))
    return StoredFile(path, "heart.zip")


def test_unpacked_bytes_count_beside_the_packed(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "000000.zip", 1 << 16)
    packed = archive.path.stat().st_size
    disk = Disk(packed + (1 << 16))
    share = Share(disk)
    share.take(packed)
    unpack(archive, tmp_path, 1 << 20, share)
    assert disk.used == 1 << 16  # the archive itself was removed
    tight = Disk(packed + (1 << 16) - 1)
    share = Share(tight)
    archive = archive_of(tmp_path / "000001.zip", 1 << 16)
    share.take(packed)
    with pytest.raises(Refused, match="max-disk"):
        unpack(StoredFile(archive.path, "heart.zip"), tmp_path / "..", 1 << 20, share)


@pytest.mark.slow
def test_disk_of_a_server_is_shared_by_all_sessions(
    make_app: Callable[..., FastAPI], stored_study: Path, scratch: Path
) -> None:
    content = zipped(stored_study)
    limit = 40 * len(content)
    with TestClient(make_app(max_disk_bytes=limit, max_upload_bytes=limit), base_url=ADDRESS) as browser:
        disk = browser.app.state.sessions.disk
        study = finished(browser, send(browser, ("heart.zip", content)).json()["id"])
        assert 0 < disk.used == sum(path.stat().st_size for path in stored(scratch))
        disk.take(
            limit - disk.used - len(content) - 100
        )  # another session's: room for the archive, not for what is in it
        full = TestClient(browser.app, base_url=ADDRESS).post("/api/studies", files=[("files", ("heart.zip", content))])
        assert full.status_code == 507
        assert "remove some" in full.json()["error"]
        used = disk.used
        assert browser.delete(f"/api/studies/{study['id']}").status_code == 204
        assert disk.used < used


def test_broken_upload_gives_its_share_back(make_app: Callable[..., FastAPI], scratch: Path) -> None:
    with TestClient(make_app(), base_url=ADDRESS) as browser:
        for name, data in (("x.zip", b"no archive" * 100), ("IM1", b"no DICOM"), ("P_ed.nii.gz", b"x")):
            assert send(browser, (name, data)).status_code in (400, 415)
        assert browser.app.state.sessions.disk.used == 0
        assert stored(scratch) == []


@pytest.mark.slow
def test_results_that_find_no_room_fail_their_study_alone(
    make_app: Callable[..., FastAPI], stored_study: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    with TestClient(make_app(), base_url=ADDRESS) as browser:
        content = io.BytesIO(zipped(stored_study)).getvalue()
        take: Any = Disk.take

        def little(self: Disk, size: int) -> None:
            if any(path.parent.name == "results" for path in stored(scratch)):
                raise Refused(507, "the disk is full")
            take(self, size)

        monkeypatch.setattr(Disk, "take", little)
        identity = send(browser, ("heart.zip", content)).json()["id"]
        assert finished(browser, identity, state="failed")["error"] == "the disk is full"
        assert browser.app.state.sessions.disk.used == 0
        assert stored(scratch) == []
