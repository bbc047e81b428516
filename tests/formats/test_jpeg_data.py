"""A JPEG file that was cut and closed is told from a whole one, whatever its kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_fedlora.errors import DataError
from monai_fedlora.formats.jpeg_data import missing_data
from monai_fedlora.formats.photograph_file import read_photograph

KINDS = (
    {},
    {"quality": 40, "subsampling": 2},
    {"quality": 95, "subsampling": 0, "optimize": True},
    {"progressive": True},
    {"restart_marker_blocks": 3},
    {"progressive": True, "restart_marker_rows": 1},
)
END = b"\xff\xd9"


def picture(mode: str = "RGB", size: tuple[int, int] = (75, 61), border: int = 0) -> Image.Image:
    """Coarse colours, framed in black where asked."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    levels = np.array(Image.fromarray(coarse).resize(size))
    if border:
        levels[:border] = levels[-border:] = levels[:, :border] = levels[:, -border:] = 0
    return Image.fromarray(levels).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("border", [0, 20])
def test_a_whole_file_lacks_nothing(options, mode, border):
    for size in ((75, 61), (64, 48), (33, 40)):
        content = encoded(picture(mode, size, border), **options)
        assert missing_data(content, decoded(content)) is None
        padded = content[:-2] + bytes(9) + END + b"behind the end"
        assert missing_data(padded, decoded(padded)) is None


@settings(max_examples=120, deadline=None)
@given(
    options=st.sampled_from(KINDS),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    border=st.sampled_from([0, 20]),
    share=st.floats(0.3, 1, exclude_max=True),
)
def test_a_cut_file_with_an_end_is_told_unless_nothing_is_missing(options, mode, border, share):
    content = encoded(picture(mode, border=border), **options)
    cut = content[: int(share * len(content))] + END
    try:
        image = decoded(cut)
    except OSError:
        return
    if missing_data(cut, image) is None:
        differs = np.argwhere(np.asarray(image) != np.asarray(decoded(content)))
        assert len(differs) == 0 or (differs.max(0) - differs.min(0))[:2].max() <= 16


def test_a_part_between_restart_markers_that_was_lost_is_told():
    content = encoded(picture(), restart_marker_blocks=2)
    first, second = content.index(b"\xff\xd1"), content.index(b"\xff\xd2")
    shortened = content[:first] + content[second:]
    assert "restart" in str(missing_data(shortened, decoded(shortened)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_cut_photograph_is_refused_by_name(tmp_path: Path, options):
    content = encoded(picture(size=(200, 150)), **options)
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2] + END)
    with pytest.raises(DataError, match=r"cut\.jpg is incomplete: .*; copy it again"):
        read_photograph(tmp_path / "cut.jpg")
    (tmp_path / "whole.jpg").write_bytes(content)
    assert read_photograph(tmp_path / "whole.jpg").shape == (3, 150, 200)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    content = bytearray(encoded(picture(), **data.draw(st.sampled_from(KINDS))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(content)
    try:
        levels = read_photograph(path)
    except DataError:
        return
    assert np.isfinite(levels).all()


def test_scans_without_end_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    content = encoded(picture(), progressive=True)
    last = content.rindex(b"\xff\xda")
    (tmp_path / "endless.jpg").write_bytes(content[:-2] + content[last:-2] * 20_000 + b"\xff\xd9")
    with pytest.raises(DataError, match=r"endless\.jpg has more than 256 scans"):
        read_photograph(tmp_path / "endless.jpg")
