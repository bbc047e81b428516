"""What one site has: its cases, whichever way a Python program holds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from monai_fedlora.data.collected import LABEL, Parts, TargetKind, read_part
from monai_fedlora.data.datalist import FILE_NAME, load_datalist
from monai_fedlora.data.origin import UNKNOWN, check_kind
from monai_fedlora.errors import ConfigError, DataError

__all__ = ["SiteData"]


@dataclass(frozen=True, eq=False)
class SiteData:
    """The cases of one site of `monai_fedlora.federate`.

    Each part is one of

    - a tuple of images (N, C, \\*spatial) and labels (N,), as arrays or tensors, and, as a third, subjects (N,);
    - a list of dictionaries with ``image``, ``label`` and, where known, ``subject``;
    - a MONAI or torch data set of such dictionaries, or of pairs of an image and a label.

    In place of labels, segmentation has masks (N, \\*spatial) of whole numbers, 0 for the background and 1 to K for the
    structures (key ``mask``; of a dictionary, ``labelled`` (K + 1,) says which structures its mask outlines, the
    background first), and regression has numbers (N, V) (key ``values``), NaN where one is not known.

    Labels are 0 to C - 1. Images are used as they are: what they need before the network is ``transform``. All cases
    are read once, when the run begins, and stay in memory. Cases of one subject are one patient for everything that
    counts patients; without subjects each case is its own. A warning tells of an image that
    lies in two parts, equal to the bit: a model is then measured on what it has seen.

    Args:
        train: cases to train on.
        test: cases that the finished models are measured on; None for none.
        validation: cases that every round's model is measured on; None for none.
        classes: names in label order; None takes those of the run.
        transform: deterministic MONAI dictionary transforms, for every case.
        augmentation: random MONAI dictionary transforms on the keys ``image``, for training.
        images: what the images are, for reports and model cards: "real", "synthetic", "mixed" or "unknown".
        folder: in place of parts, see `prepared`.

    Raises:
        ConfigError: there is no part to train on, or ``images`` is another word.

    Examples:
        >>> import numpy as np
        >>> import monai_fedlora as fl
        >>> images, labels = np.zeros((6, 3, 32, 32), dtype="float32"), [0, 1, 0, 1, 0, 1]
        >>> data = fl.SiteData(train=(images[:4], labels[:4]), test=(images[4:], labels[4:]))
        >>> data.classes is None
        True
    """

    train: Any = None
    _: KW_ONLY
    test: Any = None
    validation: Any = None
    classes: Sequence[str] | None = None
    transform: Sequence[Callable] | Callable = ()
    augmentation: Sequence[Callable] = ()
    images: str = UNKNOWN
    folder: Path | None = None

    def __post_init__(self) -> None:
        if (self.train is None) == (self.folder is None):
            raise ConfigError(
                "a site has train= (and test=, validation=), or a prepared folder: SiteData.prepared(folder)"
            )
        check_kind(self.images)

    @classmethod
    def prepared(
        cls,
        folder: str | os.PathLike[str],
        *,
        transform: Sequence[Callable] | Callable = (),
        augmentation: Sequence[Callable] = (),
    ) -> SiteData:
        """A site that ``monai-fedlora data`` has prepared.

        Args:
            folder: the site's folder, with ``datalist.json`` in it, or that file.
            transform: for a network of one's own, see `SiteData`; the networks of the catalogue have theirs.
            augmentation: likewise.

        Raises:
            DataError: there is no datalist.
        """
        path = Path(folder)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise DataError(f"{path} does not exist; give the folder of one site, as monai-fedlora data makes it")
        return cls(folder=path, transform=transform, augmentation=augmentation)

    @classmethod
    def of(cls, value: Any) -> SiteData:
        """What a user has given for a site: this, or the path of a prepared one.

        Raises:
            ConfigError: it is neither.
            DataError: see `prepared`.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, os.PathLike)):
            return cls.prepared(value)
        raise ConfigError(f"a site is a {type(value).__name__}; give fl.SiteData(...) or the path of a prepared site")

    def read(self, site: str, kind: TargetKind = LABEL) -> tuple[SiteData, Parts]:
        """Read all cases.

        Args:
            site: its name, for errors.
            kind: what cases have beside their image.

        Returns:
            What the site says about them (of a prepared folder, what its datalist says), and the cases by split.

        Raises:
            DataError: see `monai_fedlora.data.collected.read_part`.
        """
        said, parts = self, {"training": self.train, "validation": self.validation, "test": self.test}
        if self.folder is not None:
            listed = load_datalist(self.folder)
            said = replace(self, classes=listed.classes, images=listed.origin.kind)
            parts = {split: _by_unit(listed, split) for split in parts}
        steps = self.transform
        return said, {
            split: read_part(part, site=site, split=split, transform=steps, kind=kind) for split, part in parts.items()
        }


def _by_unit(listed: Any, split: str) -> list[dict[str, Any]]:
    """A split of a datalist, each case with its patient or lesion as its subject."""
    cases = zip(listed.items(split), listed.cases(split), strict=True)
    return [{**item, "subject": case.unit or case.subject} for item, case in cases]
