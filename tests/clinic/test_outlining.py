from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.chosen_frames import choose_again
from monai_fedlora.clinic.outlining import AT_ONCE, frame_pairs, outline_study
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.clinic.trust import TrainedOn, Trust
from monai_fedlora.data.records import FramePair
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.cine_studies import affine_of, beating_heart, write_nifti, write_study
from tests.clinic.masked_hearts import grey_masks
from tests.clinic.outliners import GreyOutliner

FRAMES = 10


@pytest.fixture(scope="module")
def loaded(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> LoadedStudy:
    """A heart long enough for its apex and base."""
    folder = write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8))
    return load_study(Study("p", DicomFiles(folder)), classifier)


def test_every_frame_is_outlined_and_the_numbers_are_of_the_largest_and_smallest_volume(loaded: LoadedStudy) -> None:
    outliner = GreyOutliner()
    heart = outline_study(outliner, loaded)
    truth = grey_masks(loaded)
    measured = heart.measured
    assert measured.moving is not None and measured.beat is not None and measured.function is not None
    np.testing.assert_array_equal(measured.moving, truth)
    assert (measured.ed, measured.es) == (measured.beat.ed, measured.beat.es) and measured.es == 4
    np.testing.assert_array_equal(measured.masks, truth[[measured.ed, measured.es]])
    curve = (truth == 1).sum(axis=(1, 2, 3)) * np.prod(measured.spacing) / 1000
    assert measured.function.lv_edv == pytest.approx(curve[measured.ed])
    assert measured.function.lv_esv == pytest.approx(curve.min())
    assert "largest and smallest" in measured.how and not measured.failed
    assert any("made-up hearts" in doubt for doubt in heart.doubts) and heart.state == "doubtful"


def test_pairs_come_in_batches_in_one_order_and_the_chosen_pair_in_every_order(loaded: LoadedStudy) -> None:
    outliner = GreyOutliner()
    outline_study(outliner, loaded)
    sizes = [shape[0] for shape, _ in outliner.asked]
    assert sizes == [AT_ONCE, AT_ONCE, FRAMES - 2 * AT_ONCE, 1]
    assert [every for _, every in outliner.asked] == [False, False, False, True]


def test_every_frame_stands_where_its_area_of_blood_belongs() -> None:
    pairs = frame_pairs([10.0, 9.0, 5.0, 1.0, 2.0, 8.0], ed=0, es=3)
    assert pairs == [(0, 3), (1, 3), (0, 2), (0, 3), (0, 4), (5, 3)]
    assert all(frame in pair and pair[0] != pair[1] for frame, pair in enumerate(pairs))
    assert frame_pairs([1.0, 1.0, 1.0], ed=2, es=0) == [(2, 0), (1, 0), (2, 0)]


def test_frames_that_a_person_chose_are_those_of_the_numbers(loaded: LoadedStudy) -> None:
    chosen = choose_again(loaded, ed=1, es=6)
    measured = outline_study(GreyOutliner(), chosen).measured
    assert (measured.ed, measured.es) == (1, 6) and "as a person chose them" in measured.how


def test_a_frame_that_fails_is_named_and_the_frames_are_those_of_grey_levels(loaded: LoadedStudy) -> None:
    assert loaded.cine is not None and loaded.frames is not None
    bad = loaded.cine[..., 2]
    outliner = GreyOutliner(refuses=lambda pair: any(np.array_equal(frame, bad) for frame in pair))
    measured = outline_study(outliner, loaded).measured
    assert dict(measured.failed) == {2: "the model refuses this image: a frame is blank"}
    assert (measured.ed, measured.es) == (loaded.frames.ed, loaded.frames.es) and measured.beat is None
    assert measured.function is not None and "by grey levels" in measured.how
    assert any("No outlines in frame 3" in sentence for sentence in measured.sentences())
    assert measured.to_json()["failed_frames"] == {"2": "the model refuses this image: a frame is blank"}


def test_a_failed_end_systole_leaves_no_volume_but_the_reason(loaded: LoadedStudy) -> None:
    def without_small_ones(masks: np.ndarray) -> np.ndarray:
        small = (masks == 1).sum(axis=(2, 3, 4)) < 430
        masks[small] = 0
        return masks

    measured = outline_study(GreyOutliner(change=without_small_ones), loaded).measured
    assert loaded.frames is not None and loaded.frames.es in measured.failed
    assert measured.function is None and measured.wall is None
    assert any("end-systole" in reason and "no left ventricle" in reason for reason in measured.no_volume_because)


def test_a_stack_without_an_apex_gives_no_volume_and_keeps_its_outlines(loaded: LoadedStudy) -> None:
    def cut(masks: np.ndarray) -> np.ndarray:
        masks[..., 5:] = masks[..., 4:5]
        return masks

    heart = outline_study(GreyOutliner(change=cut), loaded)
    assert heart.measured.function is None and heart.to_json()["function"] is None
    assert any("apex is missing" in sentence for sentence in heart.sentences())
    assert len(heart.measured.contours()["frames"]) == FRAMES


@pytest.mark.parametrize("slices", [8, 12])
def test_a_heart_longer_than_the_network_looks_has_no_volume(
    classifier: Classifier, tmp_path: Path, slices: int
) -> None:
    folder = write_study(tmp_path / "heart", beating_heart(slices=12))
    loaded = load_study(Study("p", DicomFiles(folder)), classifier)
    z = float(np.linalg.norm(loaded.cine_affine[:3, 2])) if loaded.cine_affine is not None else 0.0

    def looked_at(masks: np.ndarray) -> np.ndarray:
        start = (12 - slices) // 2
        masks[..., :start] = 0
        masks[..., start + slices :] = 0
        return masks

    heart = outline_study(GreyOutliner(slices=slices, spacing=(4.0, 4.0, z), change=looked_at), loaded)
    said = any("looks at 8 of 12 slices" in sentence for sentence in heart.sentences())
    assert said == (heart.measured.function is None) == (slices == 8)


def test_doubts_about_the_study_are_doubts_about_its_outlines(loaded: LoadedStudy) -> None:
    trusted = Trust(origin=TrainedOn(kind="real", name="hearts"))
    doubted = replace(loaded, doubts=("a frame has no contrast",))
    heart = outline_study(GreyOutliner(trust=trusted), doubted)
    assert heart.state == "doubtful" and "a frame has no contrast" in heart.to_json()["doubts"]
    assert any("a frame has no contrast" in sentence for sentence in heart.sentences())


def test_two_files_are_measured_as_given(classifier: Classifier, tmp_path: Path) -> None:
    cine = beating_heart(slices=8)
    ed, es = (
        write_nifti(tmp_path / f"h_{name}.nii.gz", cine[..., frame], affine_of(cine))
        for name, frame in (("ed", 0), ("es", 4))
    )
    pair = load_study(Study("p", FramePair(ed, es)), classifier)
    outliner = GreyOutliner()
    measured = outline_study(outliner, pair).measured
    assert measured.ed is None and measured.beat is None and measured.function is not None
    assert "two files" in measured.how and [every for _, every in outliner.asked] == [True]


def test_two_files_that_share_a_part_of_their_slices_have_no_volume(classifier: Classifier, tmp_path: Path) -> None:
    cine = beating_heart(slices=8)
    ed = write_nifti(tmp_path / "h_ed.nii.gz", cine[..., 0], affine_of(cine))
    es = write_nifti(tmp_path / "h_es.nii.gz", cine[:, :, :7, 4], affine_of(cine))
    heart = outline_study(GreyOutliner(), load_study(Study("p", FramePair(ed, es)), classifier))
    assert heart.measured.function is None and heart.measured.wall is not None
    assert any("end-diastole has 8 slices and end-systole 7" in sentence for sentence in heart.sentences())


def test_an_unknown_orientation_is_said(loaded: LoadedStudy) -> None:
    unknown = replace(loaded, orientation="placeholder")
    assert any("16 ways" in note for note in outline_study(GreyOutliner(), unknown).notes)
    assert not any("16 ways" in note for note in outline_study(GreyOutliner(), loaded).notes)


def test_what_cannot_be_outlined_is_refused(loaded: LoadedStudy) -> None:
    with pytest.raises(DataError, match="this is none"):
        outline_study(GreyOutliner(), replace(loaded, cine=None))
    with pytest.raises(DataError, match="volumes need LV"):
        outline_study(GreyOutliner(structures=("lesion",)), loaded)
