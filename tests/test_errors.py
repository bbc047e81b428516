"""Errors about unknown words name the nearest known one."""

from __future__ import annotations

import pytest

from monai_fedlora.errors import nearest


@pytest.mark.parametrize("word", ["dual-lora", "Dual_LoRA", "Med-DualLoRA", "DUAL_LORA"])
def test_case_does_not_hide_the_nearest_word(word: str) -> None:
    assert nearest(word, ["fedavg", "dual_lora"]) == "; did you mean 'dual_lora'?"


def test_the_nearest_word_keeps_its_own_case() -> None:
    assert nearest("mel", ["NV", "MEL"]) == "; did you mean 'MEL'?"


def test_words_that_are_like_none_get_all() -> None:
    assert nearest("x", ["a", "B"]) == "; choose from a, B"
    assert nearest("x", []) == ""
