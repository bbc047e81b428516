"""Reading photographs: against numpy, and never wrong in silence."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from monai_fedlora.errors import DataError, OutOfMemory
from monai_fedlora.formats.photograph_file import MAXIMUM_PIXELS, MINIMUM_SIDE, SUFFIXES, read_photograph

TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def test_too_little_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(pixels(40, 50, 3)).save(tmp_path / "a.png")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("monai_fedlora.formats.photograph_file._levels", full)
    with pytest.raises(OutOfMemory, match=r"while reading .*a\.png"):
        read_photograph(tmp_path / "a.png")


def pixels(*shape: int, seed: int = 0, white: int = 255) -> np.ndarray:
    dtype = np.uint8 if white == 255 else np.uint16
    return np.random.default_rng(seed).integers(0, white + 1, shape).astype(dtype)


def channels_first(levels: np.ndarray) -> np.ndarray:
    return np.moveaxis(levels, -1, 0).astype(np.float32)


def tiff(width: int, height: int, data: bytes, *, bits: int, photometric: int = 1) -> bytes:
    """A little-endian uncompressed grey TIFF, written by hand."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG file, written by hand."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("orientation", [None, 0, *TURNED, 9])
def test_photograph_is_turned_as_its_exif_says(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    image = Image.fromarray(pixels(34, 41, 3))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(tmp_path / f"plain{suffix}")
    image.save(tmp_path / f"turned{suffix}", exif=exif)
    plain = np.moveaxis(read_photograph(tmp_path / f"plain{suffix}"), 0, -1)
    expected = channels_first(TURNED.get(orientation or 1, TURNED[1])(plain))
    np.testing.assert_array_equal(read_photograph(tmp_path / f"turned{suffix}"), expected)


def test_colour_keeps_its_levels(tmp_path: Path) -> None:
    colour = pixels(40, 50, 3)
    Image.fromarray(colour).save(tmp_path / "a.png")
    found = read_photograph(str(tmp_path / "a.png"))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, channels_first(colour) / np.float32(255))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = pixels(40, 50)
    Image.fromarray(grey).save(tmp_path / "a.tiff")
    Image.fromarray(grey > 127).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tiff"), np.stack([grey] * 3) / np.float32(255))
    np.testing.assert_array_equal(read_photograph(tmp_path / "b.png"), np.stack([grey > 127] * 3).astype(np.float32))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_places_become_black(tmp_path: Path, mode: str) -> None:
    levels = pixels(40, 50, len(mode))
    Image.fromarray(levels, mode).save(tmp_path / "a.png")
    colour = np.broadcast_to(levels[..., :-1], (40, 50, 3)) / np.float32(255)
    expected = channels_first(colour * (levels[..., -1:] / np.float32(255)))
    np.testing.assert_allclose(read_photograph(tmp_path / "a.png"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transparent", [None, 3])
def test_palette_gives_its_colours(tmp_path: Path, transparent: int | None) -> None:
    index, colours = pixels(40, 50) % 5, pixels(5, 3, seed=1)
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", **({} if transparent is None else {"transparency": transparent}))
    expected = np.where((index == transparent)[..., None], 0, colours[index]) / 255
    np.testing.assert_allclose(read_photograph(tmp_path / "a.png"), channels_first(expected), rtol=0, atol=1e-6)


def test_colour_with_a_transparent_colour(tmp_path: Path) -> None:
    colour = pixels(40, 50, 3)
    Image.fromarray(colour).save(tmp_path / "a.png", transparency=tuple(int(level) for level in colour[7, 8]))
    found = read_photograph(tmp_path / "a.png")
    assert (found[:, 7, 8] == 0).all()
    np.testing.assert_array_equal(found[:, :7], channels_first(colour[:7]) / np.float32(255))


def test_cmyk_becomes_red_green_and_blue(tmp_path: Path) -> None:
    ink = pixels(40, 50, 4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    expected = (1 - ink[..., :3] / 255) * (1 - ink[..., 3:] / 255)
    np.testing.assert_allclose(read_photograph(tmp_path / "a.tif"), channels_first(expected), rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_by_their_depth_not_their_brightest_pixel(tmp_path: Path, suffix: str) -> None:
    grey = pixels(40, 50, white=4000)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    expected = np.stack([grey / 65535] * 3)
    np.testing.assert_allclose(read_photograph(tmp_path / f"a{suffix}"), expected, rtol=1e-6)


def test_sixteen_bits_with_the_high_byte_first(tmp_path: Path) -> None:
    grey = pixels(40, 50, white=65535)
    Image.frombytes("I;16B", (50, 40), grey.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_photograph(tmp_path / "a.tif")[0], grey / 65535, rtol=1e-6)


def test_twelve_bits_are_scaled_by_theirs(tmp_path: Path) -> None:
    grey = pixels(40, 50, white=4095)
    low, high = grey[:, ::2].astype(int), grey[:, 1::2].astype(int)
    packed = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], axis=-1).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(50, 40, packed.tobytes(), bits=12))
    np.testing.assert_allclose(read_photograph(tmp_path / "a.tif")[1], grey / 4095, rtol=1e-6)


def test_colour_of_sixteen_bits_is_read_at_eight(tmp_path: Path) -> None:
    colour = pixels(40, 50, 3, white=65535)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    (tmp_path / "a.png").write_bytes(png(50, 40, bits=16, colour=2, rows=rows))
    np.testing.assert_allclose(
        read_photograph(tmp_path / "a.png"), channels_first(colour) / 65535, rtol=0, atol=1.01 / 255
    )


def test_preview_behind_a_jpeg_is_left_alone(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels(40, 50, 3, seed=seed)) for seed in (0, 1))
    first.save(tmp_path / "one.jpg")
    first.save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_photograph(tmp_path / "two.jpg"), read_photograph(tmp_path / "one.jpg"))


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(pixels(40, 50, 3)).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(
        read_photograph(tmp_path / "a.jpg"), channels_first(pixels(40, 50, 3)) / np.float32(255)
    )


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_photograph(path)
    assert str(path) in str(error.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "a.png", "does not exist")
    refused(tmp_path, "not a file")


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "not a JPEG, PNG or TIFF")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_other_formats_are_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(pixels(40, 50, 3)).save(tmp_path / "a.png", format=kind)
    refused(tmp_path / "a.png", "not a JPEG, PNG or TIFF")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels(60, 70, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    refused(path, "copy it again|export the photograph again")


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_pixels_without_a_white_are_refused(tmp_path: Path, dtype: type, mode: str) -> None:
    levels = pixels(40, 50).astype(dtype)
    if mode == "F":
        levels[3, 4] = np.nan
    Image.fromarray(levels).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", f"of type {mode}, which have no defined white")


def test_negative_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(50, 40, pixels(40, 50, white=65535).tobytes(), bits=16, photometric=0))
    refused(tmp_path / "a.tif", "negative")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels(40, 50, 3, seed=seed)) for seed in (0, 1))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    refused(tmp_path / "a.tif", "2 pages")


@pytest.mark.parametrize(("mode", "colour"), [("RGB", "pink"), ("L", 7), ("I;16", 0)])
def test_blank_photograph_is_refused(tmp_path: Path, mode: str, colour: str | int) -> None:
    Image.new(mode, (40, 50), colour).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "is blank")


def test_size_is_bounded_before_anything_is_decoded(tmp_path: Path) -> None:
    Image.fromarray(pixels(MINIMUM_SIDE - 1, 50, 3)).save(tmp_path / "small.png")
    refused(tmp_path / "small.png", "thumbnail")
    side = int(MAXIMUM_PIXELS**0.5)
    (tmp_path / "large.png").write_bytes(png(side, side + 1, bits=8, colour=2, rows=b""))
    refused(tmp_path / "large.png", "scale it down")
    (tmp_path / "bomb.png").write_bytes(png(1 << 20, 1 << 20, bits=8, colour=2, rows=b""))
    refused(tmp_path / "bomb.png", "exceeds limit")


@given(arrays(np.uint8, st.tuples(st.integers(32, 40), st.integers(32, 40), st.just(3)), elements=st.integers(0, 255)))
@settings(max_examples=25)
def test_lossless_files_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, levels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("p") / "a.png"
    Image.fromarray(levels).save(path)
    if (levels == levels[:1, :1]).all():
        refused(path, "is blank")
    else:
        np.testing.assert_array_equal(read_photograph(path), channels_first(levels) / np.float32(255))


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(33, 35, 3)).save(stream, format=kind, exif=exif)
    return stream.getvalue()


FILES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "TIFF")}


@pytest.mark.slow
@given(
    kind=st.sampled_from(sorted(FILES)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=150)
def test_damaged_file_gives_a_photograph_or_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: float, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(FILES[kind][: max(1, round(cut * len(FILES[kind])))])
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path_factory.mktemp("p") / "a.bin"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged EXIF
        try:
            found = read_photograph(path)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert found.shape[0] == 3 and min(found.shape[1:]) >= MINIMUM_SIDE
            assert found.dtype == np.float32 and 0 <= found.min() < found.max() <= 1


@pytest.mark.realdata
def test_real_dermoscopy_is_read(real_data: Path) -> None:
    paths = sorted((real_data / "fed_isic2019" / "ISIC_2019_Training_Input_preprocessed").iterdir())[:20]
    assert paths and {path.suffix for path in paths} <= set(SUFFIXES)
    for path in paths:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_photograph(path), channels_first(np.asarray(image)) / np.float32(255))
