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
from monai_fedlora.exporting.mask_numbers import COLUMNS
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.segmenter import CineSegmenter
from monai_fedlora.measures.masks import value_of
from monai_fedlora.measures.structures import HEART

MASKS_NAME = "masks.csv"
REASON = "no_volume_because"
"""Column of the reason why there are no numbers."""
SEGMENTATION_FORMAT = "segmentation"
"""Format of the output in the metadata of a model that gives masks."""
UNMEASURED_LEAKAGE = (
    "the membership inference attacks of this package work on class probabilities, and this model gives masks; that "
    "says nothing of what its weights reveal"
)
NO_FEATURES = "a run of segmentation keeps no features of its cases to measure a distance from"
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
        return (
            "Knows only the structures listed, and draws their borders as the masks of the training cases do; readers "
            "differ in where they end the base, and in papillary muscles.",
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
        """The segmenter of cines; of arrays the network as it is, whose logits are on their grid already.

        Raises:
            ExportError: there is none for this kind of image.
        """
        if isinstance(modality, Arrays):
            return network.eval()
        if not isinstance(modality, Cine):
            raise ExportError(
                "masks of photographs have no bundle yet; in Python, run.personal(site) gives the network itself"
            )
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
        return cine_masks_writing() if isinstance(modality, Cine) else array_masks_writing(self.names)

    def written_text(self, modality: Modality) -> str:
        """Masks and their table."""
        if isinstance(modality, Cine):
            return (
                "`PREDICTIONS` then has the masks `<study>_ed_mask.nii.gz` and `<study>_es_mask.nii.gz` on the grid of "
                f"the study's\nown files, and `{MASKS_NAME}` with one row per study: volumes in mL, ejection fractions "
                "in % and the mass of the left\nventricle's muscle in g. Where the stack does not cover the left "
                f"ventricle they are empty, and `{REASON}` says why."
            )
        return (
            f"`PREDICTIONS` then has a mask `<study>_mask.npy` for each study, and `{MASKS_NAME}` with one row per "
            "study and the number\nof voxels of each structure."
        )


def cine_masks_writing() -> Writing:
    """How the inference configuration writes the masks of end-diastole and end-systole, and their numbers.

    A mask takes grid, order of axes and orientation codes of the file that it belongs to.
    """
    return Writing(
        columns=(*COLUMNS, REASON),
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
    return Writing(
        columns=[f"{name}_voxels" for name in structures],
        cells="@outlined(@item_of(engine), engine.state.output[0]['pred'].cpu())",
        table=MASKS_NAME,
        done="segmented",
        entries={
            "mask_file": "$lambda study: pathlib.Path(@output_dir) / (study + '_mask.npy')",
            "outlined": "$lambda item, logits: (pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True), "
            "@saved(logits.argmax(dim=-len(@image_shape)).numpy().astype('uint8'), @mask_file(item['study'])))[-1]",
            "saved": "$lambda mask, path: (np.save(path, mask, allow_pickle=False), "
            f"[int((mask == value).sum()) for value in range(1, {len(structures) + 1})])[-1]",
        },
        clear=("$[@mask_file(item['study']).unlink(missing_ok=True) for item in @datalist]",),
    )
