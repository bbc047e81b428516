"""The lines of Python in the README run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

README = Path(__file__).resolve().parents[2] / "README.md"


def arrays(seed: int, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a bright square in every second image."""
    images = np.random.default_rng(seed).normal(size=(count, 3, 64, 64)).astype("float32")
    images[1::2, :, 16:32, 16:32] += 2
    return images, np.arange(count) % 2


@pytest.mark.slow
def test_two_hospitals_with_a_network_and_arrays_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines,) = (
        code for code in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S) if "federate" in code
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number in range(1, 5):
        names[f"x{number}"], names[f"y{number}"] = arrays(number)
    exec(lines, names)
    printed = capsys.readouterr().out
    assert all(f"{site}  {model}" in printed for site in ("north", "south") for model in ("personal", "shared"))
    assert "north" in (tmp_path / "report.html").read_text(encoding="utf-8")
    logits = names["model"](torch.tensor(names["x2"]))[0]
    program = torch.export.load(str(tmp_path / "bundle" / "models" / "model.pt2")).module()
    torch.testing.assert_close(program(torch.tensor(names["x2"])), logits, rtol=1e-4, atol=1e-4)
    assert type(names["model"]).__name__ == "ViT"
    assert names["attached"].shared().keys() and names["attached"].private().keys()


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200
