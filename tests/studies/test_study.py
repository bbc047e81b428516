"""What a study's files are called in an archive, and where they lie once they are unpacked."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.studies.study import CineFile, Packed


@pytest.mark.parametrize(
    "files", [FramePair(Path("d/a"), Path("d/b")), CineFile(Path("d/a"), (1, 2)), Photograph(Path("d/a"))]
)
def test_packed_files_are_the_same_files_elsewhere(files: FramePair | CineFile | Photograph) -> None:
    packed = Packed(Path("x.zip"), files)
    assert [str(path) for path in packed.paths] == (["d/a", "d/b"] if isinstance(files, FramePair) else ["d/a"])
    placed = packed.placed({PurePosixPath("d/a"): Path("/t/0"), PurePosixPath("d/b"): Path("/t/1")})
    assert type(placed) is type(files)
    assert Packed(Path("x.zip"), placed).paths == tuple(Path(f"/t/{number}") for number in range(len(packed.paths)))
    assert getattr(placed, "frames", None) == getattr(files, "frames", None)
