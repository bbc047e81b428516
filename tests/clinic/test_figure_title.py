"""The name above a figure is whole and readable, whatever its script and length."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.clinic import lettering as letters
from monai_fedlora.clinic.figure_title import add_title
from monai_fedlora.clinic.lettering import lettering

WIDTH, HEIGHT = 600, 40


@pytest.fixture
def figure() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30))


@pytest.mark.parametrize("name", ["P1", "Иванов", "x" * 300, "many words " * 40, "张三"])
def test_figure_stays_whole_under_a_title_that_stays_within(figure: Image.Image, name: str) -> None:
    titled = np.asarray(add_title(figure, name))
    np.testing.assert_array_equal(titled[-HEIGHT:], np.asarray(figure))
    strip = titled[: -HEIGHT - 1]
    assert strip.min() < 100
    assert (strip[:, :15] == 255).all()
    assert (strip[:, -15:] == 255).all()


def test_long_name_is_written_out(figure: Image.Image) -> None:
    short, long = add_title(figure, "x"), add_title(figure, "x" * 300)
    assert long.height > short.height
    assert (np.asarray(long).min(axis=2) < 100).sum() > 100 * (np.asarray(short).min(axis=2) < 100)[:-HEIGHT].sum()


def test_names_that_differ_give_figures_that_differ(figure: Image.Image) -> None:
    titles = [add_title(figure, name).tobytes() for name in ("Müller", "Möller", "Иванов", "Петров", "张三", "李四")]
    assert len(set(titles)) == len(titles)


def test_letters_that_no_font_has_are_written_as_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    letters._fonts.cache_clear()
    letters._has.cache_clear()
    monkeypatch.setattr(letters, "_FONTS", ())
    try:
        assert lettering("a 张", 20)[0] == "a \\u5f20"
        assert lettering("plain", 20)[0] == "plain"
    finally:
        letters._fonts.cache_clear()
        letters._has.cache_clear()
