"""Other frames of a cine that was read give what reading it with these frames gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.chosen_frames import choose_again
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.cine_studies import affine_of, write_nifti


@pytest.fixture(params=["dicom", "file"])
def make(request: pytest.FixtureRequest, stored_study: Path, cine: np.ndarray, tmp_path: Path) -> Callable[..., Study]:
    """A study, with frames that somebody gave or without."""
    if request.param == "dicom":
        return lambda frames=None: Study("d", DicomFiles(stored_study, frames))
    path = write_nifti(tmp_path / "c.nii.gz", cine, affine_of(cine))
    return lambda frames=None: Study("c", CineFile(path, frames))


@pytest.mark.slow
@pytest.mark.parametrize("frames", [(9, 5), (4, 0)], ids=["near", "exchanged"])
def test_image_and_doubts_are_those_of_the_chosen_frames(
    make: Callable[..., Study], frames: tuple[int, int], classifier: Classifier
) -> None:
    given = load_study(make(frames), classifier)
    chosen = choose_again(load_study(make(), classifier), ed=frames[0], es=frames[1])
    torch.testing.assert_close(chosen.image, given.image, rtol=0, atol=0)
    assert sorted(chosen.doubts) == sorted(given.doubts)
    assert chosen.frames is not None
    assert (chosen.frames.ed, chosen.frames.es, chosen.frames.by_person) == (*frames, True)


@pytest.mark.slow
def test_what_the_program_found_stays_known(make: Callable[..., Study], classifier: Classifier) -> None:
    loaded = load_study(make(), classifier)
    chosen = choose_again(loaded, ed=9, es=5)
    assert loaded.frames is not None
    found = [loaded.frames.called(frame) for frame in (loaded.frames.ed, loaded.frames.es)]
    (note,) = (note for note in chosen.notes if note not in loaded.notes)
    assert note.startswith("a person chose frame 10")
    assert f"had found {found[0]} as ED and {found[1]} as ES (counted from 1)" in note


@pytest.mark.slow
def test_doubts_about_the_frames_before_go_and_others_stay(make: Callable[..., Study], classifier: Classifier) -> None:
    loaded = load_study(make(), classifier)
    assert loaded.frames is not None
    odd = replace(
        loaded, frames=replace(loaded.frames, doubts=("odd time",)), doubts=("odd time", "bad geometry", *loaded.doubts)
    )
    doubts = choose_again(odd, ed=9, es=5).doubts
    assert "odd time" not in doubts
    assert "bad geometry" in doubts


@pytest.mark.slow
@pytest.mark.parametrize("frames", [(0, 0), (0, 10), (-1, 4)])
def test_frames_that_cannot_be_are_refused(
    frames: tuple[int, int], make: Callable[..., Study], classifier: Classifier
) -> None:
    with pytest.raises(DataError, match="0 to 9"):
        choose_again(load_study(make(), classifier), ed=frames[0], es=frames[1])
