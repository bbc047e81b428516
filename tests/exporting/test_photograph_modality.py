"""Exported models of photographs: the same pixels, the same probabilities, the same refusals as in training."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from monai.transforms import Compose
from PIL import Image

from monai_fedlora.engines.studies import find_studies
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.check.metadata import metadata_schema
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.peft_folders import export_peft
from monai_fedlora.formats.photograph_file import read_photograph
from monai_fedlora.networks.catalogue import Network, build_backbone
from monai_fedlora.resources import BUNDLES_VARIABLE
from monai_fedlora.transforms.photograph import photograph_preprocessing

from .finished_runs import CLASSES, MICRO_VIT, Run, temperature_of
from .running import failing_inference, infer, read_errors, read_table, without_this_package

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def scene(height: int, width: int, *, seed: int = 0, channels: int = 3) -> np.ndarray:
    """(H, W, channels) 8-bit: a textured disc on a dark ground, of its own colour and place."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    centre = (np.array([height, width]) * generator.uniform(0.4, 0.6, 2)).astype(int)
    inside = np.hypot(row - centre[0], column - centre[1]) < 0.35 * min(height, width)
    colour = np.where(inside[..., None], generator.uniform(80, 250, channels), generator.uniform(0, 30, channels))
    return np.clip(colour + generator.normal(0, 8, (height, width, channels)), 0, 255).astype(np.uint8)


def tiff(levels: np.ndarray, *, photometric: int = 1, bits: int = 16) -> bytes:
    """A little-endian uncompressed grey TIFF, written by hand."""
    height, width = levels.shape
    data = levels.astype("<u2").tobytes()
    if bits == 12:
        low, high = levels[:, ::2].astype(int), levels[:, 1::2].astype(int)
        data = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], axis=-1).astype(np.uint8).tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with a file of every kind that is read, and some that are left alone."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    grey = scene(70, 90, seed=1)[..., 0]
    alpha = np.linspace(0, 255, 60, dtype=np.uint8)[:, None].repeat(80, axis=1)[..., None]
    Image.fromarray(scene(150, 200)).save(folder / "plain.jpg")
    Image.fromarray(scene(150, 200)).save(folder / "turned.JPEG", exif=turned)
    Image.fromarray(scene(33, 200, seed=2)).save(folder / "turned.tiff", exif=turned)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey > 50).save(folder / "two levels.png")
    Image.fromarray(np.concatenate([scene(60, 80, seed=3), alpha], axis=-1)).save(folder / "transparent.png")
    Image.fromarray(np.concatenate([scene(60, 80, seed=4, channels=1), alpha], axis=-1)).save(folder / "la.png")
    Image.fromarray(scene(60, 80, seed=5)).quantize(16).save(folder / "palette.png", transparency=0)
    Image.fromarray(scene(60, 80, seed=6, channels=4), "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(scene(60, 80, seed=7)).convert("YCbCr").save(folder / "ycbcr.tif")
    Image.fromarray(grey.astype(np.uint16) * 200 + 7).save(folder / "16.png")
    (folder / "16-.tif").write_bytes(tiff(grey.astype(int) * 257))
    (folder / "12.tif").write_bytes(tiff(grey.astype(int) * 16, bits=12))
    preview = Image.fromarray(scene(60, 80, seed=8))
    Image.fromarray(scene(120, 160, seed=9)).save(
        folder / "mpo.jpg", format="MPO", save_all=True, append_images=[preview]
    )
    (folder / "notes.txt").touch()
    (folder / "._plain.jpg").touch()
    return folder


def probabilities(
    network: Network, folder: Path, *, temperature: float, style: str = "dermoscopy"
) -> dict[str, list[float]]:
    """What the training pipeline gives for every photograph of a folder, by the file's name."""
    assert MICRO_VIT.mean is not None and MICRO_VIT.std is not None
    pipeline = Compose(
        photograph_preprocessing(style=style, image_size=MICRO_VIT.image_size, mean=MICRO_VIT.mean, std=MICRO_VIT.std)
    )
    found = {}
    for path in sorted(folder.glob("[!.]*.[!t]*")) + sorted(folder.glob("[!.]*.tif*")):
        with torch.no_grad():
            logits = network(pipeline({"image": str(path)})["image"][None]) / temperature
            found[path.name] = logits.softmax(dim=1)[0].tolist()
    return found


def inputs(bundle: Path, folder: Path) -> dict[str, np.ndarray]:
    """What the bundle's own transforms give the model for every photograph, by its path."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["dataset_dir"] = str(folder)
    parser.get_parsed_content("imports")
    transforms, items = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("datalist")
    return {item["image"]: transforms(item)["image"].numpy() for item in items}


def test_pixels_are_those_of_training(image_exported: Exported, photographs: Path) -> None:
    found = inputs(image_exported.folder, photographs)
    assert len(found) == 14
    for path, image in found.items():
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, read_photograph(path), err_msg=path)


def test_inference_equals_the_model_in_memory(
    image_exported: Exported, image_run: Run, photographs: Path, tmp_path: Path
) -> None:
    header, rows = read_table(infer(image_exported.folder, photographs, tmp_path / "O"))
    temperature = temperature_of(image_exported)
    expected = probabilities(image_run.networks["site-1"], photographs, temperature=temperature)
    assert header == ["study", *CLASSES]
    shared = {"turned.JPEG", "turned.tiff"}
    names = {name if name in shared else name.rpartition(".")[0]: name for name in expected}
    assert set(rows) == set(names)
    for study, row in rows.items():
        assert row == pytest.approx(expected[names[study]], abs=1e-4), study
    assert len({round(row[0], 4) for row in rows.values()}) > 8


@pytest.mark.slow
def test_studies_are_called_as_this_package_calls_them(
    image_exported: Exported, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "turned.tiff").unlink()
    _, rows = read_table(infer(image_exported.folder, photographs, tmp_path / "O"))
    assert list(rows) == sorted(item["subject"] for item in find_studies(photographs, modality="image"))


@pytest.mark.slow
def test_shared_model_of_fundus_photographs(make_image_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_image_run(style="fundus")
    folder = tmp_path / "P"
    folder.mkdir()
    for seed, (height, width) in enumerate([(150, 200), (64, 48)]):
        Image.fromarray(scene(height, width, seed=seed)).save(folder / f"{seed}.png")
    exported = export_bundle(**run.options(tmp_path / "B", "shared", program=False))
    _, rows = read_table(infer(exported.folder, folder, tmp_path / "O"))
    network = run.networks["clinic-b"]
    with run.plan.build_method().shared_only(network):
        expected = probabilities(network, folder, temperature=1, style="fundus")
    assert rows == {name.removesuffix(".png"): pytest.approx(row, abs=1e-4) for name, row in expected.items()}
    assert exported.metadata["network_data_format"]["inputs"]["image"]["style"] == "fundus"
    assert "fundus photographs" in exported.metadata["intended_use"]


def test_style_is_the_bundles_where_the_plan_sets_none(
    image_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    config = tmp_path / "eyes" / "configs" / "train.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"style": "fundus"}')
    monkeypatch.setenv(BUNDLES_VARIABLE, str(tmp_path))
    plan = replace(image_run.plan, bundle="eyes", training={})
    assert modality_of(plan).input_format()["style"] == "fundus"
    config.write_text("{}")
    with pytest.raises(ConfigError, match="does not say style"):
        modality_of(plan)
    with pytest.raises(ConfigError, match="no photograph style is called 'x-ray'"):
        modality_of(replace(plan, training={"style": "x-ray"}))


def test_weights_are_plain_and_those_of_the_backbone(image_exported: Exported, image_run: Run) -> None:
    plain = build_backbone("micro_vit", out_chans=2)
    plain.load_state_dict(torch.load(image_exported.folder / "models" / "model.pt", weights_only=True), strict=True)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(image), image_run.networks["site-1"](image), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_peft_folders_hold_a_vision_transformers_adapters(make_image_run: Callable[..., Run], tmp_path: Path) -> None:
    found = export_peft(**make_image_run().options(tmp_path / "B"))
    assert (found.folder / "private" / "adapter_model.safetensors").is_file()
    assert 'build_backbone("micro_vit", out_chans=2)' in found.usage


@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_photographs_is_named(image_exported: Exported, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "D").mkdir()
    with failing_inference(image_exported.folder, tmp_path / "D", tmp_path / "O") as causes:
        assert f"{tmp_path}/D/*" in causes()


def float_tiff(path: Path) -> None:
    Image.fromarray(np.full((40, 50), np.nan, dtype=np.float32)).save(path)


def two_pages(path: Path) -> None:
    pages = [Image.fromarray(scene(40, 50, seed=seed)) for seed in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def truncated(path: Path) -> None:
    Image.fromarray(scene(90, 90)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (float_tiff, "pixels of type F without a defined white"),
        (two_pages, "several pages"),
        (lambda path: path.write_bytes(tiff(scene(40, 50)[..., 0], photometric=0)), "without a defined white"),
        (truncated, "image file is truncated|buffer is not large enough|cannot"),
        (lambda path: path.write_bytes(b"hello"), "cannot identify image file"),
        (lambda path: Image.new("RGB", (40, 40), "pink").save(path), "photograph is blank"),
    ],
)
def test_what_training_refuses_is_refused(
    image_exported: Exported,
    photographs: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    write: Callable[[Path], Any],
    message: str,
) -> None:
    import re

    write(photographs / "bad.tif")
    with failing_inference(image_exported.folder, photographs, tmp_path / "O") as causes:
        assert re.search(message, causes())
    shown = [record.getMessage() for record in caplog.records if record.name == "DataStats"]
    assert sum("bad" in text for text in shown) == 1
    errors = read_errors(tmp_path / "O" / "predictions.csv")
    assert [study for study, error in errors.items() if error] == ["bad"]
    assert f"{photographs}/bad.tif: " in errors["bad"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 40, 40), "red, green and blue as channels"),
        (torch.rand(1, 1, 40, 40), "red, green and blue as channels"),
        (255 * torch.rand(1, 3, 40, 40), "between 0 and 1"),
        (torch.full((1, 3, 40, 40), float("nan")), "between 0 and 1"),
        (torch.full((1, 3, 40, 40), 0.5), "blank"),
    ],
)
def test_script_refuses_what_is_no_photograph(image_exported: Exported, image: torch.Tensor, message: str) -> None:
    script = torch.jit.load(image_exported.folder / "models" / "model.ts")
    with pytest.raises(torch.jit.Error, match=message):
        script(image)


def test_configuration_has_every_property_monai_expects(
    image_exported: Exported, photographs: Path, tmp_path: Path
) -> None:
    path = sys.path.copy()
    workflow = ConfigWorkflow(
        config_file=str(image_exported.folder / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(image_exported.folder),
        dataset_dir=str(photographs),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    sys.path[:] = path
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(image_exported.folder / "configs" / "metadata.json"),
        config_file=str(image_exported.folder / "configs" / "inference.json"),
        bundle_root=str(image_exported.folder),
        any=37,
    )


def test_documents_speak_of_photographs(image_exported: Exported) -> None:
    metadata = image_exported.metadata
    jsonschema.validate(metadata, metadata_schema())
    assert metadata["task"] == "Classification of dermoscopic photographs as NOR / ABN"
    assert metadata["references"][0] == MICRO_VIT.source
    assert "nibabel" not in metadata["required_packages_version"]
    card = (image_exported.folder / "docs" / "README.md").read_text()
    for word in ("heart is", "diastol", "nii", "cardiac"):
        assert word not in card and word not in json.dumps(metadata)
    assert metadata["preprocessing"] in card
    assert "monai_fedlora" not in (image_exported.folder / "configs" / "inference.json").read_text()


def test_difference_stops_the_export(
    make_image_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai_fedlora.exporting import merged_weights as module

    run = make_image_run()
    monkeypatch.setattr(module, "merge_lora", lambda network: None)
    with pytest.raises(ExportError, match="cannot be merged into its backbone"):
        export_bundle(**run.options(tmp_path / "B"))
    assert not (tmp_path / "B").exists()


@pytest.mark.slow
def test_printed_command_runs_where_only_monai_is_installed(
    image_exported: Exported, image_run: Run, photographs: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (photographs / "turned.tiff").unlink()
    done = without_this_package(image_exported.usage, studies=photographs, output=tmp_path / "O", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    header, rows = read_table(tmp_path / "O" / "predictions.csv")
    assert header == ["study", *CLASSES]
    temperature = temperature_of(image_exported)
    expected = probabilities(image_run.networks["site-1"], photographs, temperature=temperature)
    assert rows == {name.rpartition(".")[0]: pytest.approx(row, abs=1e-4) for name, row in expected.items()}
