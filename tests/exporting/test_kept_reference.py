"""Noise is drawn once for a model: exporting again tells nothing more."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monai_fedlora.errors import ExportError, WeightsError
from monai_fedlora.exporting import kept_reference as module
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.kept_reference import NAME, keep_reference, kept_reference
from monai_fedlora.exporting.reference import Reference
from monai_fedlora.files import save_tensors

from .finished_runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def drawn(public: str = "phantoms", *, seed: int = 0) -> Reference:
    generator = torch.Generator().manual_seed(seed)
    return Reference(
        directions=torch.randn(12, 3, generator=generator),
        location=torch.randn(3, generator=generator),
        threshold=4.25,
        training_cases=30,
        validation_cases=10,
        patients=40,
        deviation=0.5,
        rho=1.0,
        public=public,
    )


@pytest.fixture
def final(tmp_path: Path) -> Path:
    path = tmp_path / "final.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"a": "b"})
    return path


def same(found: Reference | None, expected: Reference) -> bool:
    assert found is not None
    tensors = torch.equal(found.directions, expected.directions) and torch.equal(found.location, expected.location)
    return tensors and replace(found, directions=None, location=None) == replace(  # type: ignore[arg-type]
        expected, directions=None, location=None
    )


def test_what_was_drawn_is_found_again_by_its_public_images(final: Path) -> None:
    assert kept_reference(final, "phantoms") is None
    first = keep_reference(final, drawn())
    assert same(kept_reference(final, "phantoms"), first)
    assert kept_reference(final, "other images") is None
    assert (final.with_name(NAME).stat().st_mode & 0o077) == 0


def test_draws_for_other_public_images_add_up(final: Path) -> None:
    first = keep_reference(final, drawn())
    second = keep_reference(final, drawn("other images", seed=1))
    third = keep_reference(final, drawn("more images", seed=2))
    assert (first.rho, second.rho, third.rho) == (1.0, 2.0, 3.0)
    for expected in (first, second, third):
        assert same(kept_reference(final, expected.public), replace(expected, rho=3.0))


def test_those_of_another_model_are_not_taken_and_count(final: Path) -> None:
    """Evaluating once more rewrites the model's file; the patients are the same."""
    keep_reference(final, drawn())
    save_tensors(final, {"x": torch.ones(3)}, {"a": "later"})
    assert kept_reference(final, "phantoms") is None
    second = keep_reference(final, drawn(seed=1))
    assert second.rho == 2.0
    assert same(kept_reference(final, "phantoms"), second)


def test_a_damaged_file_is_named_and_no_reason_to_draw_again(final: Path) -> None:
    keep_reference(final, drawn())
    path = final.with_name(NAME)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsError, match=NAME):
        kept_reference(final, "phantoms")
    save_tensors(path, {}, {"references": '[{"rho": 1}]'})
    with pytest.raises(WeightsError, match="holds no references"):
        kept_reference(final, "phantoms")


def test_a_folder_that_cannot_be_written_gives_none(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(module, "save_tensors", refuse)
    with pytest.raises(ExportError, match="cannot be written"):
        keep_reference(final, drawn())


@pytest.mark.slow
def test_two_exports_of_a_model_ship_the_same_numbers(run: Run, tmp_path: Path) -> None:
    run.personal().with_name(NAME).unlink(missing_ok=True)
    found = [export_bundle(**run.options(tmp_path / name, program=False)) for name in ("first", "second")]
    first, second = (torch.jit.load(each.folder / "models" / "model.ts") for each in found)
    assert torch.equal(first.network.location, second.network.location)
    assert len({each.metadata["out_of_distribution"]["threshold"] for each in found}) == 1
    run.personal().with_name(NAME).unlink()
    third = export_bundle(**run.options(tmp_path / "third", program=False))  # as from a copy of the run made before
    assert torch.equal(torch.jit.load(third.folder / "models" / "model.ts").network.location, first.network.location)
