"""The data of a comparison: one datalist per site, prepared by the user or a generated phantom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import FILE_NAME, load_datalist, read_prepared
from monai_fedlora.data.origin import Origin
from monai_fedlora.data.pool import POOLED
from monai_fedlora.data.site import site_data
from monai_fedlora.data.subgroups import without_subgroups
from monai_fedlora.data.value_scale import common_scale
from monai_fedlora.errors import DataError
from monai_fedlora.files import sha256
from monai_fedlora.resources import bundle_configs
from monai_fedlora.tasks.known import task_of


def prepared_sites(data_root: str) -> list[str]:
    """Names of the sites of a prepared folder, without the pooled site.

    Raises:
        DataError: there is none, or a datalist is wrong.
    """
    names = [datalist.site for datalist in read_prepared(data_root) if datalist.site != POOLED]
    if not names:
        raise DataError(f"{data_root} holds no prepared site; run monai-fedlora data first, or check --data")
    return names


def load_sites(sites: Sequence[str], *, bundle: str, data_root: str | None) -> dict[str, Datalist]:
    """Load the datalist of every site; without a prepared folder, that of the bundle's phantom.

    Raises:
        ConfigError: the sites' values are on different scales.
        DataError: a site's data are missing or wrong, a site is named twice, or the sites' tasks or classes differ.
    """
    if len(set(sites)) != len(sites):
        raise DataError(f"the sites {', '.join(sites)} must be different ones")
    datalists = {
        site: load_datalist(site_data(site, data_root=data_root) if data_root else _phantom(bundle, site))
        for site in sites
    }
    first, *others = datalists.values()
    for other in others:
        if other.classes != first.classes:
            raise DataError(
                f"{first.site} has the classes {list(first.classes)}, {other.site} {list(other.classes)}; prepare the "
                "sites with the same task and class list"
            )
        if task_of(other).name != task_of(first).name:
            raise DataError(
                f"{first.site} is of the task {first.task}, {other.site} of {other.task}; prepare the sites with "
                "the same one"
            )
    common_scale({site: datalist.scale for site, datalist in datalists.items()})
    return datalists


def content_hash(datalist: Datalist) -> str:
    """Hash of the cases, labels and splits of a datalist.

    It is independent of the image root, of the images' origin and of subgroups, which no model sees.
    """
    content = replace(without_subgroups(datalist), origin=Origin()).to_json(image_root="")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def data_hash(datalist: Datalist) -> str:
    """Hash of a datalist and of the bytes of its images; independent of their folder.

    Raises:
        DataError: an image cannot be read.
    """
    files = sorted({file for _, case in datalist.all_cases() for file in (*case.files(), *case.masks())})
    digest = hashlib.sha256(content_hash(datalist).encode())
    try:
        with ThreadPoolExecutor() as threads:
            for file, found in zip(
                files, threads.map(lambda file: sha256(datalist.image_root / file), files), strict=True
            ):
                digest.update(f"{file} {found}".encode())
    except OSError as error:
        raise DataError(f"an image of {datalist.site} cannot be read: {error}") from error
    return digest.hexdigest()


def _phantom(bundle: str, site: str) -> Path:
    from monai.bundle import ConfigParser

    config = ConfigParser()
    config.read_config(bundle_configs(bundle))
    config["site"] = site
    path = Path(config.get_parsed_content("dataset_dir"))
    return path / FILE_NAME if path.is_dir() else path
