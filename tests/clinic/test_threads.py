"""How many threads torch may use."""

from __future__ import annotations

import pytest

from monai_fedlora.clinic.threads import USUAL_THREADS, torch_threads
from monai_fedlora.errors import ConfigError


@pytest.mark.parametrize(("text", "threads"), [("3", 3), (None, None)])
def test_threads_are_capped(monkeypatch: pytest.MonkeyPatch, text: str | None, threads: int | None) -> None:
    if text is not None:
        monkeypatch.setenv("MONAI_FEDLORA_THREADS", text)
        assert torch_threads() == threads
    assert 1 <= torch_threads() <= USUAL_THREADS


@pytest.mark.parametrize("text", ["0", "many", ""])
def test_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_THREADS", text)
    with pytest.raises(ConfigError, match="number of threads"):
        torch_threads()
