"""What runs have left in a site's private folder, and a way to be rid of it without losing a personal model unasked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.environment import PRIVATE_DIR
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.federated.lock import LOCK_NAME, FolderLock
from monai_fedlora.federated.site_state import (
    EARLIER,
    EVIDENCE_NAME,
    FINAL_NAME,
    SCORES_NAME,
    is_of_rounds,
)

_OF_MODEL = (FINAL_NAME, EVIDENCE_NAME, SCORES_NAME)


@dataclass(frozen=True, kw_only=True)
class KeptRun:
    """What one experiment has left at one site.

    Attributes:
        experiment, site: as the plan names them.
        folder: where it lies.
        states: files of rounds, which a run that goes on needs.
        models: files of personal models, which an export needs.
    """

    experiment: str
    site: str
    folder: Path
    states: tuple[Path, ...]
    models: tuple[Path, ...]

    @property
    def changed(self) -> float:
        """Seconds since the epoch of the last change."""
        return max(path.stat().st_mtime for path in (*self.states, *self.models))


def nbytes(files: tuple[Path, ...]) -> int:
    """Bytes of files together."""
    return sum(path.stat().st_size for path in files)


def private_folder(given: Path | None) -> Path:
    """The folder that is meant: the given one, else that of ``MONAI_FEDLORA_PRIVATE_DIR``.

    Raises:
        ConfigError: neither is there.
    """
    named = os.environ.get(PRIVATE_DIR)
    folder = given or (Path(named) if named else None)
    if folder is None:
        raise ConfigError(f"give --private DIR, the site's private folder, or set {PRIVATE_DIR}")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give --private DIR, the site's private folder")
    return folder


def kept_runs(root: Path, *, site: str | None = None) -> tuple[KeptRun, ...]:
    """All runs that have left something, by experiment and site.

    Args:
        root: the private folder.
        site: of this site alone.
    """
    return tuple(run for run in _runs(root) if site in (None, run.site))


def _runs(root: Path) -> Iterator[KeptRun]:
    for folder in sorted(root.glob("[!.]*/*")):
        places = [folder, *sorted(folder.glob(f"{EARLIER}*"))]
        states = tuple(_files(places, is_of_rounds))
        models = tuple(_files(places, _OF_MODEL.__contains__))
        if states or models:
            experiment, site = folder.parts[-2:]
            yield KeptRun(experiment=experiment, site=site, folder=folder, states=states, models=models)


def _files(places: list[Path], wanted: Callable[[str], bool]) -> Iterator[Path]:
    for place in places:
        if place.is_dir() and not place.is_symlink():
            yield from (path for path in sorted(place.iterdir()) if wanted(path.name) and path.is_file())


def forget(root: Path, experiment: str, *, site: str | None = None, models: bool = False) -> tuple[Path, ...]:
    """Remove what an experiment has left; how many messages have left the site stays counted.

    Args:
        root: the private folder.
        experiment: its name.
        site: of this site alone.
        models: personal models too, and what an export needs beside them.

    Returns:
        The files that were removed.

    Raises:
        ConfigError: there is nothing of that name, or a site has no personal model yet, so that its states hold its
            only private part, and ``models`` is not given; nothing was removed.
        Busy: a run uses one of the folders; nothing was removed.
    """
    found = [run for run in kept_runs(root, site=site) if run.experiment == experiment]
    if not found:
        names = sorted({run.experiment for run in kept_runs(root, site=site)})
        raise ConfigError(f"{root} holds nothing of {experiment!r}{nearest(experiment, names or ['none'])}")
    unfinished = [run.site for run in found if not run.models]
    if unfinished and not models:
        raise ConfigError(
            f"{experiment!r} has left no personal model at {', '.join(unfinished)}, so that its states of rounds hold "
            "the only private part; let the run go on to its end, or give --models to remove that too"
        )
    locks = {run.folder: FolderLock(run.folder) for run in found}
    held = [run for run in kept_runs(root, site=site) if run.folder in locks]  # a run may have ended since
    gone = [path for run in held for path in (*run.states, *(run.models if models else ()))]
    for path in gone:
        path.unlink()
    for folder, lock in locks.items():
        for place in folder.glob(f"{EARLIER}*"):
            _remove_if_empty(place)
        (folder / LOCK_NAME).unlink(missing_ok=True)  # still held: who waits for it sees that it is gone
        lock.release()
        _remove_if_empty(folder)
        _remove_if_empty(folder.parent)
    return tuple(gone)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, or not there
        folder.rmdir()
