"""A header that passes belongs to a file that can be decoded, and is read without decoding it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from monai_fedlora.errors import DataError
from monai_fedlora.formats.image_header import check_image_header
from monai_fedlora.formats.photograph_file import read_photograph

SUFFIXES = (".jpg", ".png", ".tif")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_width_and_height_are_those_of_the_file_before_any_rotation(tmp_path, photograph, suffix, mode):
    photograph(tmp_path / f"a{suffix}", (40, 36), mode)
    assert check_image_header(tmp_path / f"a{suffix}") == (40, 36)


def save(path: Path, levels: np.ndarray, **options: object) -> None:
    Image.fromarray(levels).save(path, **options)


def test_alpha_palettes_16_bits_rotation_and_compression_are_photographs_too(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path / "alpha.png", rng.integers(0, 256, (40, 48, 4), dtype=np.uint8))
    save(tmp_path / "deep.png", rng.integers(0, 65536, (40, 48), dtype=np.uint16))
    save(tmp_path / "deep.tif", rng.integers(0, 65536, (40, 48), dtype=np.uint16))
    save(tmp_path / "packed.tif", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), compression="tiff_lzw")
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "turned.jpg", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), exif=exif)
    Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).quantize(8).save(tmp_path / "few.png")
    for path in sorted(tmp_path.iterdir()):
        assert check_image_header(path) == (48, 40)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_complete_file_is_not_decoded(tmp_path, photograph, monkeypatch, suffix):
    photograph(tmp_path / f"a{suffix}")

    def decoded(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    check_image_header(tmp_path / f"a{suffix}")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(SUFFIXES), kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_was_cut_unless_it_can_be_decoded(tmp_path, photograph, suffix, kept):
    path = tmp_path / f"a{suffix}"
    photograph(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    try:
        check_image_header(path)
    except DataError as error:
        assert str(path) in str(error)
        return
    read_photograph(path)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(SUFFIXES), place=st.floats(0, 1, exclude_max=True), damage=st.binary(min_size=1))
def test_any_damage_gives_a_data_error_or_a_size(tmp_path, photograph, suffix, place, damage):
    path = tmp_path / f"a{suffix}"
    photograph(path)
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    try:
        width, height = check_image_header(path)
    except DataError as error:
        assert str(path) in str(error)
        return
    assert min(width, height) >= 32


@given(content=st.binary(max_size=80))
def test_bytes_that_are_no_image_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "noise.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"noise\.jpg"):
        check_image_header(path)


def test_what_follows_the_end_of_a_jpeg_does_no_harm(tmp_path, photograph):
    photograph(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as stream:
        stream.write(b"\0" * 100)
    assert check_image_header(tmp_path / "a.jpg") == (40, 36)


def test_a_decompression_bomb_is_refused_by_its_header_alone(tmp_path):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    for side in (10_000, 100_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=r"bomb\.png"):
                check_image_header(tmp_path / "bomb.png")


def test_thumbnails_animations_and_other_formats_are_refused(tmp_path, photograph):
    photograph(tmp_path / "small.png", (40, 20))
    pages = [Image.new("L", (40, 40), level) for level in (0, 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    stream = io.BytesIO()
    pages[0].save(stream, "GIF")
    (tmp_path / "renamed.jpg").write_bytes(stream.getvalue())
    for name, message in (("small.png", "40 x 20"), ("pages.tif", "2 pages"), ("renamed.jpg", "not a JPEG")):
        with pytest.raises(DataError, match=message):
            check_image_header(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.jpg does not exist"):
        check_image_header(tmp_path / "gone.jpg")
