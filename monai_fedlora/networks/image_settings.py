"""What the files beside published weights say of images: their size and their normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose, isfinite
from pathlib import Path
from typing import Any, cast

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.checkpoint_files import CONFIG_NAME
from monai_fedlora.networks.weights_sources import find_beside

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A value, and the file that says it.

    Attributes:
        value: of a normalisation, one number for each of red, green and blue; of a size, pixels.
        file: name of the file.
    """

    value: Any
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """What is said of images; None where no file says it.

    Attributes:
        mean: to subtract from levels in [0, 1].
        std: to divide by afterwards.
        side: height and width of the square images in pixels that the weights are released for.
    """

    mean: Said | None = None
    std: Said | None = None
    side: Said | None = None


def read_image_settings(source: str | Path) -> ImageSettings:
    """Read the files beside weights: :data:`_READERS` has their names, in their order.

    The first of them that says something decides it; transformers', OpenCLIP's and timm's own forms are read. Images
    are scaled to ``side`` and brought to [0, 1] here whatever is said of scaling, cropping and interpolation.

    Args:
        source: of the weights, see :func:`monai_fedlora.networks.weights_sources.find_weights`.

    Raises:
        WeightsError: a file cannot be read, or says what cannot be followed; it is named.
    """
    found: dict[str, Said] = {}
    for name, read in _READERS.items():
        path = find_beside(source, name)
        if path is None:
            continue
        for key, value in read(_content(path), path).items():
            if value is not None:
                found.setdefault(key, Said(value=_checked(key, value, path), file=name))
    return ImageSettings(**found)


def normalisation_beside(source: str | Path, given: Mapping[str, Any], *, mean: Colour, std: Colour) -> dict[str, Any]:
    """The training settings ``image_mean`` and ``image_std`` for weights beside which others are said than a size has.

    Args:
        source: of the weights.
        given: settings that somebody chose, which win; where both are among them, the files are not read.
        mean, std: the size's own.

    Raises:
        WeightsError: see :func:`read_image_settings`.
    """
    own = {name: value for name, value in (("image_mean", mean), ("image_std", std)) if name not in given}
    if not own:
        return {}
    said = read_image_settings(source)
    found = {"image_mean": said.mean, "image_std": said.std}
    return {
        name: list(told.value)
        for name, value in own.items()
        if (told := found[name]) is not None and not all(map(_same, told.value, value))
    }


def _same(a: float, b: float) -> bool:
    """Whether two levels are one, written with more or fewer digits."""
    return isclose(a, b, abs_tol=1e-6)


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no JSON object; get it again from where the weights are from, or take it away")
    return content


def _of_transformers(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """An image processor of transformers."""
    factor = content.get("rescale_factor", 1 / 255)
    scaled = content.get("do_rescale") is not False
    if not scaled or not isinstance(factor, (int, float)) or not isclose(factor, 1 / 255, rel_tol=1e-3):
        how = f"multiplied by {factor!r}" if scaled else "that are not rescaled"
        raise WeightsError(
            f"{path} asks for levels {how}, and here they are divided by 255; say what the network needs for levels in "
            "[0, 1] with --set image_mean=R,G,B --set image_std=R,G,B"
        )
    if content.get("do_flip_channel_order"):
        raise WeightsError(
            f"{path} asks for the colours in the order blue, green, red, and here they are red, green, blue; turn the "
            "patch embedding's colours round in the weights, and the mean and std, and say do_flip_channel_order false"
        )
    if content.get("do_normalize", True) is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "side": _side(_processed(content))}
    return {"mean": content.get("image_mean"), "std": content.get("image_std"), "side": _side(_processed(content))}


def _of_processor(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A processor of images and texts, which holds that of images or lies beside it."""
    inside = content.get("image_processor")
    return _of_transformers(inside, path) if isinstance(inside, dict) else {}


def _processed(content: Mapping[str, Any]) -> Any:
    return content.get("crop_size") if content.get("do_center_crop") else content.get("size")


def _of_open_clip(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    said, model = (content.get(name) or {} for name in ("preprocess_cfg", "model_cfg"))
    side = said.get("size") or (model.get("vision_cfg") or {}).get("image_size")
    return {"mean": said.get("mean"), "std": said.get("std"), "side": _side(side)}


def _of_config(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The ``pretrained_cfg`` of timm, or the image size of an architecture of transformers."""
    said = content.get("pretrained_cfg")
    if isinstance(said, dict):
        size = said.get("input_size")
        return {"mean": said.get("mean"), "std": said.get("std"), "side": _side(size[1:] if size else None)}
    vision = content.get("vision_config")
    return {"side": _side((vision if isinstance(vision, dict) else content).get("image_size"))}


def _side(value: Any) -> Any:
    """The side of a square, in one of the ways it is written; None for anything else."""
    if isinstance(value, dict):
        value = value.get("shortest_edge") or (value.get("height"), value.get("width"))
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return value if type(value) is int and value > 0 else None


def _checked(key: str, value: Any, path: Path) -> Any:
    if key == "side":
        return value
    if not isinstance(value, Sequence) or len(value) != 3 or not all(map(_is_level, value)):
        raise WeightsError(f"{path} says the {key} {value!r:.80}; it must be a number for each of red, green and blue")
    if not 0 <= min(value) <= max(value) <= 1:
        raise WeightsError(
            f"{path} says the {key} {value!r:.80}, which is not of levels in [0, 1]; of levels from 0 to 255 it is 255 "
            f"times too large: divide it there, or say what the network needs with --set image_{key}=R,G,B"
        )
    if key == "std" and min(value) == 0:
        raise WeightsError(f"{path} says the std {value!r:.80}; it must be above 0")
    return cast(Colour, tuple(map(float, value)))


def _is_level(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


_READERS = {
    "preprocessor_config.json": _of_transformers,
    "processor_config.json": _of_processor,
    "open_clip_config.json": _of_open_clip,
    CONFIG_NAME: _of_config,
}
