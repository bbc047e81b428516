"""Masks for an archive: on the pixels of their images, in codes, valid, and free of identities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sr.codedict import codes

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.mask_seg import build_segmentations
from monai_fedlora.clinic.measured_study import MeasuredStudy, measure_study
from monai_fedlora.clinic.prediction import Prediction, predict_loaded
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.archive_checks import files, output_of, references, required
from tests.clinic.cine_studies import affine_of, classic_images, enhanced_dataset, save, shuffled, write_study
from tests.clinic.masked_hearts import ALGORITHM, by_grey_level, grey_masks, small_heart

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")
FIGURE = Image.new("RGB", (16, 16))


@pytest.fixture(scope="module")
def loaded(classifier: Classifier, stored_study: Path) -> LoadedStudy:
    return load_study(Study("p", DicomFiles(stored_study)), classifier)


@pytest.fixture(scope="module")
def prediction(classifier: Classifier, loaded: LoadedStudy) -> Prediction:
    return predict_loaded(classifier, loaded, name="p")


@pytest.fixture(scope="module")
def greys(loaded: LoadedStudy) -> MeasuredStudy:
    return measure_study(grey_masks(loaded), loaded, algorithm=ALGORITHM)


@pytest.fixture(scope="module")
def clean(prediction: Prediction, loaded: LoadedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    measured = measure_study(small_heart(loaded), loaded, algorithm=ALGORITHM)
    write_dicom(prediction, FIGURE, folder, deidentifier=Deidentifier(), measured=measured)
    return folder


def test_every_pixel_of_every_image_has_its_mask(greys: MeasuredStudy, prediction: Prediction, tmp_path: Path) -> None:
    write_dicom(prediction, FIGURE, tmp_path, deidentifier=None, measured=greys)
    sources = {source.dataset.SOPInstanceUID: source for source in prediction.sources}
    for phase in ("ed", "es"):
        mask = hd.seg.segread(tmp_path / f"mask_{phase}.dcm")
        own = [uid for uid, source in sources.items() if getattr(source, phase)]
        assert {uid for _, _, uid in mask.get_source_image_uids()} == set(own) and len(own) == 6
        found = mask.get_pixels_by_source_instance(own, combine_segments=True, ignore_spatial_locations=True)
        for plane, uid in zip(found, own, strict=True):
            np.testing.assert_array_equal(plane, by_grey_level(sources[uid].dataset.pixel_array))
        assert found.max() == 3


def test_segments_have_codes_and_name_the_model(clean: Path) -> None:
    mask = hd.seg.segread(clean / "mask_ed.dcm")
    kinds = [codes.SCT.LeftVentricle, codes.SCT.LeftVentricleMyocardium, codes.SCT.RightVentricle]
    assert [mask.get_segment_description(number).segmented_property_type for number in (1, 2, 3)] == kinds
    description = mask.get_segment_description(2)
    assert description.segmented_property_category == codes.SCT.AnatomicalStructure
    (made_by,) = description.SegmentationAlgorithmIdentificationSequence
    assert (made_by.AlgorithmName, made_by.AlgorithmVersion) == (ALGORITHM.name, ALGORITHM.version)
    assert ALGORITHM.sha256 in made_by.AlgorithmParameters and ALGORITHM.origin in made_by.AlgorithmParameters
    assert "not for clinical use" in mask.ImageComments


def test_masks_are_deidentified_as_their_images_are(clean: Path, loaded: LoadedStudy) -> None:
    images = {pydicom.dcmread(path).SOPInstanceUID for path in files(clean / "images")}
    originals = {source.dataset.SOPInstanceUID for source in loaded.sources}
    for name in ("mask_ed.dcm", "mask_es.dcm", "measures.dcm"):
        dataset = pydicom.dcmread(clean / name)
        assert dataset.PatientIdentityRemoved == "YES" and dataset.ContentDate == "19000101"
        assert dataset.PatientID.startswith("ANON-") and not set(references(dataset)) & originals
        if name != "measures.dcm":
            assert set(references(dataset)) <= images
        content = (clean / name).read_bytes()
        for trace in (b"Doeringer", b"Q4711", b"House", b"19500102", b"20240102"):
            assert trace not in content


@pytest.mark.slow
def test_a_validator_of_the_standard_finds_no_error(clean: Path) -> None:
    assert required(clean) == []
    for name in ("mask_ed.dcm", "mask_es.dcm", "measures.dcm"):
        said = output_of("dciodvfy", "-new", clean / name).splitlines()
        assert [line for line in said if "Error" in line] == [], name


@pytest.mark.slow
def test_another_toolkit_reads_the_masks(clean: Path, loaded: LoadedStudy, tmp_path: Path) -> None:
    """dcmqi writes a file for each segment."""
    import nibabel

    output_of("segimage2itkimage", "--inputDICOM", clean / "mask_ed.dcm", "--outputDirectory", tmp_path, "-t", "nii")
    masks = small_heart(loaded)
    assert loaded.frames is not None
    for number in (1, 2, 3):
        (path,) = tmp_path.glob(f"{number}.nii*")
        found = nibabel.load(path)
        assert int((np.asarray(found.dataobj) > 0).sum()) == int((masks[loaded.frames.ed] == number).sum())


@pytest.mark.slow
@pytest.mark.parametrize("objects", [1, 6])
def test_enhanced_images_have_their_masks_at_their_places(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path, objects: int
) -> None:
    folder = tmp_path / "enhanced"
    order = shuffled(cine) if objects == 1 else list(range(60))
    images = classic_images(cine, order)
    for number, part in enumerate(np.array_split(np.arange(60), objects)):
        save(enhanced_dataset([images[index] for index in part]), folder / f"IM{number}")
    loaded = load_study(Study("p", DicomFiles(folder)), classifier)
    prediction = predict_loaded(classifier, loaded, name="p")
    measured = measure_study(grey_masks(loaded), loaded, algorithm=ALGORITHM)
    write_dicom(prediction, FIGURE, tmp_path / "O", deidentifier=None, measured=measured)
    mask = hd.seg.segread(tmp_path / "O" / "mask_es.dcm")
    volume = mask.get_volume(combine_segments=True)
    assert loaded.frames is not None and volume.shape[0] == 6
    levels = {
        tuple(np.round(affine_of(cine)[:3] @ [0, 0, place, 1], 3)): cine[..., place, loaded.frames.es]
        for place in range(6)
    }
    for index, plane in enumerate(volume.array):
        x, y, z = volume.affine[:3] @ [index, 0, 0, 1]
        (place,) = [place for place in levels if np.allclose(place, (-x, -y, z), atol=0.01)]
        np.testing.assert_array_equal(plane, by_grey_level(levels[place]).T)
    assert set(references(pydicom.dcmread(tmp_path / "O" / "mask_es.dcm"))) == {
        source.dataset.SOPInstanceUID for source in loaded.sources
    }


def test_an_empty_mask_has_no_object(greys: MeasuredStudy, loaded: LoadedStudy) -> None:
    masks = greys.masks.copy()
    masks[1] = 0
    assert set(build_segmentations(replace(greys, masks=masks), loaded.sources)) == {"ED"}


def test_what_cannot_be_laid_over_images_is_refused(greys: MeasuredStudy, loaded: LoadedStudy) -> None:
    with pytest.raises(DataError, match="not of a study that was read from DICOM"):
        build_segmentations(replace(greys, stack=None), loaded.sources)
    with pytest.raises(DataError, match="grid of the images"):
        build_segmentations(replace(greys, masks=greys.masks[..., 1:]), loaded.sources)
    with pytest.raises(DataError, match="no code"):
        build_segmentations(replace(greys, structures=("LV", "MYO", "scar")), loaded.sources)


@pytest.mark.slow
def test_a_cine_of_several_series_is_referred_to_series_by_series(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    """As a scanner writes one series for each slice, with its own frame of reference and rounding of directions."""

    def change(dataset: pydicom.Dataset, place: int, frame: int) -> None:
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = f"1.2.3.{place + 1}", f"1.2.4.{place + 1}"
        dataset.ImageOrientationPatient = [
            round(float(value), 4 + place % 2) for value in dataset.ImageOrientationPatient
        ]

    folder = write_study(tmp_path / "S", cine, change=change)
    loaded = load_study(Study("p", DicomFiles(folder)), classifier)
    masks = build_segmentations(measure_study(grey_masks(loaded), loaded, algorithm=ALGORITHM), loaded.sources)
    for phase, mask in masks.items():
        own = {source.dataset.SOPInstanceUID for source in loaded.sources if getattr(source, phase.lower())}
        assert len(mask.ReferencedSeriesSequence) == 6 and set(references(mask)) == own


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("deidentifier", [None, Deidentifier()])
def test_a_real_cine_gets_masks_on_its_pixels(
    real_data: Path, classifier: Classifier, tmp_path: Path, deidentifier: Deidentifier | None
) -> None:
    """What is brighter than a level counts as its left ventricle, so that each stored image says what its mask is."""

    def faults(path: Path) -> list[str]:
        """Errors but those of the study's own UIDs, which have numbers that begin with zeros."""
        said = output_of("dciodvfy", "-new", path).splitlines()
        return [line for line in said if "Error" in line and "Leading zeroes" not in line]

    loaded = load_study(Study("p", DicomFiles(real_data / "sunnybrook_dicom" / "SCD0000301")), classifier)
    assert loaded.cine is not None
    masks = np.moveaxis(loaded.cine > 150, 3, 0).astype(np.uint8)
    measured = measure_study(masks, loaded, algorithm=ALGORITHM)
    prediction = predict_loaded(classifier, loaded, name="p")
    write_dicom(prediction, FIGURE, tmp_path, deidentifier=deidentifier, measured=measured)
    assert required(tmp_path) == []
    for phase in ("ed", "es"):
        assert faults(tmp_path / f"mask_{phase}.dcm") == []
        mask = hd.seg.segread(tmp_path / f"mask_{phase}.dcm")
        images = (
            {path.SOPInstanceUID: path for path in map(pydicom.dcmread, files(tmp_path / "images"))}
            if deidentifier
            else {source.dataset.SOPInstanceUID: source.dataset for source in loaded.sources}
        )
        uids = [uid for _, _, uid in mask.get_source_image_uids()]
        planes = mask.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
        assert len(uids) == 10 and planes.any()
        for plane, uid in zip(planes, uids, strict=True):
            np.testing.assert_array_equal(plane, images[uid].pixel_array > 150)
    assert faults(tmp_path / "measures.dcm") == []
