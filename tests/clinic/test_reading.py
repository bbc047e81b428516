"""From files to the model's input: one heart gives the same image by every route."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_fedlora.clinic import dicom_pixels
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.cine_studies import ES_FRAME, affine_of, write_nifti, write_study


@pytest.fixture(scope="module")
def files(cine: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heart as a pair of frames and as a 4D file."""
    folder, affine = tmp_path_factory.mktemp("nifti"), affine_of(cine)
    write_nifti(folder / "p_ed.nii.gz", cine[..., 0], affine)
    write_nifti(folder / "p_es.nii.gz", cine[..., ES_FRAME], affine)
    write_nifti(folder / "p.nii.gz", cine, affine)
    return folder


def pair(folder: Path) -> Study:
    return Study("p", FramePair(folder / "p_ed.nii.gz", folder / "p_es.nii.gz"))


@pytest.mark.slow
def test_pair_cine_and_dicom_are_one_image(
    classifier: Classifier, files: Path, stored_study: Path, tmp_path: Path
) -> None:
    """No axis is flipped or exchanged between the routes: the heart has no symmetry."""
    expected = load_study(pair(files), classifier)
    assert (expected.frames, expected.notes, expected.doubts, expected.sources) == (None, (), (), ())
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", stored_study)
    for source in (CineFile(files / "p.nii.gz"), DicomFiles(stored_study), DicomFiles(Path(archive))):
        loaded = load_study(Study("p", source), classifier)
        torch.testing.assert_close(loaded.image, expected.image, rtol=1e-5, atol=1e-2)
        assert loaded.frames is not None
        assert (loaded.frames.ed, loaded.frames.es) == (0, ES_FRAME)
        assert loaded.doubts == ()
        is_dicom = isinstance(source, DicomFiles)
        assert loaded.notes == (("the cine is series 5: 6 slices of 10 frames",) if is_dicom else ())
        assert loaded.quotes == (("series 5 is 'cine sax'",) if is_dicom else ())


@pytest.mark.slow
@pytest.mark.parametrize("signs", [(-1, -1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_a_world_of_wrong_signs_is_doubted_unless_the_bundle_knows_no_orientation(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path, signs: tuple[int, int, int]
) -> None:
    study = Study("p", CineFile(write_nifti(tmp_path / "p.nii", cine, np.diag([*signs, 1.0]) @ affine_of(cine))))
    (doubt,) = load_study(study, classifier).doubts
    assert "from the usual short-axis view" in doubt
    old = replace(classifier, resampling={"pixdim": [5.0, 5.0, 10.0]})
    assert load_study(study, old).doubts == ()


def test_under_a_pseudonym_nothing_is_quoted_that_may_name_a_person(classifier: Classifier, stored_study: Path) -> None:
    loaded = load_study(Study("p", DicomFiles(stored_study), ("left out: SMITH.txt",), is_pseudonym=True), classifier)
    assert loaded.quotes == () and loaded.notes != ()


@pytest.mark.slow
def test_sources_are_the_images_of_both_frames_base_first(classifier: Classifier, stored_study: Path) -> None:
    sources = load_study(Study("p", DicomFiles(stored_study)), classifier).sources
    assert [float(source.dataset.TriggerTime) for source in sources] == [10.0] * 6 + [10.0 + 50.0 * ES_FRAME] * 6
    assert [(source.ed, source.es, source.frames) for source in sources] == [((1,), (), ())] * 6 + [((), (1,), ())] * 6
    heights = [float(source.dataset.ImagePositionPatient[2]) for source in sources[:6]]
    assert heights == sorted(heights, reverse=True)


def test_given_frames_are_read(classifier: Classifier, files: Path, stored_study: Path) -> None:
    for source in (CineFile(files / "p.nii.gz", (1, 7)), DicomFiles(stored_study, (1, 7))):
        frames = load_study(Study("p", source), classifier).frames
        assert frames is not None
        assert (frames.ed, frames.es, frames.how) == (1, 7, "given")


@pytest.mark.slow
def test_rescaling_of_the_scanner_is_undone(
    classifier: Classifier, cine: np.ndarray, stored_study: Path, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "half", cine // 2, RescaleSlope="2", RescaleIntercept="-10")
    rescaled = load_study(Study("p", DicomFiles(folder)), classifier).image
    plain = load_study(Study("p", DicomFiles(stored_study)), classifier).image
    torch.testing.assert_close(rescaled, plain - 10, rtol=0, atol=1.01)


def test_frames_that_share_fewer_slices_are_noted(classifier: Classifier, cine: np.ndarray, files: Path) -> None:
    short = write_nifti(files / "short_es.nii.gz", cine[:, :, :5, ES_FRAME], affine_of(cine))
    loaded = load_study(Study("p", FramePair(files / "p_ed.nii.gz", short)), classifier)
    assert loaded.notes == ("the frames share 5 slices",)


def test_doubts_of_all_steps_are_told(classifier: Classifier, cine: np.ndarray, tmp_path: Path) -> None:
    plane = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    folder = write_study(tmp_path / "axial", cine[:, :, :4, :8], plane=plane)
    doubts = " ".join(load_study(Study("p", DicomFiles(folder)), classifier).doubts)
    assert all(part in doubts for part in ("not be the short axis", "8 frames are few", "cover 40 mm"))


@pytest.mark.parametrize("kind", ["photograph", "cine"])
def test_study_of_the_other_kind_is_refused(
    classifier: Classifier, image_classifier: Classifier, stored_study: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "cine":
        study, model, takes = Study("p", DicomFiles(stored_study)), image_classifier, "photographs"
    else:
        study, model, takes = Study("p", Photograph(tmp_path / "a.png")), classifier, "short-axis cines"
    with pytest.raises(DataError, match=f"p is not what the model takes.*{takes}"):
        load_study(study, model)


def test_grey_photograph_is_doubted_unless_the_model_takes_any(image_classifier: Classifier, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "ct.png")
    study = Study("ct", Photograph(tmp_path / "ct.png"))
    loaded = load_study(study, image_classifier)
    assert "another kind of image" in loaded.doubts[0]
    assert loaded.image.shape == (3, 40, 50)
    assert load_study(study, replace(image_classifier, style="plain")).doubts == ()


@pytest.mark.parametrize("name", ["nothing.nii.gz", "text.nii.gz", "three.nii.gz", "nan.nii.gz"])
def test_unusable_cine_is_refused_by_name(classifier: Classifier, cine: np.ndarray, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.nii.gz").write_text("text")
    write_nifti(tmp_path / "three.nii.gz", cine[..., 0], np.eye(4))
    bad = cine.astype(np.float32)
    bad[0, 0, 0, 5] = np.nan
    write_nifti(tmp_path / "nan.nii.gz", bad, affine_of(cine))
    with pytest.raises(DataError, match=name):
        load_study(Study("p", CineFile(tmp_path / name)), classifier)


@pytest.mark.parametrize("kind", ["pair", "cine"])
def test_more_voxels_than_a_cine_has_are_refused(
    classifier: Classifier, files: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(dicom_pixels, "MAXIMUM_VOXELS", 44 * 40 * 6 - 1)
    study = pair(files) if kind == "pair" else Study("p", CineFile(files / "p.nii.gz"))
    with pytest.raises(DataError, match=r"44 x 40 x 6.* voxels are more than a cine has"):
        load_study(study, classifier)


def unit_sform(source: Path, path: Path) -> Path:
    """The same file with an sform of 1 mm beside a right pixdim and qform, as ACDC is published."""
    image = nibabel.load(source)
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj), None)  # type: ignore[attr-defined]
    changed.header.set_qform(image.affine, 1)  # type: ignore[attr-defined]
    changed.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
    nibabel.save(nibabel.Nifti1Image(changed.dataobj, None, changed.header), path)
    return path


def test_acdc_as_published_is_read_by_its_qform_with_a_note(
    classifier: Classifier, files: Path, tmp_path: Path
) -> None:
    expected = load_study(pair(files), classifier)
    ed, es = (unit_sform(files / f"p_{end}.nii.gz", tmp_path / f"p_{end}.nii.gz") for end in ("ed", "es"))
    loaded = load_study(Study("p", FramePair(ed, es)), classifier)
    torch.testing.assert_close(loaded.image, expected.image, rtol=1e-5, atol=1e-2)
    assert ["sform" in note for note in loaded.notes] == [True]
    whole = load_study(Study("p", CineFile(unit_sform(files / "p.nii.gz", tmp_path / "p.nii.gz"))), classifier)
    torch.testing.assert_close(whole.image, expected.image, rtol=1e-5, atol=1e-2)
    assert ["sform" in note for note in whole.notes] == [True]


def test_positions_in_micron_are_converted_and_in_no_unit_refused(
    classifier: Classifier, cine: np.ndarray, files: Path, tmp_path: Path
) -> None:
    affine = affine_of(cine)
    affine[:3] *= 1000
    image = nibabel.Nifti1Image(cine, affine)
    image.header.set_xyzt_units("micron", "sec")
    nibabel.save(image, tmp_path / "micron.nii.gz")
    loaded = load_study(Study("p", CineFile(tmp_path / "micron.nii.gz")), classifier)
    torch.testing.assert_close(loaded.image, load_study(pair(files), classifier).image, rtol=1e-4, atol=1e-2)
    assert ["micron" in note for note in loaded.notes] == [True]
    write_nifti(tmp_path / "large.nii.gz", cine, affine)
    with pytest.raises(DataError, match=r"large\.nii\.gz has 44 x 40 x 6 voxels of 4000 x 4000 x 1e\+04 mm.*units"):
        load_study(Study("p", CineFile(tmp_path / "large.nii.gz")), classifier)


def test_segmentation_is_refused(classifier: Classifier, cine: np.ndarray, tmp_path: Path) -> None:
    labels = np.digitize(cine, [100, 250, 350]).astype(np.uint8)
    write_nifti(tmp_path / "A0_sa_gt.nii.gz", labels, affine_of(cine))
    with pytest.raises(DataError, match=r"A0_sa_gt\.nii\.gz .*segmentation"):
        load_study(Study("A0_sa_gt", CineFile(tmp_path / "A0_sa_gt.nii.gz")), classifier)


def test_blank_frame_is_refused(classifier: Classifier, cine: np.ndarray, tmp_path: Path) -> None:
    blank = cine.copy()
    blank[..., 3] = 7
    write_nifti(tmp_path / "p.nii", blank, affine_of(cine))
    with pytest.raises(DataError, match="blank"):
        load_study(Study("p", CineFile(tmp_path / "p.nii", (0, 3))), classifier)


@pytest.mark.slow
@given(data=st.data())
def test_damaged_cine_is_refused_or_read(
    classifier: Classifier, small: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(damaged[: data.draw(st.integers(340, len(damaged)))])
    try:
        loaded = load_study(Study("p", CineFile(path)), classifier)
    except DataError as error:
        assert str(error)
    else:
        assert torch.isfinite(loaded.image).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A cine of few voxels, which hypothesis can read often."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("small") / "small.nii"
    image = nibabel.Nifti1Image(rng.integers(0, 99, (12, 12, 4, 4)).astype(np.int16), np.diag([8.0, 8.0, 12.0, 1.0]))
    nibabel.save(image, path)
    return path.read_bytes()
