"""The phantom of a site with photographs: its settings, its cache key and its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from monai_fedlora.data.cases import NO_LABEL, Case
from monai_fedlora.data.datalist import SEGMENTATION
from monai_fedlora.data.isic_files import MASK_SUFFIX
from monai_fedlora.data.phantom.cohort import IMAGES, machine_of, name_seed, write_site
from monai_fedlora.data.photo_phantom import VERSION
from monai_fedlora.data.photo_phantom.photo_cohort import draw_units
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS, Camera
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import make_folder, write_bytes
from monai_fedlora.measures.structures import ISIC_VALUE


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoPhantomSettings:
    """Size and content of the phantom of a site with photographs (defaults ours).

    Attributes:
        training, validation, test: pictures of each split; a split may get a few more or less, because every class is
            split in these proportions and the pictures of one lesion or patient stay together.
        classes: classes of the task, in the order of the labels; None takes those of the demonstration. Each site has
            its own shares of them, and may lack some.
        size: shorter side of a picture, pixels.
        task: ``multiclass`` (the classes) or ``segmentation`` (the lesion; dermatoscopic photographs alone have masks).
            The classes then only decide which lesions there are.
        seed: another seed gives other lesions and eyes.
    """

    training: int = 96
    validation: int = 36
    test: int = 48
    classes: tuple[str, ...] | None = None
    size: int = 120
    task: str = "multiclass"
    seed: int = 0

    @property
    def pictures(self) -> int:
        """Pictures of all splits."""
        return self.training + self.validation + self.test


def site_camera(phantom: str, site: str) -> Camera:
    """Return the camera of a site's phantom, see :func:`~monai_fedlora.data.phantom.cohort.machine_of`."""
    return machine_of(site, KINDS[phantom].cameras)


def site_key(phantom: str, site: str, settings: PhotoPhantomSettings) -> dict[str, Any]:
    """Return everything that decides what a site's pictures are; it names the phantom's folder in the cache.

    Raises:
        ConfigError: the settings make no collection, or the site's camera sees none of the classes.
    """
    kind = KINDS[phantom]
    classes = settings.classes or kind.demo
    if unknown := [name for name in classes if name not in kind.classes]:
        raise ConfigError(f"{phantom} has no class {unknown[0]!r}; choose from {', '.join(kind.classes)}")
    if len(set(classes)) < len(classes) or len(classes) < 2:
        raise ConfigError(f"the classes {', '.join(classes)} make no task; name two or more, each once")
    if settings.task not in ("multiclass", SEGMENTATION):
        raise ConfigError(f"the task {settings.task!r} is unknown; it is multiclass or {SEGMENTATION}")
    if settings.task == SEGMENTATION and not kind.structures:
        raise ConfigError(f"the phantom {phantom} has no masks; dermoscopy has some")
    if settings.training < 1 or min(settings.validation, settings.test) < 0 or settings.size < 32:
        raise ConfigError(
            f"{settings} makes no collection; training needs a picture, no split has less than none, and a picture has "
            "32 pixels or more"
        )
    camera = site_camera(phantom, site)
    if not any(camera.shares[name] for name in classes):
        raise ConfigError(f"camera {camera.code} of site {site} sees none of the classes {', '.join(classes)}")
    values = {name: getattr(camera, name) for name in camera.__slots__}
    values |= {"optics": asdict(camera.optics), "shares": dict(camera.shares)}
    return {
        "version": VERSION,
        "phantom": phantom,
        "site": site,
        "classes": classes,
        "settings": asdict(settings),
        "camera": values,
    }


def make_site(folder: Path, phantom: str, site: str, settings: PhotoPhantomSettings) -> None:
    """Write the pictures and the datalist of a site into ``folder``."""
    kind, camera = KINDS[phantom], site_camera(phantom, site)
    classes = settings.classes or kind.demo
    seed = (settings.seed, name_seed(site))
    shares = {name: camera.shares[name] for name in classes}
    units = draw_units(settings.pictures, shares, kind.doubles, seed)
    group_of = {f"{kind.unit}{number:04d}": unit.group for number, unit in enumerate(units, 1)}
    make_folder(folder / IMAGES)
    segmentation = settings.task == SEGMENTATION

    def draw(number: int, name: str) -> Iterator[Case]:
        unit = units[number]
        for shot in range(unit.pictures):
            subject = f"{name}_{shot + 1}"
            case = Case(subject=subject, label=NO_LABEL, group=unit.group, unit=name, image=f"{subject}.jpg")
            asked: dict[str, Any] = {"shot": shot, "size": settings.size, "suffix": ".jpg"}
            if segmentation:
                image, mask = kind.masked_file(unit.group, camera, (*seed, number), **asked)
                case = replace(case, mask=f"{subject}{MASK_SUFFIX}.png", mask_values=(ISIC_VALUE,))
                write_bytes(folder / IMAGES / str(case.mask), mask)
            else:
                image = kind.file(unit.group, camera, (*seed, number), **asked)
                case = replace(case, label=classes.index(unit.group))
            write_bytes(folder / IMAGES / str(case.image), image)
            yield case

    write_site(
        folder,
        site=site,
        dataset=f"phantom-{phantom}-{site}",
        task=settings.task,
        classes=kind.structures if segmentation else classes,
        sizes=(settings.training, settings.validation, settings.test),
        seed=settings.seed,
        groups=group_of,
        draw=draw,
    )
