"""Exports of models that give masks: on the grid of the file that they are asked about, with numbers of the heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.answer import Answer, Writing
from monai_fedlora.exporting.arrays import Arrays
from monai_fedlora.exporting.cine_modality import Cine
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.photograph_modality import Photograph
from monai_fedlora.exporting.segmenter import CineSegmenter, PhotographSegmenter
from monai_fedlora.measures.given_numbers import GIVEN_COLUMNS, REASON
from monai_fedlora.measures.masks import value_of
from monai_fedlora.measures.structures import HEART

MASKS_NAME = "masks.csv"
SEGMENTATION_FORMAT = "segmentation"
"""Format of the output in the metadata of a model that gives masks."""
_TIES = 1e-3
"""Largest share of voxels that may differ between two computations: where two classes are equally probable."""


@dataclass(frozen=True, kw_only=True)
class Masks(Answer):
    """A structure for every voxel, 0 where there is none.

    Attributes:
        names: of the structures, whose values in a mask are 1, 2, ...
    """

    kind = "Segmentation"
    verb = "segments"
    logits = "logits of every voxel on the network's grid"
    plain_logits = logits
    scripted_output = "masks on the image's own grid"
    called = "masks"
    unmeasured_leakage = (
        "the membership inference attacks of this package work on class probabilities, and this model gives masks; "
        "that says nothing of what its weights reveal"
    )

    @property
    def task(self) -> str:
        """Into which structures."""
        return f"into {' / '.join(self.names)}"

    @property
    def returned(self) -> str:
        """What the values of a mask are."""
        return f"Values of a mask: {self.labels()['pred_classes']}."

    @property
    def limitations(self) -> tuple[str, ...]:
        """Nothing but these structures is outlined, and their borders are those of the training masks."""
        hearts = set(self.names) & set(HEART)
        differ = "where they end the base, and in papillary muscles" if hearts else "where they draw them"
        return (
            "Knows only the structures listed, and draws their borders as the masks of the training cases do; readers "
            f"differ in {differ}.",
            "A mask has no measure of its own certainty, and images that the model was not made for are outlined too.",
        )

    def labels(self) -> dict[str, str]:
        """The values of a mask."""
        said = ", ".join(f"{value} is {word}" for value, word in enumerate(("background", *self.names)))
        return {"label_classes": said, "pred_classes": said}

    def formats(self, modality: Modality) -> dict[str, Any]:
        """Masks in both."""
        mask = {
            "type": "image",
            "format": SEGMENTATION_FORMAT,
            "num_channels": modality.channels if isinstance(modality, Cine) else 1,
            "spatial_shape": ["*"] * len(modality.image_size),
            "dtype": "uint8",
            "value_range": [0, len(self.names)],
            "is_patch_data": False,
            "channel_def": {str(value): word for value, word in enumerate(("background", *self.names))},
        }
        return {"outputs": {"pred": mask}, "post_processed_outputs": {"pred": mask}}

    def whole(self, network: nn.Module, modality: Modality) -> nn.Module:
        """The segmenter of cines or photographs; of arrays the network as it is, whose logits are on their grid."""
        if isinstance(modality, Arrays):
            return network.eval()
        if not isinstance(modality, Cine):
            assert isinstance(modality, Photograph)
            return PhotographSegmenter(modality.preprocessor(), network).eval()
        lv, muscle, rv = (value_of(structure, self.names) or 0 for structure in HEART)
        return CineSegmenter(modality.preprocessor(), network, values=(lv, muscle, rv)).eval()

    def compare(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Compare masks, which may differ where two classes are equally probable.

        Raises:
            ExportError: they differ in more voxels.
        """
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ExportError(f"{what} gives masks of another form; nothing was written")
        share = float((found != expected).double().mean())
        if share > _TIES:
            raise ExportError(f"{what} gives another mask in {100 * share:.2g} % of the voxels; nothing was written")

    def writing(self, modality: Modality) -> Writing:
        """Files of masks, and a row of numbers."""
        if isinstance(modality, Cine):
            return cine_masks_writing()
        return (array_masks_writing if isinstance(modality, Arrays) else photograph_masks_writing)(self.names)

    def written_text(self, modality: Modality) -> str:
        """Masks and their table."""
        if isinstance(modality, Cine):
            return (
                "`PREDICTIONS` then has the masks `<study>_ed_mask.nii.gz` and `<study>_es_mask.nii.gz` on the grid of "
                f"the study's\nown files, and `{MASKS_NAME}` with one row per study: volumes in mL, ejection fractions "
                "in % and the mass of the left\nventricle's muscle in g. Where the stack does not cover the left "
                f"ventricle they are empty, and `{REASON}` says why."
            )
        if not isinstance(modality, Arrays):
            return (
                "`PREDICTIONS` then has a mask `<study>_mask.png` for each photograph, on its pixels as it stands "
                f"upright, and `{MASKS_NAME}`\nwith one row per photograph and the number of pixels of each structure."
            )
        return (
            f"`PREDICTIONS` then has a mask `<study>_mask.npy` for each study, and `{MASKS_NAME}` with one row per "
            "study and the number\nof voxels of each structure."
        )


def cine_masks_writing(columns: Sequence[str] = GIVEN_COLUMNS) -> Writing:
    """How the inference configuration writes the masks of end-diastole and end-systole, and their numbers.

    A mask takes grid, order of axes and orientation codes of the file that it belongs to.

    Args:
        columns: of the numbers that ``measure`` of the model gives, and of the reason against them.
    """
    return Writing(
        columns=columns,
        cells="@outlined(@item_of(engine), engine.state.output[0]['pred'].cpu(), "
        "engine.state.batch[0]['image'].affine.cpu())",
        table=MASKS_NAME,
        done="segmented",
        imports=("$import nibabel",),
        entries={
            "mask_files": "$lambda study: [pathlib.Path(@output_dir) / (study + phase + '_mask.nii.gz') "
            "for phase in ('_ed', '_es')]",
            "placed": "$lambda mask, like: (mask.set_qform(*like.get_qform(coded=True)), "
            "mask.set_sform(*like.get_sform(coded=True)), mask.header.set_xyzt_units('mm'), mask)[-1]",
            "save": "$lambda mask, like, path: nibabel.save("
            "@placed(nibabel.Nifti1Image(mask.numpy(), like.affine), like), path)",
            "numbers": "$lambda found, reason: "
            "[*['' if value != value else format(value, '.2f') for value in found.tolist()], reason]",
            "outlined": "$lambda item, masks, affine: (pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True), "
            "[@save(mask, nibabel.load(path), target) for mask, path, target in "
            "zip(masks, item['image'], @mask_files(item['study']))], "
            "@numbers(*@network_def.measure(masks, affine)))[-1]",
        },
        clear=("$[path.unlink(missing_ok=True) for item in @datalist for path in @mask_files(item['study'])]",),
    )


def array_masks_writing(structures: Sequence[str]) -> Writing:
    """How the inference configuration writes masks of arrays, and how many voxels each structure has.

    Args:
        structures: names of the values from 1.
    """
    return _one_mask(
        structures,
        unit="voxels",
        suffix="npy",
        cells="@outlined(@item_of(engine), engine.state.output[0]['pred'].cpu())",
        outlined="$lambda item, logits: (pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True), "
        "@saved(logits.argmax(dim=-len(@image_shape)).numpy().astype('uint8'), @mask_file(item['study'])))[-1]",
        saved=f"$lambda mask, path: (np.save(path, mask, allow_pickle=False), {_counts(structures)})[-1]",
    )


def photograph_masks_writing(structures: Sequence[str]) -> Writing:
    """How the inference configuration writes masks of photographs, and how many pixels each structure has.

    A mask is a grey PNG file of the upright photograph's size; its values are those of the metadata.

    Args:
        structures: names of the values from 1.
    """
    return _one_mask(
        structures,
        unit="pixels",
        suffix="png",
        cells="@outlined(@item_of(engine), engine.state.output[0]['pred'].cpu().numpy())",
        outlined="$lambda item, mask: (pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True), "
        f"Image.fromarray(mask).save(@mask_file(item['study'])), {_counts(structures)})[-1]",
    )


def _one_mask(structures: Sequence[str], *, unit: str, suffix: str, cells: str, **entries: str) -> Writing:
    """A study has one mask file, and a row with the size of each structure."""
    return Writing(
        columns=[f"{name}_{unit}" for name in structures],
        cells=cells,
        table=MASKS_NAME,
        done="segmented",
        entries={"mask_file": f"$lambda study: pathlib.Path(@output_dir) / (study + '_mask.{suffix}')", **entries},
        clear=("$[@mask_file(item['study']).unlink(missing_ok=True) for item in @datalist]",),
    )


def _counts(structures: Sequence[str]) -> str:
    """The number of points of each structure in ``mask``."""
    return f"[int((mask == value).sum()) for value in range(1, {len(structures) + 1})]"
