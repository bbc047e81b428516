"""What lies beside a final model is used for that model alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import WeightsError
from monai_fedlora.exporting.finished import read_finished
from monai_fedlora.exporting.kept_evidence import NOT_FINITE, NOT_KEPT, OTHER_MODEL, read_evidence
from monai_fedlora.files import load_tensors, save_tensors

from .finished_runs import Run


def test_evidence_comes_with_the_model(run: Run) -> None:
    found = read_finished(run.workspace, "site-1").evidence
    assert found.missing is None
    assert {split: tuple(value.shape) for split, value in found.logits.items()} == {
        "training": (40, 2),
        "validation": (60, 2),
        "test": (50, 2),
    }
    assert found.labels.keys() == found.logits.keys()
    assert {split: tuple(value.shape) for split, value in found.features.items()} == {
        "training": (40, 48),
        "validation": (60, 48),
        "test": (50, 48),
    }


def change(path: Path, alter: Callable[[dict[str, torch.Tensor], dict[str, str]], Any]) -> None:
    tensors, metadata = load_tensors(path)
    alter(tensors, metadata)
    save_tensors(path, tensors, metadata)


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda tensors, metadata: metadata.update(final_sha256="0" * 64), OTHER_MODEL),
        (lambda tensors, metadata: metadata.pop("final_sha256"), OTHER_MODEL),
        (lambda tensors, metadata: tensors["test/logits"].fill_(torch.nan), NOT_FINITE),
    ],
)
def test_evidence_of_something_else_is_not_used(run: Run, alter: Callable[..., Any], reason: str) -> None:
    change(run.personal().with_name("evidence.safetensors"), alter)
    found = read_evidence(run.personal())
    assert (found.missing, found.logits, found.features) == (reason, {}, {})


def test_evidence_of_another_site_is_not_used(run: Run) -> None:
    other = run.personal("clinic-b").with_name("evidence.safetensors")
    other.replace(run.personal().with_name("evidence.safetensors"))
    assert read_evidence(run.personal()).missing == OTHER_MODEL
    assert read_evidence(run.personal("clinic-b")).missing == NOT_KEPT


@given(place=st.integers(0, 60))
def test_a_damaged_file_is_named(stored_run: Run, tmp_path_factory: Any, place: int) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "final.safetensors").write_bytes(stored_run.personal().read_bytes())
    content = stored_run.personal().with_name("evidence.safetensors").read_bytes()
    (folder / "evidence.safetensors").write_bytes(content[: len(content) * place // 61])
    with pytest.raises(WeightsError, match=r"evidence\.safetensors"):
        read_evidence(folder / "final.safetensors")
