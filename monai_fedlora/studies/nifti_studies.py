"""Recognise studies among the NIfTI files of a folder by their names: pairs, cines, patients of ACDC and M&Ms.

ACDC: Bernard et al., IEEE TMI 37(11):2514-2525, 2018; the patient's ``Info.cfg`` counts frames from 1.
M&Ms: Campello et al., IEEE TMI 40(12):3543-3554, 2021.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from monai_fedlora.data.records import FramePair
from monai_fedlora.studies.naming import names_of_file
from monai_fedlora.studies.study import CineFile, Files, Unusable

NIFTI = (".nii", ".nii.gz")
_ANY_NAME = re.IGNORECASE | re.DOTALL  # a name may hold a line break
PAIR = re.compile(r"(?P<study>.+)_(?P<frame>ed|es)(?P<ending>\.nii(\.gz)?)", _ANY_NAME)
INFO = "Info.cfg"
_NUMBERED = re.compile(r"(?P<study>.+)_frame(?P<number>\d{1,4})(?P<ending>\.nii(\.gz)?)", _ANY_NAME)
_WHOLE = re.compile(r"(?P<study>.+)_4d(?P<ending>\.nii(\.gz)?)", _ANY_NAME)
_LABELS = re.compile(r"(?P<image>.+)_(gt|seg|segmentation|mask|label|labels)(?P<ending>\.nii(\.gz)?)", _ANY_NAME)
_LINE = re.compile(r"^\s*(?P<frame>ED|ES)\s*:\s*(?P<number>\d{1,4})\s*$", re.MULTILINE)


@dataclass
class Arranged:
    """The studies among the NIfTI files of a folder.

    Attributes:
        studies: the possible names of each, shortest first, and its files.
        left_out: files that belong to no study, with the reason.
        used: files of a patient whose frames are not known; see the unusable study with their names.
    """

    studies: list[tuple[tuple[str, ...], Files]] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    used: set[Path] = field(default_factory=set)


def ending_of(path: PurePath) -> str:
    """The ending ``.nii`` or ``.nii.gz`` of a name, in its own capitals; empty for another kind of file."""
    name = path.name
    return next((name[-len(end) :] for end in sorted(NIFTI, key=len, reverse=True) if name.lower().endswith(end)), "")


def arrange_volumes(volumes: Sequence[Path], *, read_info: Callable[[], str] | None) -> Arranged:
    """Sort the NIfTI files of one folder into studies.

    Args:
        volumes: the files, in order of their names.
        read_info: reads the folder's ``Info.cfg``; None if there is none.
    """
    arranged = Arranged()
    images = {path.name[: -len(ending_of(path))] for path in volumes}
    pairs: dict[str, dict[str, Path]] = defaultdict(dict)
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    whole: dict[str, Path] = {}
    for path in volumes:
        if (match := _LABELS.fullmatch(path.name)) and match["image"] in images:
            arranged.left_out[path] = "a segmentation of another file"
        elif match := PAIR.fullmatch(path.name):
            _keep(arranged, pairs[match["study"]], match["frame"].lower(), path)
        elif match := _NUMBERED.fullmatch(path.name):
            _keep(arranged, numbered[match["study"]], int(match["number"]), path)
        elif read_info is not None and (match := _WHOLE.fullmatch(path.name)):
            _keep(arranged, whole, match["study"], path)
        else:
            arranged.studies.append((names_of_file(path, ending_of(path)), CineFile(path)))
    for study, frames in pairs.items():
        first = next(iter(frames.values()))
        ed, es = (frames.get(frame) or _missing(first, frame) for frame in ("ed", "es"))
        arranged.studies.append((names_of_file(first, first.name[len(study) :]), FramePair(ed, es)))
    patients = sorted(numbered.keys() | whole.keys())
    info = read_info() if read_info is not None and len(patients) == 1 else None
    for study in patients:
        _add_patient(arranged, study, numbered[study], whole.get(study), info)
    arranged.studies.sort(key=lambda entry: entry[0])
    return arranged


def _keep(arranged: Arranged, found: dict, key: object, path: Path) -> None:
    if key in found:
        arranged.left_out[path] = f"the same frame as {found[key].name}"
    else:
        found[key] = path


def _missing(path: Path, frame: str) -> Path:
    """The path at which the file of the other frame is expected."""
    match = PAIR.fullmatch(path.name)
    assert match is not None
    word = frame.upper() if match["frame"].isupper() else frame
    return path.with_name(f"{match['study']}_{word}{match['ending']}")


def _add_patient(arranged: Arranged, study: str, frames: dict[int, Path], whole: Path | None, info: str | None) -> None:
    """Add a patient with numbered frames, a 4D file or both; Info.cfg names the frames of ED and ES."""
    first = whole or next(iter(frames.values()))
    names = names_of_file(first, first.name[len(study) :])
    lines = list(_LINE.finditer(info or ""))
    named = {line["frame"]: int(line["number"]) for line in lines}
    ed, es = named.get("ED"), named.get("ES")
    files: Files
    if ed is not None and es is not None and len(lines) == 2 and ed in frames and es in frames:
        files = FramePair(frames.pop(ed), frames.pop(es))
        frames |= {0: whole} if whole else {}
        reason = f"{INFO} names frames {ed} and {es}, which are files of their own"
    elif whole is not None:
        given = (ed - 1, es - 1) if ed and es and len(lines) == 2 else None
        files, reason = CineFile(whole, given), f"{whole.name} holds all frames"
    else:
        if info is None:
            why = f"there is no {INFO} of this patient alone"
        elif ed is None or es is None or len(lines) != 2:
            why = f"{INFO} does not name one frame as ED and one as ES"
        else:
            absent = [f"{frame} is frame {number}" for frame, number in named.items() if number not in frames]
            why = f"by {INFO} {' and '.join(absent)}, which is not there"
        listed = ", ".join(path.name for path in frames.values())
        files = Unusable(
            f"{first.parent}: nothing says which of {listed} is end-diastole and which end-systole ({why}); call them "
            f"{study}_ed and {study}_es, or name both in a csv"
        )
        arranged.used |= set(frames.values())
        frames.clear()
        reason = ""
    arranged.left_out |= dict.fromkeys(frames.values(), reason)
    arranged.studies.append((names, files))
