"""Check that ``configs/inference.json`` is, word for word, one that an export of this package writes.

MONAI imports, calls and evaluates what such a file contains. So the whole file has to equal what the exporter writes
for the kind of image, the classes and the voxel size in the metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.answer import Writing, probabilities_writing
from monai_fedlora.exporting.arrays import ARRAY, array_reading
from monai_fedlora.exporting.check.earlier import PHOTOGRAPH_ENDINGS, SEVEN_NUMBERS, config_of_one_run
from monai_fedlora.exporting.check.words import shortened
from monai_fedlora.exporting.cine_modality import AFFINE, cine_reading, resampled_cine_reading
from monai_fedlora.exporting.inference_config import inference_config
from monai_fedlora.exporting.mask_answer import (
    SEGMENTATION_FORMAT,
    array_masks_writing,
    cine_masks_writing,
    photograph_masks_writing,
)
from monai_fedlora.exporting.modality import Reading
from monai_fedlora.exporting.photograph_modality import photograph_reading
from monai_fedlora.exporting.value_answer import VALUES_FORMAT, values_writing
from monai_fedlora.formats.photograph_file import SUFFIXES

_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_CLASSES = 10_000
_LARGEST_SIDE = 1 << 16
_SMALLEST_STEP, _LARGEST_STEP = 0.5, 1000.0  # mm; resampling to a smaller size could fill the memory


def inference_problems(config: Any, metadata: Any) -> Iterator[str]:
    """Differences of a configuration from what an export writes.

    Args:
        config: the parsed ``inference.json``.
        metadata: the parsed ``metadata.json``.

    Raises:
        ExportError: the metadata do not describe classes and images as an export does.
    """
    yield from min((list(_differences(config, known, "")) for known in _known_configs(metadata)), key=len)


def same_json(first: Any, second: Any) -> bool:
    """Whether two parsed JSON values are equal, where true differs from 1 and 1 from 1.0."""
    return _text(first) == _text(second)


def _known_configs(metadata: Any) -> Iterator[Any]:
    """Every configuration that this or an earlier version writes for such a model."""
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        if len(channels) > _MOST_CLASSES:
            raise ExportError(f"the metadata name more than {_MOST_CLASSES:,} classes")
        classes = [channels[str(index)] for index in range(len(channels))]
        answer = metadata["network_data_format"]["outputs"]["pred"].get("format")
        reading = _reading(image)
    except (LookupError, TypeError) as error:
        raise ExportError("the metadata do not name classes and images as an export does") from error
    if not all(isinstance(name, str) and _CLASS.fullmatch(name) for name in classes):
        raise ExportError("the metadata name a class that is no plain word")
    if answer == SEGMENTATION_FORMAT:
        for writing in _mask_writings(image, classes):
            yield json.loads(json.dumps(inference_config(writing, reading)))
        return
    if answer == VALUES_FORMAT:
        yield json.loads(json.dumps(inference_config(values_writing(classes), reading)))
        return
    if image["modality"] in ("photograph", ARRAY) or "affine" in image:
        yield json.loads(json.dumps(inference_config(probabilities_writing(classes), reading)))
    if "affine" not in image and image["modality"] != ARRAY:
        yield json.loads(json.dumps(config_of_one_run(classes, _reading(image, endings=PHOTOGRAPH_ENDINGS))))


def _mask_writings(image: Mapping[str, Any], classes: Sequence[str]) -> tuple[Writing, ...]:
    """What is and was written by a model that gives masks, of structures that follow on the background."""
    if image["modality"] == ARRAY:
        return (array_masks_writing(classes[1:]),)
    if image["modality"] == "photograph":
        return (photograph_masks_writing(classes[1:]),)
    if image["modality"] != "MR" or "affine" not in image:
        raise ExportError("the metadata name masks of a kind of image that no export outlines")
    return cine_masks_writing(), cine_masks_writing(SEVEN_NUMBERS)


def _reading(image: Mapping[str, Any], endings: Sequence[str] = SUFFIXES) -> Reading:
    if image["modality"] == "photograph":
        return photograph_reading(endings)
    if image["modality"] == ARRAY:
        shape = [image["num_channels"], *image["spatial_shape"]]
        if not all(type(size) is int and 0 < size <= _LARGEST_SIDE for size in shape):
            raise ExportError(f"the metadata name {shortened(shape)} as the shape of an image, which is none")
        return array_reading(shape)
    if image["modality"] != "MR":
        raise ExportError("the metadata name a kind of image that no export takes")
    spacing = image["spacing_mm"]
    plain = isinstance(spacing, list) and all(
        type(step) in (int, float) and _SMALLEST_STEP <= step <= _LARGEST_STEP for step in spacing
    )
    if not plain or len(spacing) != 3:
        raise ExportError(
            f"the metadata name {shortened(spacing)} as the voxel size, which is no size from {_SMALLEST_STEP:g} to "
            f"{_LARGEST_STEP:g} mm"
        )
    if "affine" not in image:
        return resampled_cine_reading(spacing)
    if image["affine"] != AFFINE:
        raise ExportError("the metadata name an affine in words that no export writes")
    return cine_reading()


def _differences(found: Any, known: Any, place: str) -> Iterator[str]:
    """The places in which two values differ, as deep as their structures agree."""
    if isinstance(found, Mapping) and isinstance(known, Mapping):
        for key in sorted(found.keys() | known.keys()):
            inner = f"{place}::{key}" if place else key
            if key not in known:
                yield f"{shortened(inner)} is {shortened(found[key])}, which no export writes"
            elif key not in found:
                yield f"{inner} is missing"
            else:
                yield from _differences(found[key], known[key], inner)
    elif isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        for index, (one, other) in enumerate(zip(found, known, strict=True)):
            yield from _differences(one, other, f"{place}::{index}")
    elif not same_json(found, known):
        where = place or "the configuration"
        yield f"{where} is {shortened(found)}, which no export writes; it is {shortened(known)}"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
