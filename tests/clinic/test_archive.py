"""Folders and archives: every file, nothing outside, nothing without bounds."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic import archive
from monai_fedlora.clinic.archive import study_files
from monai_fedlora.errors import DataError


def pack(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return path


def test_archive_gives_the_files_of_its_folder_and_cleans_up(tmp_path: Path) -> None:
    content = {"b/2": b"two", "b/1": b"one", "a": b"zero"}
    for name, data in content.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    with study_files(tmp_path / "plain") as plain, study_files(pack(tmp_path / "p.zip", content)) as packed:
        expected = [b"zero", b"one", b"two"]
        assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in packed] == expected
        assert stat.S_IMODE(packed[0].parent.stat().st_mode) == 0o700
    assert not packed[0].parent.exists()


def test_hidden_files_links_and_leftovers_of_a_mac_are_left_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"outside")
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    (folder / ".hidden").write_bytes(b"x")
    (folder / "image").write_bytes(b"image")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    packed = pack(tmp_path / "p.zip", {"image": b"image", ".hidden": b"x", "__MACOSX/image": b"x"})
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr(link, str(secret))
    for path in (folder, packed):
        with study_files(path) as files:
            assert [file.read_bytes() for file in files] == [b"image"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:/evil", "a/.."])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    packed = pack(tmp_path / "p.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="a file outside itself"), study_files(packed):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAXIMUM_BYTES", 1 << 20)
    packed = pack(tmp_path / "p.zip", {"zeros": bytes(2 << 20)})
    assert packed.stat().st_size < 1 << 14
    with pytest.raises(DataError, match="more than a study does"), study_files(packed):
        pass


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAXIMUM_BYTES", 1 << 20)
    data = bytearray(pack(tmp_path / "p.zip", {"zeros": bytes(2 << 20)}).read_bytes())
    size = (2 << 20).to_bytes(4, "little")
    assert data.count(size) >= 2
    (tmp_path / "p.zip").write_bytes(bytes(data).replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="cannot be unpacked"), study_files(tmp_path / "p.zip"):
        pass


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(archive, "MAXIMUM_FILES", 3)
    content = {str(number): b"" for number in range(4)}
    path = tmp_path / "plain"
    path.mkdir()
    for name in content:
        (path / name).touch()
    if kind == "archive":
        path = pack(tmp_path / "p.zip", content)
    with pytest.raises(DataError, match="4 files"), study_files(path):
        pass


def test_encrypted_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "p.zip", {"a": b"1"}).read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    (tmp_path / "p.zip").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"), study_files(tmp_path / "p.zip"):
        pass


@pytest.mark.parametrize(("name", "message"), [("image.dcm", "a single file"), ("nothing", "does not exist")])
def test_what_is_no_folder_and_no_archive_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "image.dcm").touch()
    with pytest.raises(DataError, match=message), study_files(tmp_path / name):
        pass


@given(st.data())
def test_damaged_archive_is_refused_or_gives_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", b"some text, some text, some text")
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("zip") / "p.zip"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        with study_files(path) as files:
            assert all(file.read_bytes() == b"some text, some text, some text" for file in files)
    except DataError as error:
        assert str(path) in str(error)
