"""Write phantom photographs in the layouts of Fed-ISIC2019 and GDRBench.

The writers fill a folder that the caller moves to its place when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from monai_fedlora.data.isic_files import MASK_SUFFIX
from monai_fedlora.data.phantom.cohort import share_out
from monai_fedlora.data.photo_phantom.dermatoscopes import Dermatoscope
from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.data.photo_phantom.fundus_cameras import FundusCamera
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.data.photo_phantom.optics import encode, encode_mask
from monai_fedlora.data.photo_phantom.photo_cohort import draw_units
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS
from monai_fedlora.data.splits import assign_splits
from monai_fedlora.files import csv_text, make_folder, write_bytes

ISIC_FOLDER = "ISIC_2019_Training_Input_preprocessed"
ISIC_TABLE = "train_test_split"
ISIC_MASKS = "segmentations"
ISIC_METADATA = "ISIC_2019_Training_Metadata.csv"
ISIC_COLUMNS = ("image", *CLASSES, "UNK", "target", "center", "fold", "fold2")

_FIRST_IMAGE = 9_000_000  # beyond the numbers of the ISIC archive
_SITES = ("anterior torso", "head/neck", "lower extremity", "upper extremity", "posterior torso", "palms/soles")
_PAIRED = {"DEEPDR": ("{0}_r1", "{0}_l1"), "RLDR": ("{0}_right", "{0}_left")}
_SINGLE = "{0:05d}"

CameraT = TypeVar("CameraT", Dermatoscope, FundusCamera)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Generic[CameraT]):
    """One picture of a collection, before it is taken.

    Attributes:
        name: file name without its suffix.
        unit: lesion or patient.
        group: class.
        camera: the camera.
        split: ``training``, ``validation`` or ``test``.
        seed: of the lesion or person.
        shot: which picture of it.
    """

    name: str
    unit: str
    group: str
    camera: CameraT
    split: str
    seed: tuple[int, ...]
    shot: int


Progress = Callable[[Sequence[Member[CameraT]]], Iterable[Member[CameraT]]]


def plan_fed_isic2019(images: int, cameras: Sequence[Dermatoscope], seed: int) -> list[Member[Dermatoscope]]:
    """Plan a collection like Fed-ISIC2019: the same number of images of each camera, four fifths for training.

    Unlike FLamby's, no lesion has images in both folds.
    """
    doubles = dict.fromkeys((camera.code for camera in cameras), KINDS["dermoscopy"].doubles)
    members = _plan(images, cameras, doubles, seed, (0.8, 0.0, 0.2))
    return [replace(member, name=f"ISIC_{_FIRST_IMAGE + number:07d}") for number, member in enumerate(members)]


def plan_feddrg(images: int, cameras: Sequence[FundusCamera], seed: int) -> list[Member[FundusCamera]]:
    """Plan a collection like GDRBench: the same number of images of each domain, four fifths for training.

    Both eyes of a patient occur only in domains whose file names contain the patient.
    """
    doubles = {camera.code: KINDS["fundus"].doubles * (camera.domain in _PAIRED) for camera in cameras}
    members = _plan(images, cameras, doubles, seed, (0.8, 0.2, 0.0))
    return [replace(member, name=_file_name(member)) for member in members]


def write_fed_isic2019(
    root: Path, members: Sequence[Member[Dermatoscope]], *, size: int, progress: Progress[Dermatoscope]
) -> None:
    """Write the images, masks, ``train_test_split`` and the metadata with the lesions into ``root``.

    Args:
        root: a folder the caller moves to its place afterwards.
        members: the pictures.
        size: shorter side of a picture, pixels.
        progress: iterates over the pictures and shows the progress, as ``rich.progress.track`` does.
    """
    folder = root / ISIC_FOLDER
    make_folder(folder)
    make_folder(root / ISIC_MASKS)
    table: list[Sequence[object]] = [ISIC_COLUMNS]
    metadata: list[Sequence[object]] = [("image", "age_approx", "anatom_site_general", "lesion_id", "sex")]
    for member in progress(members):
        picture = make_dermoscopy(member.group, member.camera, member.seed, shot=member.shot, size=size)
        write_bytes(folder / f"{member.name}.jpg", encode(picture.pixels, member.camera.optics, ".jpg"))
        write_bytes(root / ISIC_MASKS / f"{member.name}{MASK_SUFFIX}.png", encode_mask(picture.mask))
        target = CLASSES.index(member.group)
        fold = "train" if member.split == "training" else "test"
        marks = [float(name == member.group) for name in (*CLASSES, "UNK")]
        table.append((member.name, *marks, target, member.camera.centre, fold, f"{fold}_{member.camera.centre}"))
        facts = np.random.default_rng(member.seed)
        metadata.append(
            (
                member.name,
                5 * round(picture.age / 5),
                facts.choice(_SITES),
                member.unit,
                facts.choice(("female", "male")),
            )
        )
    write_bytes(root / ISIC_TABLE, csv_text(table).encode())
    write_bytes(root / ISIC_METADATA, csv_text(metadata).encode())


def write_feddrg(
    root: Path, members: Sequence[Member[FundusCamera]], *, size: int, progress: Progress[FundusCamera]
) -> None:
    """Write ``images`` and ``splits`` into ``root``; arguments as for :func:`write_fed_isic2019`."""
    kind = KINDS["fundus"]
    lists: dict[str, list[str]] = {}
    make_folder(root / "splits")
    for member in progress(members):
        camera = member.camera
        path = f"{camera.domain}/{member.group}/{member.name}{camera.suffix}"
        file = root / "images" / path
        make_folder(file.parent)
        write_bytes(
            file, kind.file(member.group, camera, member.seed, shot=member.shot, size=size, suffix=camera.suffix)
        )
        for name, split in (("train", "training"), ("crossval", "validation")):
            lines = lists.setdefault(f"{camera.domain}_{name}.txt", [])
            if member.split == split:
                lines.append(f"{path} {kind.classes.index(member.group)}\n")
    for name, lines in lists.items():
        write_bytes(root / "splits" / name, "".join(lines).encode())


def _plan(
    images: int, cameras: Sequence[CameraT], doubles: Mapping[str, float], seed: int, fractions: Sequence[float]
) -> list[Member[CameraT]]:
    counts = share_out(images, {camera.code: 1.0 for camera in cameras})
    members: list[Member[CameraT]] = []
    for camera in cameras:
        units = draw_units(counts[camera.code], camera.shares, doubles[camera.code], (seed, ord(camera.code)))
        names = [f"{camera.code}{number:05d}" for number in range(len(units))]
        splits = assign_splits(
            {name: unit.group for name, unit in zip(names, units, strict=True)}, seed=seed, fractions=fractions
        )
        members += [
            Member(
                name=name,
                unit=name,
                group=unit.group,
                camera=camera,
                split=splits[name],
                seed=(seed, ord(camera.code), number),
                shot=shot,
            )
            for number, (name, unit) in enumerate(zip(names, units, strict=True))
            for shot in range(unit.pictures)
        ]
    return members


def _file_name(member: Member[FundusCamera]) -> str:
    """Return the name of a file; in some domains it contains the patient and the eye."""
    pattern = _PAIRED.get(member.camera.domain, (_SINGLE,))[member.shot]
    return pattern.format(member.seed[-1] + 1)
