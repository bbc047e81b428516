"""Find the cases that a model was trained on (members), and cases that it was not trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import load_datalist, read_prepared
from monai_fedlora.data.pool import pool
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.errors import DataError
from monai_fedlora.files import sha256

PHANTOM_OUTSIDE = "phantom"
"""Value of ``--outside`` for further phantoms of the same site, in place of a folder."""

OUTSIDE_SITE = "outside"
_ANOTHER_SEED = 1009


def find_site(metadata: Mapping[str, Any], *, site: str, data: str | None, phantom: str) -> Datalist:
    """Read the datalist that a model was trained from.

    Args:
        metadata: content of the model's ``metadata.json``.
        site: name of the site.
        data: prepared folder; None takes ``MONAI_FEDLORA_DATA``, then the phantom.
        phantom: name of the phantom.

    Raises:
        DataError: there is none, or its classes or numbers of cases differ from those in the metadata.
    """
    path = site_data(site, data_root=data, phantom=phantom)
    datalist = load_datalist(path)
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    classes = tuple(str(channels[str(index)]) for index in range(len(channels)))
    if datalist.classes != classes:
        raise DataError(
            f"{path} has the classes {', '.join(datalist.classes)}, the model {', '.join(classes)}; give the data that "
            "it was trained on"
        )
    origin = metadata["provenance"]
    for split, key in (("training", "training_cases"), ("validation", "validation_cases")):
        count, said = len(datalist.cases(split)), origin.get(key)
        if said is not None and count != said:
            raise DataError(
                f"{path} has {count} {split} cases, and the model was made with {said}: this is not the split that it "
                "was trained on, so that nobody could be told a member. Give the prepared folder of the training with "
                "--data"
            )
    return datalist


def find_outside(outside: str | None, datalist: Datalist) -> Datalist | None:
    """Read cases that were not part of the run, as the training split of a datalist of their own.

    Args:
        outside: a prepared folder, of which all cases of all sites are taken; :data:`PHANTOM_OUTSIDE` for more phantoms
            of the same site; None for none.
        datalist: of the site.

    Raises:
        DataError: there are none, they have other classes or another modality, or one of them is the site's own.
    """
    if outside is None:
        return None
    if outside == PHANTOM_OUTSIDE:
        found = [load_datalist(_more_phantoms(datalist))]
    else:
        found = list(read_prepared(outside)) if os.path.isdir(outside) else []
    if not found:
        raise DataError(f"--outside {outside} is no prepared folder: it holds no site's datalist.json")
    for other in found:
        if (other.classes, other.modality) != (datalist.classes, datalist.modality):
            raise DataError(
                f"--outside {outside}: the cases of {other.site} are {other.modality}s of the classes "
                f"{', '.join(other.classes)}, and the site's are {datalist.modality}s of {', '.join(datalist.classes)}"
            )
    joined = pool([dataclasses.replace(d, task=datalist.task) for d in found], site=OUTSIDE_SITE)
    members = {_fingerprint(case, datalist): case.subject for _, case in datalist.all_cases()}
    for _, case in joined.all_cases():
        if own := members.get(_fingerprint(case, joined)):
            raise DataError(
                f"--outside {outside}: {case.subject} has the images of {own} of the site's own data; cases from "
                "outside are ones that the site never had"
            )
    cases = tuple(case for _, case in joined.all_cases())
    return dataclasses.replace(joined, training=cases, validation=(), test=())


def phantom_of(bundle: str) -> str:
    """Name of the phantom that a training bundle uses where there are no data."""
    from monai.bundle import ConfigParser

    from monai_fedlora.resources import bundle_configs

    parser = ConfigParser()
    parser.read_config(bundle_configs(bundle))
    return str(parser.get("phantom", "cine"))


def _more_phantoms(datalist: Datalist) -> Path:
    """Make as many phantoms as the site has cases, of the same scanner or camera, with another seed."""
    if not datalist.dataset.startswith("phantom"):
        raise DataError(
            f"the cases of {datalist.site} are no phantoms, so that no more of their kind can be made; give a prepared "
            "folder of other cases with --outside"
        )
    seed, count = datalist.seed + _ANOTHER_SEED, sum(1 for _ in datalist.all_cases())
    if datalist.modality == "cine":
        settings: Any = PhantomSettings(training=count, validation=0, test=0, task=datalist.task, seed=seed)
        return site_data(datalist.site, settings=settings, data_root=None)
    from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

    kind = datalist.dataset.split("-")[1]
    settings = PhotoPhantomSettings(training=count, validation=0, test=0, seed=seed, classes=datalist.classes)
    return site_data(datalist.site, phantom=kind, settings=settings)


def _fingerprint(case: Case, datalist: Datalist) -> tuple[str, ...]:
    """SHA-256 of the files of a case, and its frame numbers."""
    paths = [datalist.image_root / file for file in case.files()]
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(f"{missing[0]} does not exist; it was moved, or the data were prepared elsewhere")
    return (*map(sha256, paths), str(case.ed_frame), str(case.es_frame))
