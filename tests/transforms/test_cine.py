"""The pipeline from files to the network's input, against plain MONAI and closed forms."""

from multiprocessing.reduction import ForkingPickler

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, ConcatItemsd, EnsureChannelFirstd, LoadImaged
from scipy.spatial.transform import Rotation

from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.transforms.cine import (
    LoadCined,
    NormaliseCined,
    ResampleCined,
    cine_augmentation,
    cine_preprocessing,
)
from monai_fedlora.transforms.localise import CinePreprocessor, normalise_cine
from monai_fedlora.transforms.orientation import reference_view

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SIZE, SPACING = (48, 48, 8), (2.5, 2.5, 10.0)


def oblique(spacing):
    """Affine of a short-axis stack as planned on a patient, ten degrees from the reference view."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.1, -0.12, 0.08]).as_matrix() @ reference_view().numpy() * spacing
    affine[:3, 3] = 31, -87, 12
    return affine


@pytest.fixture
def oblique_pair(tmp_path, heart, nifti):
    ed, es = heart()
    affine = oblique((2.0, 2.0, 10.0))
    return {
        "ed": str(nifti(tmp_path / "oblique_ed.nii.gz", ed, affine=affine)),
        "es": str(nifti(tmp_path / "oblique_es.nii.gz", es, affine=affine)),
        "label": 0,
        "subject": "oblique",
    }


def test_item_holds_what_the_network_needs_and_nothing_else(pair):
    item = Compose(cine_preprocessing(image_size=SIZE, spacing=SPACING))(dict(pair, group="DCM"))
    assert set(item) == {"image", "label", "placeholder", "subject"}
    assert type(item["image"]) is torch.Tensor
    assert item["image"].dtype == torch.float32
    assert item["image"].shape == (2, *SIZE)
    assert (item["image"].min(), item["image"].max()) == (0, 1)


def test_a_patient_without_a_label_passes(pair):
    item = Compose(cine_preprocessing(image_size=SIZE, spacing=SPACING))({"ed": pair["ed"], "es": pair["es"]})
    assert set(item) == {"image", "placeholder"}


def test_items_of_both_layouts_collate(pair, tmp_path, heart, nifti):
    cine = nifti(tmp_path / "cine.nii.gz", np.moveaxis(heart(shape=(80, 80, 12)), 0, -1))
    other = {"cine": str(cine), "ed_frame": 0, "es_frame": 1, "label": 0, "subject": "patient002"}
    items = [Compose(cine_preprocessing(image_size=SIZE, spacing=SPACING))(item) for item in (pair, other)]
    batch = list_data_collate(items)
    assert batch["image"].shape == (2, 2, *SIZE)
    assert batch["label"].tolist() == [1, 0]
    assert batch["subject"] == ["patient001", "patient002"]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["pair", "oblique_pair"])
@pytest.mark.parametrize(("size", "spacing"), [(SIZE, SPACING), ((96, 96, 12), (1.5, 1.5, 10.0))])
def test_plain_monai_and_the_scripted_module_give_the_same(which, size, spacing, request):
    """This is what an exported bundle runs on a machine without this package."""
    item = request.getfixturevalue(which)
    plain = Compose(
        [
            LoadImaged(keys=["ed", "es"], reader="NibabelReader"),
            EnsureChannelFirstd(keys=["ed", "es"]),
            ConcatItemsd(keys=["ed", "es"], name="image"),
        ]
    )
    exported = torch.jit.script(CinePreprocessor(size, spacing))
    image = plain(item)["image"]
    result = exported(image.as_tensor()[None], image.affine[None])[0]
    expected = Compose(cine_preprocessing(image_size=size, spacing=spacing))(item)["image"]
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_both_layouts_give_the_same(pair, tmp_path, heart, nifti):
    cine = nifti(tmp_path / "cine.nii.gz", np.moveaxis(heart()[::-1], 0, -1))
    pipeline = Compose(cine_preprocessing(image_size=SIZE, spacing=SPACING))
    one = pipeline({"cine": cine, "ed_frame": 1, "es_frame": 0})
    assert torch.equal(one["image"], pipeline(pair)["image"])


def test_orientation_of_the_patient_changes_nothing(pair, oblique_pair):
    pipeline = Compose(cine_preprocessing(image_size=SIZE, spacing=(2.0, 2.0, 10.0)))
    torch.testing.assert_close(pipeline(pair)["image"], pipeline(oblique_pair)["image"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("affine", [np.diag([1.3, 1.3, 8.0, 1.0]), oblique((1.3, 1.3, 8.0))])
def test_resampling_acts_on_the_right_axes(tmp_path, nifti, affine):
    """A ramp along every axis keeps its slope per millimetre, whatever the orientation of the stack."""
    x, y, z = np.meshgrid(np.arange(60) * 1.3, np.arange(50) * 1.3, np.arange(11) * 8.0, indexing="ij")
    ramp = (x + 3 * y + 7 * z).astype(np.float32)
    paths = {key: nifti(tmp_path / f"{key}.nii", ramp + add, affine=affine) for key, add in (("ed", 0), ("es", 5))}
    image = ResampleCined(spacing=(2.5, 2.5, 10.0))(LoadCined()(paths))["image"]
    assert image.shape == (2, 32, 26, 9)
    inside = image.as_tensor()[:, 2:-2, 2:-2, 1:-1]
    for axis, slope in ((1, 2.5), (2, 7.5), (3, 70.0)):
        steps = inside.diff(dim=axis)
        torch.testing.assert_close(steps, torch.full_like(steps, slope), atol=4e-3, rtol=0)
    torch.testing.assert_close(inside[1] - inside[0], torch.full_like(inside[0], 5.0), atol=2e-3, rtol=0)
    torch.testing.assert_close(inside[0, 0, 0, 0], torch.tensor(5.0 + 15 + 70), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("slices", "distance"), [(11, 8.0), (17, 5.0), (9, 10.0), (15, 6.0)])
def test_slice_distance_does_not_show_in_the_number_of_slices(tmp_path, heart, nifti, slices, distance):
    """Every stack spans about 80 mm of the same heart."""
    for key, frame in zip(("ed", "es"), heart(shape=(96, 88, slices)), strict=True):
        nifti(tmp_path / f"{key}.nii", frame + 500, (2.0, 2.0, distance))
    pipeline = Compose(cine_preprocessing(image_size=(48, 48, 16), spacing=SPACING))
    image = pipeline({"ed": tmp_path / "ed.nii", "es": tmp_path / "es.nii"})["image"]
    filled = (image.amax(dim=(0, 1, 2)) > 0).sum()
    assert abs(int(filled) - 9) <= 1
    assert image[..., filled:].abs().max() == 0


def test_loading_keeps_the_affine_and_names_the_file(oblique_pair):
    image = LoadCined()(oblique_pair)["image"]
    assert isinstance(image, MetaTensor)
    np.testing.assert_allclose(image.affine.numpy(), nibabel.load(oblique_pair["ed"]).affine)
    assert image.meta["filename_or_obj"] == oblique_pair["ed"]


def test_a_damaged_file_is_the_cause_of_the_pipelines_error(pair):
    with open(pair["es"], "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(RuntimeError) as error:
        Compose(cine_preprocessing(image_size=SIZE, spacing=SPACING))(pair)
    assert isinstance(error.value.__cause__, DataError)
    assert "es.nii.gz" in str(error.value.__cause__)


def test_normalising_takes_meta_tensors_and_tensors(heart):
    image = torch.from_numpy(heart())
    transform = NormaliseCined(image_size=SIZE, spacing=(2.0, 2.0, 10.0))
    expected = normalise_cine(image, SIZE, 2.0)
    for one in (image, MetaTensor(image)):
        result = transform({"image": one, "label": 3})
        assert torch.equal(result["image"], expected)
        assert type(result["image"]) is torch.Tensor
        assert result["label"] == 3


def test_transforms_survive_pickling(pair):
    """Worker processes are started by pickling."""
    pipeline = cine_preprocessing(image_size=SIZE, spacing=SPACING)
    copied = ForkingPickler.loads(ForkingPickler.dumps(Compose(pipeline)))
    assert torch.equal(copied(pair)["image"], Compose(pipeline)(pair)["image"])
    ForkingPickler.dumps(cine_augmentation(image_size=SIZE, spacing=SPACING))


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((48, 48), SPACING), ((48, 0, 8), SPACING), (SIZE, (2.5, 2.0, 10.0)), (SIZE, (2.5, 2.5)), (SIZE, (0, 0, 10.0))],
)
@pytest.mark.parametrize("factory", [cine_preprocessing, cine_augmentation])
def test_impossible_settings_are_refused(factory, size, spacing):
    with pytest.raises(ConfigError):
        factory(image_size=size, spacing=spacing)


@pytest.fixture
def prepared(heart):
    return normalise_cine(torch.from_numpy(heart(centre_mm=(95.0, 87.0))), SIZE, 2.0)


def test_augmented_images_stay_in_range_and_keep_their_form(prepared):
    augment = Compose(cine_augmentation(image_size=SIZE, spacing=SPACING, probability=1.0))
    augment.set_random_state(seed=0)
    for _ in range(5):
        item = augment({"image": prepared.clone(), "label": 1, "subject": "a"})
        image = item["image"]
        assert type(image) is torch.Tensor
        assert image.shape == prepared.shape
        assert image.min() >= 0
        assert image.max() <= 1
        assert not torch.equal(image, prepared)
        assert (item["label"], item["subject"]) == (1, "a")


def test_augmentation_repeats_with_its_seed_and_differs_between_seeds(prepared):
    def run(seed):
        augment = Compose(cine_augmentation(image_size=SIZE, spacing=SPACING, probability=1.0))
        return augment.set_random_state(seed=seed)({"image": prepared.clone()})["image"]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_augmentation_never_mixes_slices_and_moves_both_frames_alike():
    """Every slice is a marked disc; after the geometric step each slice still has its own value alone."""
    image = torch.zeros(2, *SIZE)
    image[:, 16:32, 16:32] = torch.linspace(0.2, 0.9, SIZE[2])
    affine = cine_augmentation(image_size=SIZE, spacing=SPACING, probability=1.0)[2]
    for seed in range(5):
        moved = affine.set_random_state(seed=seed)({"image": image.clone()})["image"].as_tensor()
        torch.testing.assert_close(moved.amax(dim=(1, 2)), image.amax(dim=(1, 2)), atol=1e-4, rtol=0)
        torch.testing.assert_close(moved[0], moved[1])


@pytest.mark.slow
def test_shift_is_given_in_millimetres():
    image = torch.zeros(2, *SIZE)
    image[:, 24, 24] = 1.0
    weight = torch.arange(SIZE[0], dtype=torch.float32)
    for spacing in ((2.5, 2.5, 10.0), (1.0, 1.0, 10.0)):
        affine = cine_augmentation(image_size=SIZE, spacing=spacing, probability=1.0, shift_mm=10.0)[2]
        affine.rand_affine.rand_affine_grid.rotate_range = ()
        affine.rand_affine.rand_affine_grid.scale_range = ()
        shifts = []
        for seed in range(40):
            moved = affine.set_random_state(seed=seed)({"image": image.clone()})["image"].as_tensor()[0, ..., 0]
            shifts.append(float((moved.sum(1) * weight).sum() / moved.sum() - 24) * spacing[0])
        assert 8 < max(map(abs, shifts)) <= 10.01


def test_no_augmentation_at_probability_zero(prepared):
    augment = Compose(cine_augmentation(image_size=SIZE, spacing=SPACING, probability=0.0))
    assert torch.equal(augment({"image": prepared.clone()})["image"], prepared)
