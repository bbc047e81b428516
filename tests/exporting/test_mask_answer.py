"""Bundles of segmentation models: masks on the grid of the file, and numbers of the heart."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import monai_fedlora as fl
from monai_fedlora.cli import main
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.clinic.many import file_name
from monai_fedlora.clinic.segmenting import open_segmenter
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.files import read_json
from monai_fedlora.measures.given_numbers import GIVEN_COLUMNS, given_numbers
from monai_fedlora.measures.heart_function import COLUMNS
from monai_fedlora.transforms.localise import CinePreprocessor
from monai_fedlora.transforms.mask_grid import restore_labels
from monai_fedlora.transforms.orientation import (
    N_ORDERS,
    filled_slices,
    is_known,
    one_order,
    reference_affine,
    turned_back,
)
from monai_fedlora.transforms.photograph_geometry import centre_box
from monai_fedlora.transforms.photograph_mask import restore_photograph_labels
from tests.tasks.small import STRUCTURES as SMALL_STRUCTURES
from tests.tasks.small import Pixels, images_and_masks

from .finished_runs import MICRO, Run, finished_run
from .running import infer, without_this_package

STRUCTURES = ("LV", "MYO", "RV")


def masks_found(seed: int) -> dict[str, Any]:
    """Metrics of a site's test cases, as a run of segmentation records them."""
    return {"n": 12, "dice": 0.8, "dice_low": 0.7, "dice_high": 0.85, "dice_LV": 0.9, "dice_LV_ED": 0.91 - seed / 100}


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Run:
    views = {"personal": masks_found(0), "shared": masks_found(1)}
    folder = tmp_path_factory.mktemp("run") / "W"
    return finished_run(folder, backbone, task="segmentation", classes=STRUCTURES, given_views=views)


@pytest.fixture(scope="module")
def mask_exported(tmp_path_factory: pytest.TempPathFactory, mask_run: Run) -> Exported:
    """With every kind of file, so that one export serves all tests."""
    return export_bundle(**mask_run.options(tmp_path_factory.mktemp("bundles") / "outlines", onnx=True))


def in_memory(network: torch.nn.Module, image: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Masks (2, X, Y, Z) of an image (2, X, Y, Z), step by step, with all orders of the axes one after the other."""
    prepared = CinePreprocessor(MICRO.image_size, MICRO.spacing)(image[None], affine[None])[0]
    with torch.no_grad():
        if is_known(affine, list(image.shape[1:])):
            logits = network(prepared[None])[0]
        else:
            filled = filled_slices(prepared)
            turned = [network(one_order(prepared, number)[None])[0] for number in range(N_ORDERS)]
            logits = torch.stack([turned_back(one, number, filled) for number, one in enumerate(turned)]).mean(dim=0)
    return restore_labels(logits.softmax(dim=1), image, affine, MICRO.spacing)


def read_pair(folder: Path, study: str, ending: str = ".nii.gz") -> tuple[torch.Tensor, torch.Tensor]:
    images = [nibabel.load(folder / f"{study}_{phase}{ending}") for phase in ("ed", "es")]
    voxels = np.stack([np.asanyarray(image.dataobj) for image in images])
    return torch.from_numpy(voxels), torch.from_numpy(images[0].affine)


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["study"]: row for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_run_writes_the_masks_that_the_network_in_memory_draws_on_the_grid_of_each_file(
    mask_run: Run, mask_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    infer(mask_exported.folder, studies, tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "masks.csv")
    for study in ("p1", "p.2 b", "a_3"):
        image, affine = read_pair(studies, study)
        masks, found_affine = read_pair(tmp_path / "out", study, "_mask.nii.gz")
        assert torch.equal(affine, found_affine) and masks.dtype == torch.uint8
        expected = in_memory(mask_run.networks["site-1"], image.float(), affine)
        assert (masks != expected).double().mean() < 1e-4
        assert len(masks.unique()) > 2
        source, target = (
            nibabel.load(tmp_path / path) for path in (f"studies/{study}_ed.nii.gz", f"out/{study}_ed_mask.nii.gz")
        )
        for name in ("qform_code", "sform_code"):
            assert source.header[name] == target.header[name]
        assert rows[study]["error"] == "" and rows[study].keys() == {"study", *COLUMNS, "no_volume_because", "error"}
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith("left_out")]


@pytest.mark.slow
def test_a_study_without_a_partner_leaves_no_masks_of_before(
    mask_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    (studies / "p1_es.nii.gz").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "p1_ed_mask.nii.gz").write_bytes(b"of an earlier run")
    with pytest.raises(RuntimeError) as error:
        infer(mask_exported.folder, studies, tmp_path / "out")
    assert "1 of 3 studies could not be segmented" in str(error.value.__cause__)
    rows = read_rows(tmp_path / "out" / "masks.csv")
    assert "p1_es.nii.gz" in rows["p1"]["error"] and not any(rows["p1"][name] for name in COLUMNS)
    written = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert written == {f"{study}_{phase}_mask.nii.gz" for study in ("p.2 b", "a_3") for phase in ("ed", "es")}


@pytest.mark.slow
def test_the_bundle_runs_where_this_package_is_not(mask_exported: Exported, studies: Path, tmp_path: Path) -> None:
    run = without_this_package(mask_exported.usage, studies, tmp_path / "out", cwd=mask_exported.folder.parent)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "out").glob("*_mask.nii.gz"))) == 6
    assert read_rows(tmp_path / "out" / "masks.csv").keys() == {"p1", "p.2 b", "a_3"}


@pytest.mark.slow
def test_every_file_of_the_model_passes_the_check_and_its_run(
    mask_run: Run, mask_exported: Exported, tmp_path: Path
) -> None:
    files = set(mask_exported.metadata["model_files"])
    assert files == {f"models/model.{end}" for end in ("ts", "pt", "pt2", "onnx")}
    assert check_bundle(mask_exported.folder, run=True).passed
    shared = export_bundle(**mask_run.options(tmp_path / "S", site="shared", program=False))
    assert check_bundle(shared.folder).passed
    assert shared.metadata["eval_metrics"]["test"]["shared"]["dice"] == {
        "value": pytest.approx(0.8),
        "interval_95": None,
    }


@pytest.mark.slow
def test_metadata_and_card_say_what_applies_to_masks_and_nothing_else(mask_exported: Exported) -> None:
    metadata = mask_exported.metadata
    assert "calibration" not in metadata
    assert metadata["task"] == "Segmentation of short-axis cine cardiac MRI into LV / MYO / RV"
    assert metadata["label_classes"] == "0 is background, 1 is LV, 2 is MYO, 3 is RV"
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "MYO"
    assert not metadata["measured_leakage"]["measured"] and "masks" in metadata["measured_leakage"]["reason"]
    assert not metadata["out_of_distribution"]["available"]
    assert metadata["eval_metrics"]["test"]["personal"]["dice"] == {"value": 0.8, "interval_95": [0.7, 0.85]}
    assert metadata["personal_or_shared"]["metric"] == "dice"
    card = (mask_exported.folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| Dice of LV at ED | 0.910 | 0.900 |" in card
    assert "## Calibration" not in card and "probability" not in card


@pytest.mark.slow
def test_an_opened_bundle_outlines_pairs_on_their_own_grid(
    mask_run: Run, mask_exported: Exported, studies: Path
) -> None:
    model = open_segmenter(mask_exported.folder, device="cpu")
    assert model.structures == STRUCTURES and model.spacing == MICRO.spacing and model.trust.calibration is None
    assert model.slices == MICRO.image_size[2]
    network = mask_run.networks["site-1"]
    for study in ("p1", "a_3"):
        image, affine = read_pair(studies, study)
        twice = torch.stack([image, image.flip(0)]).float()
        masks = model.masks(twice, affine)
        assert masks.shape == twice.shape and masks.dtype == torch.uint8
        for found, pair in zip(masks, twice, strict=True):
            assert (found != in_memory(network, pair, affine)).double().mean() < 1e-4
    sizes = affine[:3, :3].diag().tolist()
    one = model.masks(twice[:1], affine, every_order=False)
    known = in_memory(network, twice[0], reference_affine((sizes[0], sizes[1], sizes[2])))
    assert (one[0] != known).double().mean() < 1e-4
    turned = affine[:, [2, 0, 1, 3]]
    other = model.masks(twice[:1].permute(0, 1, 4, 2, 3), turned, every_order=False)
    assert torch.equal(other.permute(0, 1, 3, 4, 2), one)


@pytest.mark.slow
def test_predict_gives_the_class_of_one_bundle_and_the_numbers_of_the_outlines_of_another(
    exported: Exported, mask_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    """Both models run in a process of their own, and outline there as they do here."""
    (studies / "a_3_ed.nii.gz").unlink()
    (studies / "a_3_es.nii.gz").unlink()
    bundles = [str(exported.folder), "--outlines", str(mask_exported.folder)]
    assert main(["predict", *bundles, str(studies), "--output", str(tmp_path / "out"), "--no-overlay"]) == 0
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert rows.keys() == {"p1", "p.2 b"}
    model = open_segmenter(mask_exported.folder, device="cpu")
    for study, row in rows.items():
        image, affine = read_pair(studies, study)
        (masks,) = model.masks(image[None].float(), affine)
        spacing = affine[:3, :3].norm(dim=0).tolist()
        expected = given_numbers(masks, spacing=spacing, seen=(model.slices, model.spacing[2]))
        assert [row[name] for name in GIVEN_COLUMNS] == expected.cells()
        assert row["prediction"] in ("NOR", "ABN") and row["error"] == ""
        name = file_name(study)
        contours = read_json(tmp_path / "out" / "contours" / f"{name}.json")
        assert contours["structures"] == list(STRUCTURES) and len(contours["frames"]) == 2
        assert (tmp_path / "out" / "figures" / f"{name}_outlines.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_bundle_of_the_other_kind_is_refused(mask_exported: Exported, exported: Exported) -> None:
    with pytest.raises(ConfigError, match="outlines structures"):
        open_bundle(mask_exported.folder)
    with pytest.raises(ConfigError, match="does not outline"):
        open_segmenter(exported.folder)


@pytest.mark.slow
def test_numbers_of_the_table_are_those_of_the_written_masks(
    mask_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    script = torch.jit.load(mask_exported.folder / "models" / "model.ts")
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        mask = torch.randint(0, 4, (2, 30, 30, 4), generator=generator).to(torch.uint8)
        mask[..., -1] *= mask[..., -1] != 1
        affine = reference_affine((3.0, 3.0, 9.0))
        numbers, reason = script.measure(mask, affine)
        expected = given_numbers(mask, spacing=(3.0, 3.0, 9.0))
        assert reason == "; ".join(expected.no_volume_because)
        function = expected.function
        assert numbers.isnan().all() if function is None else numbers.tolist() == list(function.to_row().values())


@pytest.mark.slow
def test_a_network_of_ones_own_writes_masks_of_arrays(tmp_path: Path) -> None:
    images, masks = images_and_masks(8)
    data = {"north": fl.SiteData(train=(images[:4], masks[:4]), test=(images[4:], masks[4:]))}
    options: dict[str, Any] = {"task": "segmentation", "classes": SMALL_STRUCTURES, "rounds": 1}
    choice = fl.method("dual_lora", rank=2, targets=r"blocks\.2\.fc", head="head", blocks="blocks")
    run = fl.federate(lambda: Pixels(len(SMALL_STRUCTURES) + 1, dense=True), choice, data, **options)
    exported = run.export("north", tmp_path / "B")
    assert check_bundle(exported.folder, run=True).passed
    (tmp_path / "studies").mkdir()
    np.save(tmp_path / "studies" / "one.npy", images[5].numpy())
    infer(exported.folder, tmp_path / "studies", tmp_path / "out")
    found = np.load(tmp_path / "out" / "one_mask.npy")
    with torch.no_grad():
        expected = run.personal("north")(images[5:6]).argmax(dim=1)[0].numpy()
    assert found.dtype == np.uint8 and (found == expected).all()
    row = read_rows(tmp_path / "out" / "masks.csv")["one"]
    assert [int(row[f"{name}_voxels"]) for name in SMALL_STRUCTURES] == [(found == 1).sum(), (found == 2).sum()]


@pytest.fixture(scope="module")
def photograph_run(tmp_path_factory: pytest.TempPathFactory, image_backbone: Path) -> Run:
    return finished_run(
        tmp_path_factory.mktemp("run") / "W",
        image_backbone,
        size="micro_vit",
        task="segmentation",
        classes=("lesion",),
        training={"style": "dermoscopy"},
        given_views={"personal": masks_found(0), "shared": masks_found(0)},
    )


def write_photographs(folder: Path) -> None:
    """A wide and a high photograph with a dark spot, and one that has to be turned to stand upright."""
    folder.mkdir()
    for name, size in (("wide", (90, 60)), ("high", (40, 70)), ("turned", (64, 48))):
        levels = np.random.default_rng(len(name)).integers(120, 220, (size[1], size[0], 3), dtype=np.uint8)
        levels[10:30, 10:25] = 40
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "turned" else 1
        Image.fromarray(levels).save(folder / f"{name}.png", exif=exif)


@pytest.mark.slow
def test_masks_of_photographs_lie_on_their_pixels_where_this_package_is_not(
    photograph_run: Run, tmp_path: Path
) -> None:
    exported = export_bundle(**photograph_run.options(tmp_path / "B", onnx=True))
    assert check_bundle(exported.folder, run=True).passed
    assert not exported.metadata["model_files"]["models/model.pt2"]["preprocessing"]
    write_photographs(tmp_path / "studies")
    run = without_this_package(exported.usage, tmp_path / "studies", tmp_path / "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = read_rows(tmp_path / "out" / "masks.csv")
    modality = modality_of(photograph_run.plan)
    for name, size in (("wide", (90, 60)), ("high", (40, 70)), ("turned", (48, 64))):
        with Image.open(tmp_path / "out" / f"{name}_mask.png") as image:
            assert (image.mode, image.size) == ("L", size)
            found = np.asarray(image)
        (upright,) = modality.inputs({"image": str(tmp_path / "studies" / f"{name}.png")})
        with torch.no_grad():
            scores = photograph_run.networks["site-1"](modality.preprocessor()(upright[None])).softmax(dim=2)
        expected = restore_photograph_labels(scores[0], centre_box(size[1], size[0]), size[1], size[0])[0]
        assert (found != expected.numpy()).mean() < 1e-3
        assert 0 < int(rows[name]["lesion_pixels"]) == (found == 1).sum() < found.size
