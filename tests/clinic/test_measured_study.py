from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.measured_study import measure_study
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.masked_hearts import ALGORITHM, small_heart


@pytest.fixture(scope="module")
def loaded(classifier: Classifier, stored_study: Path) -> LoadedStudy:
    return load_study(Study("p", DicomFiles(stored_study)), classifier)


def test_masks_of_all_frames_give_numbers_of_the_chosen_ones_and_a_curve(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    found = measure_study(moving, loaded, algorithm=ALGORITHM)
    assert loaded.frames is not None and found.function is not None and found.beat is not None
    np.testing.assert_array_equal(found.masks, moving[[loaded.frames.ed, loaded.frames.es]])
    volumes = [(frame == 1).sum() * np.prod(found.spacing) / 1000 for frame in moving]
    assert found.beat.volumes == pytest.approx(volumes)
    assert found.function.lv_edv == pytest.approx(volumes[loaded.frames.ed])
    assert (found.beat.ed, found.beat.es) == (9, 4)  # the middle of the frames at which it is full
    assert any(sentence.startswith("LV ejection fraction: ") for sentence in found.sentences())


def test_better_masks_of_the_chosen_frames_do_not_move_the_choice(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)

    def pair(ed: int, es: int) -> np.ndarray:
        smaller = moving[[ed, es]].copy()
        smaller[0, 20] = 0  # now the frames beside it are larger
        return smaller

    found = measure_study(moving, loaded, algorithm=ALGORITHM, pair=pair)
    assert found.beat is not None and found.function is not None
    assert (found.beat.ed, found.beat.es) == (found.ed, found.es) == (9, 4)
    assert (
        found.beat.volumes[9] == pytest.approx(found.function.lv_edv)
        and max(found.beat.volumes) > found.function.lv_edv
    )


def test_the_frames_of_a_class_are_named_where_the_volumes_have_others(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    found = measure_study(moving, loaded, algorithm=ALGORITHM)
    assert loaded.frames is not None and loaded.frames.ed != found.ed
    assert found.how.startswith(f"End-diastole is {loaded.frames.called(9)}")
    assert f"they are {loaded.frames.called(loaded.frames.ed)}" in found.how


def test_json_holds_numbers_and_outlines_are_of_all_frames(loaded: LoadedStudy) -> None:
    found = measure_study(small_heart(loaded), loaded, algorithm=ALGORITHM)
    plain = found.to_json()
    assert plain["no_volume_because"] == [] and plain["beat"]["es"] == 4 and plain["function"]["lv_ef"] > 20
    assert len(found.contours()["frames"]) == 10


def test_two_frames_are_enough_and_have_no_curve(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    assert loaded.frames is not None
    pair = moving[[loaded.frames.ed, loaded.frames.es]]
    found = measure_study(pair, loaded, algorithm=ALGORITHM)
    whole = measure_study(moving, loaded, algorithm=ALGORITHM)
    assert found.function == whole.function and found.beat is None


def test_a_stack_without_an_apex_gives_no_volume_but_a_reason(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    moving[..., -1] = moving[..., 2]
    found = measure_study(moving, loaded, algorithm=ALGORITHM)
    assert found.function is None and found.to_json()["function"] is None
    assert any("the apex is missing" in sentence for sentence in found.sentences())


def test_without_volumes_there_is_no_curve(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    assert len(measure_study(moving, loaded, algorithm=ALGORITHM).to_json()["beat"]["lv_volumes_ml"]) == 10
    moving[..., -1] = moving[..., 2]
    beat = measure_study(moving, loaded, algorithm=ALGORITHM).to_json()["beat"]
    assert beat["es"] == 4 and beat["lv_volumes_ml"] is None


def test_exchanged_frames_give_no_numbers_but_a_reason(loaded: LoadedStudy) -> None:
    pair = small_heart(loaded)[[4, 0]]
    found = measure_study(pair, loaded, algorithm=ALGORITHM)
    assert found.function is None
    assert any("no smaller at end-systole" in reason for reason in found.no_volume_because)


@pytest.mark.parametrize(("value", "frame"), [(2, 0), (3, 0), (3, 1)])
def test_a_structure_that_was_not_found_has_no_numbers(loaded: LoadedStudy, value: int, frame: int) -> None:
    pair = small_heart(loaded)[[0, 4]]
    pair[frame][pair[frame] == value] = 0
    found = measure_study(pair, loaded, algorithm=ALGORITHM)
    assert found.function is not None and found.function.lv_ef is not None
    lost = {name for name, number in found.function.to_row().items() if number is None}
    assert lost == ({"lv_mass"} if value == 2 else {"rv_edv", "rv_esv", "rv_sv", "rv_ef"})
    assert len(found.not_found) == 1 and found.structures[value - 1] in found.not_found[0]


def test_a_right_ventricle_that_grows_has_no_numbers(loaded: LoadedStudy) -> None:
    pair = small_heart(loaded)[[0, 4]]
    ed = pair[0] == 3
    pair[1][ed & (pair[1] == 0)] = 3
    pair[0][ed & (np.cumsum(ed, axis=0) > 1)] = 0
    assert 0 < (pair[0] == 3).sum() < (pair[1] == 3).sum()
    found = measure_study(pair, loaded, algorithm=ALGORITHM)
    assert found.function is not None and found.function.lv_ef is not None
    assert found.function.rv_ef is found.function.rv_edv is None
    assert "larger at end-systole" in found.not_found[0]


def test_a_heart_that_does_not_move_has_no_beat(loaded: LoadedStudy) -> None:
    still = np.repeat(small_heart(loaded)[:1], 10, axis=0)
    assert measure_study(still, loaded, algorithm=ALGORITHM).beat is None


def test_masks_on_another_grid_are_refused(loaded: LoadedStudy) -> None:
    moving = small_heart(loaded)
    with pytest.raises(DataError, match="on the grid of the cine"):
        measure_study(moving[:, 1:], loaded, algorithm=ALGORITHM)
    with pytest.raises(DataError, match="on the grid of the cine"):
        measure_study(moving[:3], loaded, algorithm=ALGORITHM)
    with pytest.raises(DataError, match="on the grid of the cine"):
        measure_study(moving, replace(loaded, cine=None), algorithm=ALGORITHM)
