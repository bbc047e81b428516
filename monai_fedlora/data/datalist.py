"""Read, check and write datalists: the file that lists the cases which a site trains on.

A site's datalist is ``<root>/<site>/datalist.json``. Image paths in it are relative to ``image_root`` and lie inside
it; ``image_root`` is absolute or relative to the folder of the file.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from monai_fedlora.data.cases import FILE_KEYS, FORMAT, MASK_KEYS, NO_LABEL, SPLITS, Case, Datalist
from monai_fedlora.data.origin import Origin, recognised
from monai_fedlora.data.value_scale import check_scale
from monai_fedlora.errors import ConfigError, DataError, FedLoraError
from monai_fedlora.files import make_folder, read_json, write_json

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "SPLITS",
    "TASKS",
    "Case",
    "Datalist",
    "check_datalist",
    "check_site_name",
    "load_datalist",
    "read_prepared",
    "write_datalists",
]

FILE_NAME = "datalist.json"
SEGMENTATION = "segmentation"
REGRESSION = "regression"
TASKS = ("binary", "multiclass", SEGMENTATION, REGRESSION)
UNLABELLED = {SEGMENTATION: "structures", REGRESSION: "values"}
"""What a datalist's names are in tasks without classes."""

_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_IMAGE_KEYS = ({"image"}, {"ed", "es"}, {"cine", "ed_frame", "es_frame"})
_MASKS = ({"image", "mask"}, {"ed", "es", "ed_mask", "es_mask"}, {"cine", "ed_frame", "es_frame", "mask"})
_CASE_KEYS = {"subject", "label", "group", "unit", "mask_values", "values", "subgroups"}
_LIST_KEYS = {"format", "site", "dataset", "task", "classes", "image_root", "seed", *SPLITS}
_SOURCE = "source"
_SCALE = "scale"


def check_site_name(site: str) -> None:
    """Refuse a name that cannot be that of a folder and of an NVFlare client.

    Raises:
        DataError: the name is empty, too long, reserved, or holds characters other than letters, digits, ``-`` and
            ``_``.
    """
    if not _SITE_NAME.fullmatch(site) or site.lower() == "server":
        raise DataError(
            f"{site!r} cannot name a site: use 1 to 63 letters, digits, '-' and '_', starting with a letter "
            "or digit; 'server' is taken"
        )


def load_datalist(path: str | os.PathLike[str]) -> Datalist:
    """Read and check a datalist file.

    Checked: the format, every field's type, labels against the classes, that no patient appears twice and no unit
    in two splits, that training is not empty, that all cases are cine studies or all are photographs, that image paths
    stay inside the image root and that every image file exists.

    Raises:
        DataError: something is wrong; the message names the file and the patient.
    """
    return _load(Path(path), images=True)


def _load(path: Path, *, images: bool) -> Datalist:
    try:
        value = read_json(path)
    except (FedLoraError, ValueError, RecursionError) as error:
        raise DataError(f"the datalist {path} cannot be used: {error}. Prepare it with: monai-fedlora data") from error
    datalist = _parse(value, path)
    check_datalist(datalist, name=str(path), images=images)
    return datalist


def check_datalist(datalist: Datalist, *, name: str, images: bool = True) -> None:
    """Check that a datalist is consistent and that its image files exist.

    Args:
        datalist: the datalist.
        name: name of the datalist in messages, usually its path.
        images: whether to check that every image file exists.

    Raises:
        DataError: see :func:`load_datalist`.
    """
    check_site_name(datalist.site)
    if datalist.task not in TASKS:
        raise DataError(f"{name}: the task {datalist.task!r} is unknown; it is one of {', '.join(TASKS)}")
    what = UNLABELLED.get(datalist.task, "classes")
    few, number = (1, "one") if datalist.task in UNLABELLED else (2, "two")
    if len(datalist.classes) < few or len(set(datalist.classes)) != len(datalist.classes):
        raise DataError(f"{name}: the {what} {list(datalist.classes)} must be {number} or more different names")
    try:
        check_scale(datalist.scale, datalist.classes if datalist.task == REGRESSION else ())
    except ConfigError as error:
        raise DataError(f"{name}: {error}") from error
    if not datalist.training:
        raise DataError(f"{name}: the training split is empty, so site {datalist.site} has nothing to learn from")
    seen: dict[str, str] = {}
    units: dict[str, str] = {}
    for split, case in datalist.all_cases():
        where = f"{name}: subject {case.subject}"
        if case.subject in seen:
            both = "patient in two splits" if seen[case.subject] != split else "patient listed twice"
            raise DataError(f"{where} is in {seen[case.subject]} and in {split} ({both}); keep one of the two")
        seen[case.subject] = split
        if case.unit is not None and units.setdefault(case.unit, split) != split:
            raise DataError(
                f"{where} is in {split}, but its unit {case.unit} is in {units[case.unit]} too (patient or lesion in "
                "two splits); prepare the data again"
            )
        if (case.image is None) != (datalist.training[0].image is None):
            raise DataError(f"{where}: photographs and cine studies cannot be in one datalist; prepare them apart")
        if datalist.task == SEGMENTATION:
            _check_masks(case, datalist.classes, where)
        elif datalist.task == REGRESSION:
            _check_values(case, datalist.classes, where)
        elif not 0 <= case.label < len(datalist.classes):
            raise DataError(f"{where} has label {case.label}, but the classes are {list(datalist.classes)}")
        for file in (*case.files(), *case.masks()):
            _check_inside(file, where)
            if images and not os.path.isfile(datalist.image_root / file):
                raise DataError(
                    f"{where}: image {datalist.image_root / file} does not exist; it was moved, or image_root is wrong"
                )


def _check_masks(case: Case, structures: Sequence[str], where: str) -> None:
    """Check that a case of segmentation has masks, and values for all structures."""
    values = case.mask_values
    if not case.masks() or values is None:
        raise DataError(f"{where} has no masks, and the task is segmentation; prepare the data again")
    if case.label != NO_LABEL:
        raise DataError(f"{where} has label {case.label}; in segmentation it is {NO_LABEL}")
    if len(values) != len(structures):
        raise DataError(f"{where} has {len(values)} mask_values, and there are {len(structures)} structures")
    outlined = [value for value in values if value]
    if not outlined or len(set(outlined)) < len(outlined) or min(outlined) < 0 or max(outlined) > 65535:
        raise DataError(
            f"{where}: mask_values {list(values)} must be different whole numbers from 1 to 65535, with 0 for a "
            "structure that the masks do not outline"
        )


def _check_values(case: Case, names: Sequence[str], where: str) -> None:
    """Check that a case of regression has a number for every value."""
    values = case.values
    if values is None:
        raise DataError(f"{where} has no values, and the task is regression; prepare the data again")
    if case.label != NO_LABEL:
        raise DataError(f"{where} has label {case.label}; in regression it is {NO_LABEL}")
    if len(values) != len(names):
        raise DataError(f"{where} has {len(values)} values, and there are {len(names)}: {', '.join(names)}")
    if wrong := [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]:
        raise DataError(f"{where}: {wrong[0]} is not finite; leave the patient out, or the value")


def read_prepared(root: str | os.PathLike[str]) -> tuple[Datalist, ...]:
    """Load the datalist of every site of a prepared folder; none if there is no folder.

    Whether the image files exist is not checked, so that a folder whose images were moved can be prepared again.

    Raises:
        DataError: a datalist is wrong, or two folders hold the same site.
    """
    datalists = [_load(path, images=False) for path in sorted(Path(root).glob(f"*/{FILE_NAME}"))]
    if twice := _repeated([datalist.site for datalist in datalists]):
        raise DataError(f"{root} holds the site {twice} in two folders; delete one of them")
    return tuple(datalists)


def write_datalists(
    sites: Sequence[Datalist], output: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write ``<output>/<site>/datalist.json`` for every site, or nothing at all.

    Sites that ``output`` already holds stay. All sites of the folder must have the same task and classes and must share
    no case of the same data set. Photographs of one patient or lesion may be at two sites, if they are in the same
    split.

    Args:
        sites: one datalist per site.
        output: the prepared folder, made if it does not exist. Files are readable by their owner only.
        overwrite: replace sites that ``output`` already holds under the same name.

    Returns:
        The files, in the order of ``sites``.

    Raises:
        DataError: a datalist is wrong, the sites contradict each other, or a site exists already.
    """
    output = Path(os.path.abspath(output))
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; the output is a folder with one folder per site")
    for datalist in sites:
        check_datalist(datalist, name=f"site {datalist.site}")
    names = [datalist.site for datalist in sites]
    for name in names:
        if (output / name / FILE_NAME).exists() and not overwrite:
            raise DataError(
                f"{output / name / FILE_NAME} exists already; choose another output folder or site name, "
                "or replace it with --overwrite"
            )
    existing = [datalist for datalist in read_prepared(output) if not (overwrite and datalist.site in names)]
    _check_together([*existing, *sites], output)
    make_folder(output.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        for datalist in sites:
            write_json(staging / "new" / datalist.site / FILE_NAME, datalist.to_json())
        _move_in(staging, output, names)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(output / name / FILE_NAME for name in names)


def _move_in(staging: Path, output: Path, names: Sequence[str]) -> None:
    """Move every site's file from staging to output; after a failure restore what was there."""
    if not output.exists():
        os.replace(staging / "new", output)
        return
    undo: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for name in names:
            target, new, old = (root / name / FILE_NAME for root in (output, staging / "new", staging / "old"))
            if not target.parent.exists():
                target.parent.mkdir(mode=0o700)
                made.append(target.parent)
            if target.exists():
                make_folder(old.parent)
                os.replace(target, old)
                undo.append((old, target))
            os.replace(new, target)
            undo.append((target, new))
    except OSError:
        for here, back in reversed(undo):
            os.replace(here, back)
        for folder in made:
            folder.rmdir()
        raise


def _check_together(sites: Sequence[Datalist], output: Path) -> None:
    if twice := _repeated([datalist.site for datalist in sites]):
        raise DataError(f"the site {twice} occurs twice; give every site its own name, or replace it with --overwrite")
    owner: dict[tuple[str, str], str] = {}
    units: dict[tuple[str, str], tuple[str, str]] = {}
    for datalist in sites:
        first = sites[0]
        if datalist.scale != first.scale:
            raise DataError(
                f"the sites of {output} must share the scale of their values: {first.site} has "
                f"{[list(pair) for pair in first.scale]}, {datalist.site} {[list(pair) for pair in datalist.scale]}; "
                "give the same --value, or another --output"
            )
        if (datalist.task, datalist.classes) != (first.task, first.classes):
            raise DataError(
                f"the sites of {output} must share task and classes: {first.site} has {first.task} "
                f"{list(first.classes)}, {datalist.site} has {datalist.task} {list(datalist.classes)}; "
                "give the same --task and --classes, or another --output"
            )
        for split, case in datalist.all_cases():
            if case.unit is not None:
                there, elsewhere = units.setdefault((datalist.dataset, case.unit), (datalist.site, split))
                if elsewhere != split:
                    raise DataError(
                        f"{output}: {case.unit} of {datalist.dataset} is in {elsewhere} at site {there} and in {split} "
                        f"at site {datalist.site} (patient or lesion in two splits); prepare both sites in one go"
                    )
            other = owner.setdefault((datalist.dataset, case.subject), datalist.site)
            if other != datalist.site:
                raise DataError(
                    f"{output}: subject {case.subject} of {datalist.dataset} is at site {other} and at site "
                    f"{datalist.site}; a patient belongs to one site, so choose another --output"
                )


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _check_inside(file: str, where: str) -> None:
    outside = (
        PurePosixPath(file).is_absolute()
        or PureWindowsPath(file).is_absolute()
        or bool(PureWindowsPath(file).drive)
        or ".." in PureWindowsPath(file).parts
        or not PurePosixPath(file).parts
        or "\0" in file
    )
    if outside:
        raise DataError(f"{where}: image path {file!r} must be relative to image_root and stay inside it")


def _parse(value: Any, path: Path) -> Datalist:
    if not isinstance(value, Mapping):
        raise DataError(f"{path} is not a datalist: it holds a JSON {type(value).__name__}, not an object")
    if value.get("format") != FORMAT:
        raise DataError(
            f"{path} has datalist format {value.get('format')!r:.20}, and this version reads {FORMAT}; prepare it again"
        )
    _check_keys(value, expected=_LIST_KEYS, allowed={_SOURCE, _SCALE}, where=str(path))
    classes = _typed(value, "classes", list, str(path))
    if not all(isinstance(name, str) and name for name in classes):
        raise DataError(f"{path}: classes must be a list of names")
    root = Path(_text(value, "image_root", str(path)))
    dataset = _text(value, "dataset", str(path))
    return Datalist(
        site=_text(value, "site", str(path)),
        dataset=dataset,
        task=_text(value, "task", str(path)),
        classes=tuple(classes),
        image_root=Path(os.path.abspath(path.parent / root)),
        seed=_typed(value, "seed", int, str(path)),
        **{
            split: tuple(
                _case(entry, f"{path}: {split} case {number}")
                for number, entry in enumerate(_typed(value, split, list, str(path)), 1)
            )
            for split in SPLITS
        },
        origin=_origin(value[_SOURCE], path) if _SOURCE in value else recognised(dataset),
        scale=_scale(value[_SCALE], path) if _SCALE in value else (),
    )


def _scale(entry: Any, path: Path) -> tuple[tuple[float, float], ...]:
    pairs = entry if isinstance(entry, list) else []
    if not pairs or not all(isinstance(pair, list) and len(pair) == 2 and _numbers(pair) for pair in pairs):
        raise DataError(f"{path}: {_SCALE} must be a list of pairs of numbers, and is {entry!r:.80}")
    return tuple((float(centre), float(spread)) for centre, spread in pairs)


def _numbers(entry: Any) -> bool:
    return all(type(value) in (int, float) for value in entry)


def _origin(entry: Any, path: Path) -> Origin:
    try:
        return Origin.from_json(entry)
    except ConfigError as error:
        raise DataError(f"{path}: {_SOURCE} is not where images come from: {error}; prepare the data again") from error


def _case(entry: Any, where: str) -> Case:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is a JSON {type(entry).__name__}, not an object")
    subject = _text(entry, "subject", where)
    where = f"{where} (subject {subject})"
    images = set(entry) - _CASE_KEYS
    if images not in (_MASKS if "mask_values" in entry else _IMAGE_KEYS):
        raise DataError(
            f"{where} must have either image, or ed and es, or cine, ed_frame and es_frame; "
            f"it has {sorted(images) or 'neither'}. "
            "With mask_values there are also mask, or ed_mask and es_mask"
        )
    texts: dict[str, Any] = {key: _text(entry, key, where) for key in (*FILE_KEYS, *MASK_KEYS, "unit") if key in entry}
    frames = {key: _typed(entry, key, int, where) for key in ("ed_frame", "es_frame") if key in images}
    if min(frames.values(), default=0) < 0:
        raise DataError(f"{where} has a negative frame number; frames count from 0")
    label, group = _typed(entry, "label", int, where), _text(entry, "group", where)
    values = None
    if "mask_values" in entry:
        values = tuple(_typed(entry, "mask_values", list, where))
        if not all(type(value) is int for value in values):
            raise DataError(f"{where}: mask_values must be whole numbers, and are {values!r:.80}")
    measured = None
    if "values" in entry:
        if not _numbers(given := _typed(entry, "values", list, where)):
            raise DataError(f"{where}: values must be numbers, and are {given!r:.80}")
        measured = tuple(map(float, given))
    return Case(
        subject=subject,
        label=label,
        group=group,
        mask_values=values,
        values=measured,
        subgroups=_subgroups(entry.get("subgroups", {}), where),
        **texts,
        **frames,
    )


def _subgroups(entry: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(entry, Mapping) or not all(isinstance(text, str) and text for text in entry.values()):
        raise DataError(f"{where}: subgroups must be a JSON object of texts, and is {entry!r:.80}")
    return tuple(sorted(entry.items()))


def _check_keys(value: Mapping[str, Any], *, expected: set[str], allowed: set[str], where: str) -> None:
    if missing := expected - set(value):
        raise DataError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := set(value) - expected - allowed:
        raise DataError(f"{where} has the unknown field {', '.join(sorted(unknown))}")


def _typed(value: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in value:
        raise DataError(f"{where} lacks {key}")
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        raise DataError(f"{where}: {key} must be a JSON {_JSON_NAMES[kind]}, and is {value[key]!r:.80}")
    return value[key]


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    text: str = _typed(value, key, str, where)
    if not text.strip():
        raise DataError(f"{where}: {key} is empty")
    return text


_JSON_NAMES = {list: "array", int: "integer", str: "string"}
