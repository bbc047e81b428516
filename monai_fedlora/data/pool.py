"""Join the cases of several sites to one site, for training on all data in one place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_fedlora.data.cases import FILE_KEYS, MASK_KEYS, SPLITS, Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME, check_datalist, load_datalist
from monai_fedlora.data.origin import Origin, together
from monai_fedlora.errors import DataError
from monai_fedlora.files import write_json

POOLED = "pooled"
"""Name of the site that holds the cases of all others."""


def pool(datalists: Sequence[Datalist], *, site: str = POOLED) -> Datalist:
    """Join the cases of several sites to one datalist; every case stays in its split.

    Subjects and units get their site's name as a prefix, so that two hospitals may use the same codes. Image paths are
    relative to the deepest folder that contains all image roots.

    Args:
        datalists: of different sites with the same task and classes.
        site: name of the result.

    Raises:
        DataError: there is no datalist, two are of one site, or they are of different tasks, classes or modalities.
    """
    if not datalists:
        raise DataError("there is no site whose cases could be pooled")
    first, names = datalists[0], [datalist.site for datalist in datalists]
    if len(set(names)) != len(names):
        raise DataError(f"the sites {', '.join(names)} cannot be pooled: a name occurs twice")
    for other in datalists[1:]:
        if _kind(other) != _kind(first):
            raise DataError(
                f"the sites {first.site} and {other.site} cannot be pooled: {first.site} has {_kind(first)}, "
                f"{other.site} {_kind(other)}; prepare them with the same task and class list"
            )
    root = Path(os.path.commonpath([datalist.image_root for datalist in datalists]))
    pooled = Datalist(
        site=site,
        dataset="+".join(dict.fromkeys(datalist.dataset for datalist in datalists)),
        task=first.task,
        classes=first.classes,
        image_root=root,
        seed=first.seed,
        **{split: tuple(_moved(case, d, root) for d in datalists for case in d.cases(split)) for split in SPLITS},
        origin=_origin(datalists),
        scale=first.scale,
    )
    check_datalist(pooled, name=f"the pool of {', '.join(names)}")
    return pooled


def pooled_data(datalists: Iterable[Path], *, folder: Path) -> Path:
    """Write the pool of datalist files into a new folder below ``folder``, unless it is there already.

    Returns:
        Path of the pool's datalist.

    Raises:
        DataError: a datalist is wrong, or see :func:`pool`.
    """
    content = pool([load_datalist(path) for path in datalists]).to_json()
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{POOLED}-{digest}" / FILE_NAME
    if not path.is_file():
        write_json(path, content)
    return path


def _moved(case: Case, datalist: Datalist, root: Path) -> Case:
    files = {key: getattr(case, key) for key in (*FILE_KEYS, *MASK_KEYS)}
    below = datalist.image_root.relative_to(root)
    return dataclasses.replace(
        case,
        subject=f"{datalist.site}.{case.subject}",
        unit=None if case.unit is None else f"{datalist.site}.{case.unit}",
        **{key: (below / file).as_posix() for key, file in files.items() if file is not None},
    )


def _origin(datalists: Sequence[Datalist]) -> Origin:
    origins = [datalist.origin for datalist in datalists]
    return Origin(
        kind=together(origin.kind for origin in origins),
        name=_listed([origin.name for origin in origins]),
        source=_listed([origin.source for origin in origins]),
    )


def _listed(said: Sequence[str | None]) -> str | None:
    """All texts, or the first one and the number of the others."""
    texts = list(dict.fromkeys(text for text in said if text))
    if len(texts) > 3:
        return f"{texts[0]} and {len(texts) - 1} more"
    return ", ".join(texts)[:200] or None


def _kind(datalist: Datalist) -> str:
    scale = f" on the scale {[list(pair) for pair in datalist.scale]}" if datalist.scale else ""
    return f"{datalist.task} {list(datalist.classes)}{scale} of {datalist.modality}s"
