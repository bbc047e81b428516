"""Write the masks that a network finds in cine studies, and the numbers of the heart that they give."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_fedlora.engines.predictions import StudyTable
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import atomic_path
from monai_fedlora.measures.given_numbers import GIVEN_COLUMNS
from monai_fedlora.measures.structures import PHASES
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.transforms.file_masks import CineFiles, in_order_of_file


class MaskWriter(StudyTable):
    """Write ``<study>_ed_mask.nii.gz`` and ``<study>_es_mask.nii.gz``, and ``volumes.csv`` with the heart's numbers.

    A stack that does not cover the left ventricle has no number but a reason, see
    :func:`monai_fedlora.measures.given_numbers.given_numbers`. Masks lie on the grids of the study's own files, in
    their order of axes: 0 is the background, 1 to K are the structures in the order of ``names``. See
    :class:`StudyTable`.

    Args:
        output_dir: receives the files.
        names: of the structures.
        size: the network's, which tells the voxel size of its grid.
        dataset: of the evaluation, whose ``data`` name the files of its studies.
        filename: name of the CSV file.

    Raises:
        ConfigError: several processes would each hold a part of the studies; or the network takes photographs.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        names: Sequence[str],
        size: str,
        dataset: Any,
        filename: str = "volumes.csv",
    ) -> None:
        super().__init__(output_dir=output_dir, filename=filename, header=["study", *GIVEN_COLUMNS])
        form = architecture(size)
        if form.spacing is None:
            raise ConfigError(f"masks of cines are written, and {size} takes photographs; choose a size for cines")
        self.names = list(names)
        self.spacing = form.spacing
        self.seen = (form.image_size[2], form.spacing[2])
        self._items = {str(item["subject"]): item for item in dataset.data}

    def rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        """Write the masks of a study; one row with its numbers, or why there are none."""
        study = str(item["subject"])
        files = CineFiles.of(self._items[study])
        masks = files.restored(torch.as_tensor(output["pred"]).float().softmax(dim=1), spacing=self.spacing)
        for phase, mask, frame in zip(PHASES, masks, (files.ed, files.es), strict=True):
            stored, affine = in_order_of_file(mask, frame)
            _write(self.path.parent / f"{study}_{phase.lower()}_mask.nii.gz", stored, affine)
        return [[study, *files.given(masks, structures=self.names, seen=self.seen).cells()]]


def _write(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    image = nibabel.Nifti1Image(mask, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
