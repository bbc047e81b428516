"""Inference configurations: exactly the texts that an export writes, and has ever written, pass."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.answer import probabilities_writing
from monai_fedlora.exporting.arrays import array_reading
from monai_fedlora.exporting.check.inference import inference_problems, same_json
from monai_fedlora.exporting.cine_modality import AFFINE, cine_reading
from monai_fedlora.exporting.inference_config import inference_config
from monai_fedlora.exporting.mask_answer import array_masks_writing, cine_masks_writing, photograph_masks_writing
from monai_fedlora.exporting.photograph_modality import photograph_reading
from monai_fedlora.exporting.value_answer import values_writing
from monai_fedlora.files import read_json

WRITTEN = Path(__file__).with_name("written")
"""What exports have written, one file for each text: a new text is added to them, and none is removed."""


def metadata(modality: str, classes: tuple[str, ...] = ("NOR", "ABN"), **image: Any) -> dict[str, Any]:
    """The entries of a bundle's metadata that decide about its inference configuration."""
    return {
        "network_data_format": {
            "inputs": {"image": {"modality": modality, **image}},
            "outputs": {"pred": {"channel_def": {str(index): name for index, name in enumerate(classes)}}},
        }
    }


CINE = metadata("MR", spacing_mm=[1.5, 1.5, 10.0], affine=AFFINE)
CINE_WITHOUT_AFFINE = metadata("MR", spacing_mm=[1.5, 1.5, 10.0])
PHOTOGRAPH = metadata("photograph")
ARRAYS = metadata("array", num_channels=1, spatial_shape=[4, 4])


def of_masks(kind: dict[str, Any]) -> dict[str, Any]:
    """The same kind of image, of a model that outlines three structures."""
    masks = copy.deepcopy(kind)
    values = {str(value): name for value, name in enumerate(("background", "LV", "MYO", "RV"))}
    masks["network_data_format"]["outputs"]["pred"] = {"format": "segmentation", "channel_def": values}
    return masks


def of_values(kind: dict[str, Any]) -> dict[str, Any]:
    """The same kind of image, of a model that gives two numbers."""
    values = copy.deepcopy(kind)
    values["network_data_format"]["outputs"]["pred"] = {
        "format": "values",
        "channel_def": {"0": "lv_ef", "1": "wall_mm"},
    }
    return values


CINE_VALUES, PHOTOGRAPH_VALUES, ARRAY_VALUES = of_values(CINE), of_values(PHOTOGRAPH), of_values(ARRAYS)
CINE_MASKS, ARRAY_MASKS, PHOTOGRAPH_MASKS = of_masks(CINE), of_masks(ARRAYS), of_masks(PHOTOGRAPH)


def config(kind: dict[str, Any]) -> Any:
    """What an export writes today for one of the kinds above."""
    modality = kind["network_data_format"]["inputs"]["image"]["modality"]
    readings = {"MR": cine_reading, "photograph": photograph_reading, "array": partial(array_reading, (1, 4, 4))}
    reading = readings[modality]()
    writing = probabilities_writing(("NOR", "ABN"))
    if kind["network_data_format"]["outputs"]["pred"].get("format") == "segmentation":
        of_arrays = array_masks_writing if modality == "array" else photograph_masks_writing
        writing = cine_masks_writing() if modality == "MR" else of_arrays(("LV", "MYO", "RV"))
    if kind["network_data_format"]["outputs"]["pred"].get("format") == "values":
        writing = values_writing(("lv_ef", "wall_mm"))
    return json.loads(json.dumps(inference_config(writing, reading)))


@pytest.mark.parametrize("path", sorted(WRITTEN.glob("*.json")), ids=lambda path: path.stem)
def test_every_text_that_an_export_has_written_passes(path: Path) -> None:
    kinds = {"cine_2026_11": CINE_WITHOUT_AFFINE, "photograph_2026_11": PHOTOGRAPH}
    kinds |= {"cine_masks_2026_12": CINE_MASKS, "cine_masks_strokes_2026_12": CINE_MASKS}
    kinds |= {"array_masks_2026_12": ARRAY_MASKS}
    kinds |= {"cine_values_2026_12": CINE_VALUES, "photograph_values_2026_12": PHOTOGRAPH_VALUES}
    kinds |= {"array_values_2026_12": ARRAY_VALUES, "photograph_masks_2026_12": PHOTOGRAPH_MASKS}
    latest = {"cine": CINE, "photograph": PHOTOGRAPH, "array": ARRAYS}[path.stem.partition("_")[0]]
    assert list(inference_problems(read_json(path), kinds.get(path.stem, latest))) == []


def test_a_module_without_orientation_is_not_fed_an_affine_nor_the_other_way_round() -> None:
    old = read_json(WRITTEN / "cine_2026_11.json")
    assert list(inference_problems(old, CINE))
    assert list(inference_problems(config(CINE), CINE_WITHOUT_AFFINE))


KINDS = {"cine": CINE, "photograph": PHOTOGRAPH, "array": ARRAYS, "cine masks": CINE_MASKS, "array masks": ARRAY_MASKS}
KINDS |= {"photograph masks": PHOTOGRAPH_MASKS}
KINDS |= {"cine values": CINE_VALUES, "photograph values": PHOTOGRAPH_VALUES, "array values": ARRAY_VALUES}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_an_export_writes_today_is_kept_for_the_tests_of_tomorrow(kind: dict[str, Any]) -> None:
    assert any(same_json(read_json(path), config(kind)) for path in WRITTEN.glob("*.json"))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "another reader": lambda c: c["preprocessing"]["transforms"][1].update(reader="NumpyReader"),
    "a debugger": lambda c: c["preprocessing"]["transforms"][1].update(reader="breakpoint"),
    "a module": lambda c: c["preprocessing"]["transforms"][1].update(reader="this"),
    "argument of a reader": lambda c: c["preprocessing"]["transforms"][1].update(allow_pickle=True),
    "the environment": lambda c: c.update(device="$torch.os.environ['HOME']"),
    "a huge number": lambda c: c.update(device="$9**9**9"),
    "a space": lambda c: c.update(device=c["device"] + " "),
    "true for one": lambda c: c["dataloader"].update(batch_size=True),
    "a float for an integer": lambda c: c["dataloader"].update(batch_size=1.0),
    "a number for a text": lambda c: c.update(output_dir=1),
    "order of what runs": lambda c: c["run"].reverse(),
    "one step less": lambda c: c["preprocessing"]["transforms"].pop(),
    "one step more": lambda c: c["run"].append("$@evaluator.run()"),
    "no table": lambda c: c.pop("table"),
    "another class": lambda c: c.update(columns=["study", "NOR", "ABC", "error"]),
    "a class that is evaluated": lambda c: c.update(columns="$print(1)"),
    "a reference in place of a list": lambda c: c.update(initialize="@run"),
    "a list in place of an object": lambda c: c.update(inferer=[]),
    "a macro": lambda c: c.update(extra="%/etc/passwd"),
    "an include": lambda c: c.update({"+imports": ["$import os"]}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [CINE, PHOTOGRAPH, CINE_MASKS], ids=["cine", "photograph", "cine masks"])
def test_any_other_text_does_not(kind: dict[str, Any], change: str) -> None:
    changed = config(kind)
    CHANGES[change](changed)
    assert list(inference_problems(changed, kind))


@pytest.mark.parametrize("formats", [["EPS"], ["JPEG", "EPS"], []])
def test_files_that_start_another_program_are_not_among_the_formats(formats: list[str]) -> None:
    changed = config(PHOTOGRAPH) | {"formats": formats}
    (problem,) = inference_problems(changed, PHOTOGRAPH)
    assert problem.startswith("formats")


def test_a_text_of_another_kind_of_answer_does_not_pass() -> None:
    assert list(inference_problems(config(CINE), CINE_MASKS))
    assert list(inference_problems(config(CINE_MASKS), CINE))
    with pytest.raises(ExportError, match="masks"):
        list(inference_problems(config(CINE), of_masks(CINE_WITHOUT_AFFINE)))


def test_a_text_of_another_kind_of_image_does_not_pass() -> None:
    assert list(inference_problems(config(CINE), PHOTOGRAPH))
    assert list(inference_problems(config(PHOTOGRAPH), CINE))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        metadata("CT"),
        metadata("MR"),
        metadata("MR", spacing_mm=["$x", 1.0, 1.0]),
        metadata("MR", spacing_mm=[1.0, 1.0]),
        metadata("MR", spacing_mm=[1.0, 1.0, 1.0], affine="$print(1)"),
        metadata("MR", spacing_mm=[-1.0, 1.0, 1.0]),
        metadata("MR", spacing_mm=[True, 1.0, 1.0]),
        metadata("MR", spacing_mm=[1e9, 1.0, 1.0]),
        metadata("MR", spacing_mm=[0.001, 0.001, 0.001]),
        metadata("photograph", ("$print(1)", "b")),
        metadata("photograph", ("a,b", "c")),
        metadata("photograph", ("a\n=HYPERLINK()", "c")),
    ],
)
def test_metadata_that_name_nothing_plain_are_refused(broken: Any) -> None:
    with pytest.raises(ExportError, match="metadata"):
        list(inference_problems(config(PHOTOGRAPH), broken))


PLACES = st.lists(st.integers(0, 50), min_size=1, max_size=6)
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})


@given(places=PLACES, value=VALUES, kind=st.sampled_from([CINE, PHOTOGRAPH]))
def test_no_place_can_hold_another_value(places: list[int], value: Any, kind: dict[str, Any]) -> None:
    original = config(kind)
    changed = copy.deepcopy(original)
    part, inner = changed, changed
    for place in places:
        if not isinstance(inner, (dict, list)) or not inner:
            break
        part, key = inner, list(inner)[place % len(inner)] if isinstance(inner, dict) else place % len(inner)
        inner = part[key]
    part[key] = value
    assert bool(list(inference_problems(changed, kind))) != same_json(changed, original)


@pytest.mark.parametrize(
    "image", [{"spatial_shape": [4, 5]}, {"num_channels": 2}, {"spatial_shape": [4, "4"]}, {"spatial_shape": 4}]
)
def test_a_model_of_arrays_says_the_shape_that_it_reads(image: dict[str, Any]) -> None:
    kind = metadata("array", **{"num_channels": 1, "spatial_shape": [4, 4], **image})
    try:
        assert list(inference_problems(config(ARRAYS), kind))
    except ExportError as error:
        assert "image" in str(error)
