"""Made-up patients in the layouts of published data sets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, DataError, nearest
from monai_fedlora.files import make_folder

__all__ = ["LAYOUTS", "SIDE", "phantom"]

_ORIENTATIONS = ("known", "placeholder")
SIDE = 120
"""Shorter side of a photograph where nothing else is said, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A data set's layout, and what is drawn unless told otherwise.

    Attributes:
        vendors: codes of the machines.
        subjects: how many.
        noun: what they are called.
        frames: of a beat; None for photographs.
    """

    vendors: str
    subjects: int = 50
    noun: str = "patients"
    frames: int | None = None


LAYOUTS = {
    "acdc": Layout(vendors="A", frames=2),
    "mnms": Layout(vendors="ABCD", frames=12),
    "fed_isic2019": Layout(vendors="ABCDEF", subjects=600, noun="images"),
    "feddrg": Layout(vendors="ABCDEF", subjects=600, noun="images"),
}


def phantom(
    layout: str,
    *,
    output: str | os.PathLike[str],
    patients: int | None = None,
    seed: int = 0,
    vendors: Sequence[str] | None = None,
    frames: int | None = None,
    orientation: str | None = None,
    size: int | None = None,
    on_subject: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Draw made-up patients in the layout of a published data set, to try everything without real data.

    Args:
        layout: "acdc" or "mnms", cine studies; "fed_isic2019" or "feddrg", photographs.
        output: new folder for the data set.
        patients: patients, or photographs, of all vendors; None for 50 patients or 600 photographs.
        seed: another one gives other patients.
        vendors: scanner makers by their M&Ms letter (A Siemens, B Philips, C GE, D Canon), cameras of photographs A to
            F; None for A of acdc, and all of the others.
        frames: of a beat, of cine studies alone; None for 12 of mnms, and for 2, ED and ES, of acdc.
        orientation: whether the affines of cine studies tell how the patients lie, "known" or "placeholder", for the
            positive diagonal that published collections hold; None for "known".
        size: shorter side of photographs, pixels; None for 120.
        on_subject: called with the number of those that are drawn, and of all.

    Returns:
        The folder, which `monai_fedlora.prepare` reads.

    Raises:
        ConfigError: an argument is out of range, or of another kind of layout.
        DataError: ``output`` exists.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import monai_fedlora as fl
        >>> with tempfile.TemporaryDirectory() as place:
        ...     skin = fl.phantom("fed_isic2019", output=Path(place) / "skin", patients=6, vendors="A", size=32)
        ...     len(list(skin.rglob("*.jpg")))
        6
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"there is no layout {layout!r}{nearest(layout, list(LAYOUTS))}")
    chosen = LAYOUTS[layout]
    subjects = chosen.subjects if patients is None else patients
    if subjects < 1 or seed < 0:
        raise ConfigError("--patients needs 1 or more, --seed 0 or more")
    if orientation not in (None, *_ORIENTATIONS):
        raise ConfigError(f"orientation is {orientation!r}; it is {' or '.join(map(repr, _ORIENTATIONS))}")
    options: dict[str, Any]
    if chosen.frames is None:
        for name, value in (("--frames", frames), ("--orientation", orientation)):
            if value is not None:
                raise ConfigError(f"{name} is for cine studies; {layout} has photographs")
        options = {"size": SIDE if size is None else size}
        if options["size"] < 32:
            raise ConfigError("--size needs 32 or more")
    else:
        options = {"frames": chosen.frames if frames is None else frames, "oriented": orientation != "placeholder"}
        if options["frames"] < 2:
            raise ConfigError("--frames needs 2 or more")
        if size is not None:
            raise ConfigError(f"--size is for photographs; the vendors decide the pixels of {layout}")
    members, write = _drawing(layout, subjects, list(vendors or chosen.vendors), seed)
    folder = Path(os.path.abspath(output))
    if folder.exists():
        raise DataError(f"{folder} exists already; name a new folder, or delete this one first")
    make_folder(folder.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(staging, members=members, progress=partial(_counted, on_subject=on_subject), **options)
        os.rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _drawing(layout: str, subjects: int, codes: Sequence[str], seed: int) -> tuple[Sequence[Any], Callable[..., None]]:
    """What is drawn, and what draws it into a folder."""
    from monai_fedlora.data.phantom import phantom_study
    from monai_fedlora.data.phantom.cohort import machines_named
    from monai_fedlora.data.phantom.vendors import VENDORS
    from monai_fedlora.data.photo_phantom import photo_layouts as photographs
    from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
    from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS

    if LAYOUTS[layout].frames is not None:
        vendors = machines_named(VENDORS, codes, word="vendor")
        if layout == "acdc":
            return phantom_study.plan_acdc(subjects, vendors, seed), phantom_study.write_acdc
        return phantom_study.plan_mnms(subjects, vendors, seed), phantom_study.write_mnms
    if layout == "feddrg":
        eyes = machines_named(FUNDUS_CAMERAS, codes, word="camera")
        return photographs.plan_feddrg(subjects, eyes, seed), photographs.write_feddrg
    skin = machines_named(DERMATOSCOPES, codes, word="camera")
    return photographs.plan_fed_isic2019(subjects, skin, seed), photographs.write_fed_isic2019


def _counted(members: Sequence[Any], *, on_subject: Callable[[int, int], None]) -> Iterator[Any]:
    for number, member in enumerate(members):
        on_subject(number, len(members))
        yield member
