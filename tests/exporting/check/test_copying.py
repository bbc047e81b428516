"""What is judged is a private copy; what changes while it is made is noticed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_zip import pack
from monai_fedlora.exporting.check import contents, copying
from monai_fedlora.exporting.check.contents import Contents, open_contents
from monai_fedlora.exporting.check.copying import copy_files
from monai_fedlora.exporting.check.plain_zip import Limits
from monai_fedlora.files import sha256

Usage = namedtuple("Usage", "total used free")
PATHS = st.lists(st.sampled_from("ab"), max_size=3).flatmap(
    lambda folders: st.sampled_from("fgh").map(lambda name: "/".join([*folders, name]))
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Three files in a folder."""
    for name, content in (("LICENSE", b"free"), ("configs/a.json", b"{}"), ("models/model.ts", b"\x00" * (3 << 20))):
        path = tmp_path / "B" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "B"


@pytest.fixture(params=["folder", "zip"])
def either(request: pytest.FixtureRequest, bundle: Path, tmp_path: Path) -> Path:
    """The same as a folder and as a zip."""
    if request.param == "zip":
        pack(bundle, tmp_path / "B.zip")
        return tmp_path / "B.zip"
    return bundle


def test_the_copy_is_the_same_files_and_of_this_user_alone(bundle: Path, either: Path) -> None:
    before = os.umask(0)
    try:
        with open_contents(either) as found:
            assert isinstance(found, Contents)
            assert found.name == "B"
            assert list(found.files) == ["LICENSE", "configs/a.json", "models/model.ts"]
            for name, size in found.files.items():
                assert found.path(name).read_bytes() == (bundle / name).read_bytes()
                assert (found.path(name).stat().st_size, found.digests[name]) == (size, sha256(bundle / name))
            root = found.root
            for path in [root.parent, root, *root.rglob("*")]:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    finally:
        os.umask(before)
    assert not root.parent.exists()


def test_a_change_of_the_original_changes_nothing_in_the_copy(bundle: Path, either: Path) -> None:
    with open_contents(either) as found:
        assert isinstance(found, Contents)
        if either == bundle:
            with (bundle / "models" / "model.ts").open("r+b") as stream:
                stream.write(b"hostile")
            (bundle / "LICENSE").unlink()
        else:
            with either.open("r+b") as stream:
                stream.truncate(0)
        assert found.path("models/model.ts").read_bytes() == b"\x00" * (3 << 20)
        assert found.path("LICENSE").read_bytes() == b"free"


def swap_for_link(bundle: Path, secret: Path) -> None:
    (bundle / "LICENSE").unlink()
    (bundle / "LICENSE").symlink_to(secret)


def swap_folder_for_link(bundle: Path, secret: Path) -> None:
    (bundle / "configs").rename(bundle.parent / "configs")
    (bundle / "configs").symlink_to(bundle.parent / "configs")


def swap_for_pipe(bundle: Path, secret: Path) -> None:
    (bundle / "LICENSE").unlink()
    os.mkfifo(bundle / "LICENSE")


SWAPS: dict[str, Callable[[Path, Path], Any]] = {
    "link": swap_for_link,
    "link above": swap_folder_for_link,
    "pipe": swap_for_pipe,
    "folder": lambda bundle, secret: ((bundle / "LICENSE").unlink(), (bundle / "LICENSE").mkdir()),
    "longer": lambda bundle, secret: (bundle / "LICENSE").write_bytes(b"freedom"),
    "shorter": lambda bundle, secret: (bundle / "LICENSE").write_bytes(b"fre"),
    "gone": lambda bundle, secret: (bundle / "LICENSE").unlink(),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_what_was_swapped_after_it_was_listed_is_not_copied(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"sec!")  # as long as what it replaces

    def swapped(root: Path, files: Any, target: Path) -> dict[str, str]:
        SWAPS[swap](bundle, secret)
        try:
            return copy_files(root, files, target)
        finally:
            assert b"sec!" not in [path.read_bytes() for path in target.rglob("*") if path.is_file()]

    monkeypatch.setattr(contents, "copy_files", swapped)
    with (
        pytest.raises(ExportError, match=r"B/(LICENSE|configs/a.json) changed while it was read"),
        open_contents(bundle),
    ):
        pass


def test_a_file_that_grows_while_it_is_copied_is_noticed_and_not_followed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = bundle / "models" / "model.ts", copying._write
    size = path.stat().st_size

    def growing(stream: Any, chunk: bytes, target: Path) -> None:
        write(stream, chunk, target)
        with path.open("ab") as original:
            original.write(b"x" * (1 << 20))

    monkeypatch.setattr(copying, "_write", growing)
    (tmp_path / "T").mkdir()
    with pytest.raises(ExportError, match=r"model\.ts changed while it was read"):
        copy_files(bundle, {"models/model.ts": size}, tmp_path / "T")
    assert path.stat().st_size > size
    assert (tmp_path / "T" / "models" / "model.ts").stat().st_size == size


def test_too_little_room_is_named_before_anything_is_copied(either: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: Usage(10, 9, 1000))
    with (
        pytest.raises(ExportError, match=r"needs 3,145,734 bytes, and .* has 1,000 free; .*TMPDIR"),
        open_contents(either),
    ):
        pass


def test_a_disk_that_fills_up_is_no_damaged_bundle(either: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, chunk: bytes, target: Path) -> None:
        with copying._naming_room(target):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying, "_write", full)
    with pytest.raises(ExportError, match=r"cannot be written to .*no room left.*TMPDIR"), open_contents(either):
        pass


def test_a_folder_has_the_limits_of_a_zip(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limits, problem in ((Limits(members=4, size=1 << 30), "files"), (Limits(members=9, size=1000), "bytes")):
        monkeypatch.setattr(contents, "_LIMITS", limits)
        with open_contents(bundle) as found:
            assert isinstance(found, list)
            assert problem in found[0].problem


def test_empty_folders_count_as_well(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_LIMITS", Limits(members=50, size=1 << 30))
    for index in range(60):
        (bundle / "configs" / f"{index}").mkdir()
    with open_contents(bundle) as found:
        assert isinstance(found, list)


def test_a_bundle_behind_a_link_has_the_name_of_its_folder(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    with open_contents(tmp_path / "current") as found:
        assert isinstance(found, Contents)
        assert found.name == "B"


@pytest.mark.slow
@given(files=st.dictionaries(PATHS, st.binary(max_size=200), max_size=6))
def test_any_tree_is_copied_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("tree") / "B"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with open_contents(folder) as found:
        assert isinstance(found, Contents)
        assert {name: found.path(name).read_bytes() for name in found.files} == files
        assert found.digests == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
