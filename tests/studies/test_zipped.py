"""Folders and archives: every file, nothing outside, nothing without bounds."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import DataError
from monai_fedlora.studies import zipped
from monai_fedlora.studies.zipped import study_files, unpacked


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


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "a/.."])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    packed = pack(tmp_path / "p.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="a file outside itself"), study_files(packed):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def test_names_of_other_systems_are_only_names(tmp_path: Path) -> None:
    content = {"10:30:00/IM1": b"1", "C:\\MR\\IM2": b"2", "M\u00fcller/IM3": b"3", "皮肤.dcm": b"4"}
    packed = pack(tmp_path / "p.zip", content)
    with study_files(packed) as files:
        assert sorted(file.read_bytes() for file in files) == [b"1", b"2", b"3", b"4"]
    with unpacked(packed, [PurePosixPath("C:/MR/IM2")]) as places:
        assert [file.read_bytes() for file in places.values()] == [b"2"]
    unmarked = re.sub(rb"(PK(?:\x03\x04..|\x01\x02....))\x00\x08", rb"\1\0\0", packed.read_bytes(), flags=re.DOTALL)
    (tmp_path / "mac.zip").write_bytes(unmarked)  # as a Mac's archiver writes
    with unpacked(tmp_path / "mac.zip") as places:
        assert PurePosixPath("皮肤.dcm") in places and PurePosixPath("Müller/IM3") in places


def test_chosen_members_alone_are_unpacked_and_named_in_errors(tmp_path: Path) -> None:
    packed = pack(tmp_path / "p.zip", {"a/x.nii.gz": b"x", "y.NII": b"y"})
    with (
        pytest.raises(DataError, match=rf"{packed}/a/x\.nii\.gz is broken"),
        unpacked(packed, [PurePosixPath("a/x.nii.gz")]) as places,
    ):
        (file,) = places.values()
        assert file.name.endswith(".nii.gz") and file.read_bytes() == b"x"
        raise DataError(f"{file} is broken")
    with pytest.raises(DataError, match="holds no z"), unpacked(packed, [PurePosixPath("z")]):
        pass
    with study_files(tmp_path, ["p.zip"]) as files:
        assert files == [packed]


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MAXIMUM_BYTES", 1 << 20)
    packed = pack(tmp_path / "p.zip", {"zeros": bytes(2 << 20)})
    assert packed.stat().st_size < 1 << 14
    with pytest.raises(DataError, match="more than a study does"), study_files(packed):
        pass


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MAXIMUM_BYTES", 1 << 20)
    data = bytearray(pack(tmp_path / "p.zip", {"zeros": bytes(2 << 20)}).read_bytes())
    size = (2 << 20).to_bytes(4, "little")
    assert data.count(size) >= 2
    (tmp_path / "p.zip").write_bytes(bytes(data).replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="cannot be unpacked"), study_files(tmp_path / "p.zip"):
        pass


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(zipped, "MAXIMUM_FILES", 3)
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


def test_single_file_is_the_study_and_what_is_not_there_none(tmp_path: Path) -> None:
    (tmp_path / "image.dcm").touch()
    with study_files(tmp_path / "image.dcm") as files:
        assert files == [tmp_path / "image.dcm"]
    with pytest.raises(DataError, match="does not exist"), study_files(tmp_path / "nothing"):
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
