"""Exports for photographs: dermoscopy, fundus and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.exporting.foreign import PHOTOGRAPH
from monai_fedlora.exporting.modality import BackboneModality, Reading
from monai_fedlora.exporting.verify import probe_image
from monai_fedlora.formats.photograph_file import EIGHT_BIT, FORMATS, SIXTEEN_BIT, SUFFIXES, read_photograph
from monai_fedlora.transforms.photograph import PhotographPreprocessor, photograph_preprocessor
from monai_fedlora.transforms.photograph_colour import shades_of_grey
from monai_fedlora.transforms.photograph_geometry import resize
from monai_fedlora.transforms.photograph_style import STYLES, Style


class CheckedPhotograph(nn.Module):
    """Check images, then crop, scale and normalise them.

    Args:
        preprocessor: maps (B, 3, H, W) of any size to the network's input.
    """

    def __init__(self, preprocessor: PhotographPreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, image: Tensor) -> Tensor:
        """Prepare photographs.

        Args:
            image: (B, 3, H, W) red, green and blue in [0, 1], of any size.

        Returns:
            Input of the network.

        Raises:
            ValueError: the shape is wrong, a level is not in [0, 1], or an image is blank.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError("expected (batch, 3, H, W): red, green and blue as channels")
        if not bool(((image >= 0.0) & (image <= 1.0)).all()):
            raise ValueError("levels must lie between 0 and 1; divide those of 8 bits by 255")
        pixels = image.flatten(2)
        if bool((pixels.amax(dim=2) == pixels.amin(dim=2)).all(dim=1).any()):
            raise ValueError("the photograph is blank: all its pixels are equal; check the file")
        return self.preprocessor(image)


class PlainPhotograph(nn.Module):
    """:class:`CheckedPhotograph` for `torch.export`, without branches that depend on the values of pixels.

    The program takes any size. The square is cropped by index, because with slices the program would be specialised to
    wide or to high photographs; unusable images are refused by assertions.

    Args:
        preprocessor: of the style "dermoscopy" or "plain".
    """

    def __init__(self, preprocessor: PhotographPreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, image: Tensor) -> Tensor:
        """Prepare photographs (B, 3, H, W) in [0, 1].

        Raises:
            RuntimeError: a level is not in [0, 1], or an image is blank.
        """
        inside = ((image >= 0.0) & (image <= 1.0)).all()
        _refuse_unless(inside, "levels must lie between 0 and 1; divide those of 8 bits by 255")
        pixels = image.flatten(2)
        lit = (pixels.amax(dim=2) > pixels.amin(dim=2)).any(dim=1).all()
        _refuse_unless(lit, "the photograph is blank: all its pixels are equal; check the file")
        if self.preprocessor.style == "dermoscopy":
            image = shades_of_grey(image)
        height, width = image.shape[2], image.shape[3]
        side = min(height, width)
        places = torch.arange(side, device=image.device)
        square = image.index_select(2, places + (height - side) // 2).index_select(3, places + (width - side) // 2)
        return (resize(square, self.preprocessor.size) - self.preprocessor.mean) / self.preprocessor.std


def _refuse_unless(holds: Tensor, message: str) -> None:
    """Assert on the CPU, wherever the image is: after an assertion that fails on a GPU, nothing computes there again.

    The number goes through Python, so that `torch.export` keeps the way to the CPU when a program is moved.
    """
    torch._assert_async(torch.scalar_tensor((holds + 0).item()), message)


@dataclass(frozen=True, kw_only=True)
class Photograph(BackboneModality):
    """One colour photograph.

    Args:
        style: as in training, see :class:`monai_fedlora.transforms.photograph.PhotographPreprocessor`.
        mean: the backbone's, of each channel.
        std: the backbone's, of each channel.
        masks: whether the model outlines. A program of `torch.export` then takes prepared photographs, because the way
            back to the pixels of a photograph depends on its size.
    """

    style: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masks: bool = False
    channels = 3
    packages = ("pillow",)
    foreign = PHOTOGRAPH
    data_type = "jpeg, png or tiff"
    folder_text = (
        "Put the photographs into one folder, as JPEG, PNG or TIFF files; each is a study, called by its name without "
        "the\nending"
    )
    tensor_text = "a float tensor (batch, 3, H, W) with levels from 0 to 1"
    image_classes = "channel 0 is red, channel 1 is green, channel 2 is blue"
    limitations = (
        "Any photograph gets an answer, whatever it shows; one of another kind, blurred or badly lit is not detected.",
        "Embedded colour profiles are not applied, and colour files of 16 bits are read at 8.",
    )

    def __post_init__(self) -> None:
        self._kind  # noqa: B018  (there is such a style)

    @property
    def _kind(self) -> Style:
        return STYLES[self.style]

    @property
    def phantom(self) -> str:
        """The phantom of the same style; "dermoscopy" for plain photographs."""
        return "fundus" if self.style == "fundus" else "dermoscopy"

    @property
    def subject(self) -> str:
        """The kind of photograph in words."""
        return self._kind.photographs

    @property
    def processing(self) -> str:
        """One sentence on what the exported model does with a photograph."""
        return (
            f"It takes a photograph, {self._kind.processing}, scales and normalises it as the backbone needs and "
            "{does} it."
        )

    @property
    def input_text(self) -> str:
        """Description of the exported model's input, for the model card."""
        height, width = self.architecture.image_size
        return (
            f"Three channels: {self.image_classes}; levels from 0 to 1, any size. The inference configuration turns a "
            "photograph as its EXIF orientation says, makes grey, palette and CMYK files RGB and transparent places "
            f"black, and divides by the largest level of the file's bit depth. The model {self._kind.processing}, "
            f"scales it to {height} x {width} pixels and normalises it itself."
        )

    def input_format(self) -> dict[str, Any]:
        """Description of the exported model's input in MONAI's metadata."""
        return {
            "format": "RGB",
            "modality": "photograph",
            "spatial_shape": ["*", "*"],
            "value_range": [0, 1],
            "channel_def": {"0": "red", "1": "green", "2": "blue"},
            "style": self.style,
        }

    def preprocessor(self) -> CheckedPhotograph:
        """Checks, and the style's colour correction, crop, scaling and normalisation."""
        return CheckedPhotograph(self._unchecked())

    def plain_preprocessor(self) -> nn.Module | None:
        """The same for `torch.export`; None for masks, and for fundus, whose crop depends on the lit disc."""
        fixed = self.style in ("dermoscopy", "plain") and not self.masks
        return PlainPhotograph(self._unchecked()) if fixed else None

    def _unchecked(self) -> PhotographPreprocessor:
        return photograph_preprocessor(
            style=self.style, image_size=self.architecture.image_size, mean=self.mean, std=self.std
        )

    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """A lit disc in a wide and in a high photograph."""
        probes: list[tuple[Tensor, ...]] = []
        for height, width in ((150, 200), (257, 96)):
            row = torch.linspace(-1, 1, height)[:, None] * height / min(height, width)
            column = torch.linspace(-1, 1, width)[None] * width / min(height, width)
            lit = 0.05 + 0.95 * (row**2 + column**2 < 0.8)
            probes.append((probe_image((self.channels, height, width)) * lit,))
        return probes

    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Red, green and blue in [0, 1]."""
        return (torch.from_numpy(read_photograph(item["image"])),)

    def reading(self) -> Reading:
        """Reads the files of a folder, see :func:`photograph_reading`."""
        return photograph_reading()


def photograph_reading(endings: Sequence[str] = SUFFIXES) -> Reading:
    """How the inference configuration reads every JPEG, PNG and TIFF file of a folder, with Pillow alone.

    The result is that of `photograph_file.read_photograph`. A study has the name of its file without the ending, or
    with it if two files differ in the ending only. An empty folder is one file called ``*``, which gives an error.

    Args:
        endings: of the files' names, in lower case.
    """
    single_page = "(image.format == 'MPO' or getattr(image, 'n_frames', 1) == 1)"
    tag = "getattr(image, 'tag_v2', {}).get"
    positive = f"not (image.mode in @sixteen_bit and {tag}(262) == 0)"
    grey = f"np.asarray(image, np.float32)[..., None].repeat(3, -1) / np.float32(2 ** {tag}(258, (16,))[0] - 1)"
    colour = "np.asarray(image.convert('RGBA'), np.float32) / np.float32(255)"
    steps = (
        "$lambda path: Image.open(path, formats=@formats)",
        f"$lambda image: image if image.mode in @modes and {single_page} and {positive} else @refuse(image)",
        "$lambda image: ImageOps.exif_transpose(image, in_place=True) or image",
        f"$lambda image: {grey} if image.mode in @sixteen_bit else (lambda x: x[..., :3] * x[..., 3:])({colour})",
    )
    reason = "'several pages, or pixels of type ' + image.mode + ' without a defined white: ' + str(image)"
    return Reading(
        imports=("$import pathlib", "$import PIL.Image as Image", "$import PIL.ImageOps as ImageOps"),
        entries={
            "folder": "$pathlib.Path(@dataset_dir)",
            "endings": list(endings),
            "formats": list(FORMATS),
            "sixteen_bit": list(SIXTEEN_BIT),
            "modes": [*EIGHT_BIT, *SIXTEEN_BIT],
            "refuse": f"$lambda image: (_ for _ in ()).throw(ValueError({reason}))",
            "found": "$[path for path in @folder.glob('[!.]*') if path.suffix.lower() in @endings]",
            "files": "$sorted(@found, key=lambda path: (path.stem, path.suffix)) or [@folder / '*']",
            "stems": "$[path.stem for path in @files]",
            "datalist": "$[{'study': path.stem if @stems.count(path.stem) == 1 else path.name, "
            "'image': str(path)} for path in @files]",
        },
        transforms=(
            *({"_target_": "Lambdad", "keys": "image", "func": step, "track_meta": False} for step in steps),
            {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
            {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
        ),
    )
