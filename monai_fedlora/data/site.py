"""The datalist of a site: that of a prepared folder, or that of a phantom which is generated on first use."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora.data.cases import NO_LABEL, Case
from monai_fedlora.data.datalist import FILE_NAME, REGRESSION, SEGMENTATION, check_site_name
from monai_fedlora.data.pool import POOLED, pooled_data
from monai_fedlora.data.value_scale import HEART_SCALES, HEART_VALUES
from monai_fedlora.environment import DATA
from monai_fedlora.errors import ConfigError, DataError, nearest
from monai_fedlora.files import make_folder
from monai_fedlora.measures.structures import HEART

if TYPE_CHECKING:
    from monai_fedlora.data.phantom.vendors import Vendor
    from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

CACHE = "MONAI_FEDLORA_CACHE"
"""Environment variable: folder for files that can be generated again, such as phantoms."""

CINE_PHANTOMS = ("cine", "cine_masks")
"""Kinds of phantoms with cine studies: classes of hearts, and outlines of their structures."""
PHANTOMS = (*CINE_PHANTOMS, "dermoscopy", "fundus")
"""Kinds of phantoms: cine studies of hearts, dermoscopic images of skin lesions, fundus photographs."""

_TASKS = {
    "binary": ("NOR", "ABN"),
    "multiclass": ("NOR", "MINF", "DCM", "HCM", "RV"),
    SEGMENTATION: HEART,
}
"""Classes or structures of the tasks that have the same at every site."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """Size and content of the phantom of a site with cine studies (defaults ours).

    Attributes:
        training, validation, test: patients of each split; a split may get a few more or less, because every
            disease is split in these proportions.
        task: ``binary`` (NOR against any disease), ``multiclass`` (ACDC's five groups), ``segmentation`` (left
            ventricle, its myocardium and right ventricle) or ``regression`` (numbers by the true masks).
        values: of a regression, names in :data:`~monai_fedlora.data.value_scale.HEART_SCALES`.
        seed: another seed gives other patients.
    """

    training: int = 32
    validation: int = 12
    test: int = 20
    task: str = "binary"
    seed: int = 0
    values: tuple[str, ...] = HEART_VALUES

    @property
    def patients(self) -> int:
        """Patients of all splits."""
        return self.training + self.validation + self.test


def site_data(
    site: str,
    *,
    data_root: str | None = None,
    phantom: str = "cine",
    settings: PhantomSettings | PhotoPhantomSettings | None = None,
    task: str | None = None,
    names: Sequence[str] = (),
) -> Path:
    """Return the path of a site's datalist.

    The prepared folder is ``data_root``, else ``$MONAI_FEDLORA_DATA``. Without one, a phantom of the site is generated
    on first use and kept in ``$MONAI_FEDLORA_CACHE`` or the user's cache folder, where it can be deleted at any time.
    ``site-1`` to ``site-4`` have the vendors A to D of cine studies, ``site-1`` to ``site-6`` the cameras A to F of
    photographs; that of another site follows from a hash of its name.

    The site ``pooled`` has the cases of all sites of the prepared folder, or of the phantoms ``site-1`` to ``site-4``
    or ``site-6``. Its datalist is kept in the same cache folder.

    Args:
        site: name of the site.
        data_root: prepared folder with one folder per site.
        phantom: ``cine``, ``cine_masks``, ``dermoscopy`` or ``fundus``. ``cine_masks`` differs from ``cine`` in its
            default settings, whose task is segmentation.
        settings: size and content of the phantom, ``PhantomSettings`` for cine studies and ``PhotoPhantomSettings``
            for photographs; None takes the defaults.
        task, names: what a phantom without settings is of, if it is "segmentation" or "regression" of these values; for
            other tasks the phantom's own.

    Raises:
        DataError: the site's name is not valid, or the prepared folder does not have the site.
        ConfigError: the phantom is unknown, or its settings are not valid.
    """
    check_site_name(site)
    _check_phantom(phantom)
    root = data_root or os.environ.get(DATA)
    if root:
        datalist = Path(root) / site / FILE_NAME
        if datalist.is_file():
            return datalist
        members = sorted(Path(root).glob(f"*/{FILE_NAME}")) if site == POOLED else []
        if not members:
            raise DataError(
                f"{datalist} does not exist; the folder {root} ({'given' if data_root else DATA}) is not prepared for "
                f"site {site}. Run: monai-fedlora data acdc|mnms|mnms2|fed_isic2019|isic|feddrg|csv --source ... "
                f"--output {root}, or unset {DATA} to use a phantom"
            )
        return _pool(members)
    return phantom_data(site, phantom=phantom, settings=settings or _settings_for(phantom, task, names))


def _settings_for(
    phantom: str, task: str | None, names: Sequence[str]
) -> PhantomSettings | PhotoPhantomSettings | None:
    """The default settings of a phantom for a task; None for those of the phantom itself."""
    if phantom in CINE_PHANTOMS:
        if task == REGRESSION:
            return PhantomSettings(task=REGRESSION, values=tuple(names))
        return PhantomSettings(task=SEGMENTATION) if task == SEGMENTATION else None
    from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

    return PhotoPhantomSettings(task=task) if task in (SEGMENTATION, REGRESSION) else None


def phantom_data(
    site: str, *, phantom: str = "cine", settings: PhantomSettings | PhotoPhantomSettings | None = None
) -> Path:
    """Return the path of the datalist of a site's phantom; ``$MONAI_FEDLORA_DATA`` is ignored.

    Arguments and errors as for :func:`site_data`.
    """
    check_site_name(site)
    _check_phantom(phantom)
    if site == POOLED:
        return _pool([phantom_data(name, phantom=phantom, settings=settings) for name in phantom_sites(phantom)])
    if phantom in CINE_PHANTOMS:
        if settings is None or isinstance(settings, PhantomSettings):
            usual = PhantomSettings(task=SEGMENTATION) if phantom == "cine_masks" else PhantomSettings()
            return _cine_phantom(site, settings or usual)
    else:
        from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

        if settings is None or isinstance(settings, PhotoPhantomSettings):
            return _photo_phantom(phantom, site, settings or PhotoPhantomSettings())
    raise ConfigError(f"{type(settings).__name__} are not the settings of the phantom {phantom}")


def cache_folder() -> Path:
    """Return the folder for files that can be generated again; it may not exist yet."""
    if named := os.environ.get(CACHE):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "monai-fedlora"


def site_vendor(site: str) -> Vendor:
    """Return the vendor of a site's phantom."""
    from monai_fedlora.data.phantom.cohort import machine_of
    from monai_fedlora.data.phantom.vendors import VENDORS

    return machine_of(site, VENDORS)


def phantom_sites(phantom: str) -> list[str]:
    """Return ``site-1`` and so on: as many sites as there are vendors or cameras."""
    from monai_fedlora.data.phantom.cohort import numbered_sites
    from monai_fedlora.data.phantom.vendors import VENDORS
    from monai_fedlora.data.photo_phantom.photo_kinds import KINDS

    return numbered_sites(VENDORS if phantom in CINE_PHANTOMS else KINDS[phantom].cameras)


def _pool(datalists: Sequence[Path]) -> Path:
    folder = cache_folder() / "pool"
    make_folder(folder)
    return pooled_data(datalists, folder=folder)


def _check_phantom(phantom: str) -> None:
    if phantom not in PHANTOMS:
        raise ConfigError(f"no phantom is called {phantom!r}{nearest(phantom, PHANTOMS)}")


def _cine_phantom(site: str, settings: PhantomSettings) -> Path:
    """Return the datalist of the site's phantom of cine studies."""
    from monai_fedlora.data.phantom import VERSION

    if settings.task not in (*_TASKS, REGRESSION):
        known = ", ".join([*_TASKS, REGRESSION])
        raise ConfigError(f"the task {settings.task!r} is unknown; it is one of {known}")
    if settings.training < 1 or min(settings.validation, settings.test) < 0:
        raise ConfigError(f"{settings} makes no study; training needs a patient, and no split has less than none")
    if unknown := [name for name in settings.values if name not in HEART_SCALES]:
        raise ConfigError(
            f"phantoms of hearts have no value {unknown[0]!r}{nearest(unknown[0], list(HEART_SCALES))}; give a folder "
            "of prepared sites that have it"
        )
    vendor = site_vendor(site)
    vendor_values = {name: getattr(vendor, name) for name in vendor.__slots__}
    said = asdict(settings)
    if settings.values == HEART_VALUES:
        del said["values"]  # phantoms that were made before there was a choice are used again
    key = {"version": VERSION, "site": site, "settings": said, "vendor": vendor_values}
    what = f"{settings.patients} phantom patients of site {site} ({vendor.name})"
    return _kept(site, key, what, lambda folder: _make(folder, site, vendor, settings))


def _photo_phantom(phantom: str, site: str, settings: PhotoPhantomSettings) -> Path:
    """Return the datalist of the site's phantom of photographs."""
    from monai_fedlora.data.photo_phantom.photo_site import make_site, site_key

    key = site_key(phantom, site, settings)
    what = f"{settings.pictures} phantom photographs ({phantom}) of site {site} ({key['camera']['name']})"
    return _kept(site, key, what, lambda folder: make_site(folder, phantom, site, settings))


def _kept(site: str, key: dict[str, Any], what: str, make: Callable[[Path], None]) -> Path:
    """Return the datalist of a phantom, which is generated now if it is not in the cache.

    It is generated in a temporary folder and moved to its place when it is complete. If another process was faster, its
    phantom, which is the same, is used.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=dict).encode()).hexdigest()[:16]
    folder = cache_folder() / "phantom" / f"{site}-{digest}"
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    make_folder(folder.parent)
    _log.info("making %s in %s", what, folder)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(staging)
        try:
            os.rename(staging, folder)
        except OSError:
            if not (folder / FILE_NAME).is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder / FILE_NAME


def _make(folder: Path, site: str, vendor: Vendor, settings: PhantomSettings) -> None:
    from monai_fedlora.data.phantom.cohort import IMAGES, draw_groups, name_seed, write_site
    from monai_fedlora.data.phantom.layouts import ACDC_LABELS, write_acdc_patient
    from monai_fedlora.data.phantom.patient import make_patient
    from monai_fedlora.data.phantom.render import LV, MYO, RV
    from monai_fedlora.measures.heart_function import heart_function

    classes = settings.values if settings.task == REGRESSION else _TASKS[settings.task]
    values = tuple(ACDC_LABELS[label] for label in (LV, MYO, RV))
    seed = (settings.seed, name_seed(site))
    groups = draw_groups(settings.patients, vendor.shares(), seed)

    def draw(number: int, name: str) -> Iterator[Case]:
        group = groups[number]
        patient = make_patient(group, vendor, (*seed, number))
        files = write_acdc_patient(patient, folder / IMAGES / name)
        ed, es = (f"{name}/{file.name}" for file in (files.ed, files.es))
        if settings.task == SEGMENTATION:
            ed_mask, es_mask = (file.replace(".nii.gz", "_gt.nii.gz") for file in (ed, es))
            masks: dict[str, Any] = {"ed_mask": ed_mask, "es_mask": es_mask, "mask_values": values}
            yield Case(subject=name, label=NO_LABEL, group=group, ed=ed, es=es, **masks)
            return
        if settings.task == REGRESSION:
            whole = patient.mask[[patient.ed_frame, patient.es_frame]].transpose(0, 3, 2, 1)
            found = heart_function(whole, spacing=patient.spacing).to_row()
            numbers = tuple(float(found[value] or 0.0) for value in classes)
            yield Case(subject=name, label=NO_LABEL, group=group, ed=ed, es=es, values=numbers)
            return
        label = classes.index(group) if settings.task == "multiclass" else int(group != "NOR")
        yield Case(subject=name, label=label, group=group, ed=ed, es=es)

    write_site(
        folder,
        site=site,
        dataset=f"phantom-{site}",
        task=settings.task,
        classes=classes,
        sizes=(settings.training, settings.validation, settings.test),
        seed=settings.seed,
        groups={f"patient{number:03d}": group for number, group in enumerate(groups, 1)},
        draw=draw,
        scale=tuple(HEART_SCALES[name] for name in classes) if settings.task == REGRESSION else (),
    )
