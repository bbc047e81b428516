"""A study that was sent to the page: its state, its files and its result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fedlora.clinic.reader_feedback import Opinion
from monai_fedlora.serve.chosen import KeptCine
from monai_fedlora.serve.disk import Share
from monai_fedlora.serve.pace import Pace
from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.uploads import StoredFile
from monai_fedlora.studies.study import Study

SENDING, WAITING, READING, CLASSIFYING, OUTLINING, EXPLAINING, DONE, FAILED = (
    "sending", "waiting", "reading", "classifying", "outlining", "explaining", "done", "failed",
)  # fmt: skip
FINISHED = frozenset({DONE, FAILED})
_UPLOAD, _RESULTS, _IMAGES = "upload", "results", "images"
_SHORT = 8


class Removed(Exception):
    """The study was removed while it was being classified."""


@dataclass(kw_only=True)
class ServedStudy:
    """A study of a session. The worker's thread changes it, and the server's thread reads it.

    Attributes:
        id: random.
        folder: of its files.
        pace: of its sender.
        sent: disk space of the upload.
        kept: disk space of results and kept images.
        upload_id: by which the page recognises the study; may be empty.
        name: unique in its session.
        renamed: how often a reader typed a new name. Such a pseudonym may appear where a patient's name may not.
        state: one of the constants above.
        error: why it failed, for its sender.
        result: the answer as JSON, from the state "outlining" or "explaining" on.
        quotes: notes of the result with names of files and series.
        offered: files in ``results`` by kind.
        opinion: the last opinion that was kept; None if there is none.
        opinions: number of opinions that were kept.
        cine: kept for another choice of frames; None if there are no frames to choose from.
        chosen: the frames (ED, ES) from 0 that a person chose; None before.
        answers: number of answers that were begun.
    """

    id: str
    folder: Path
    pace: Pace
    sent: Share
    kept: Share
    upload_id: str = ""
    name: str = ""
    renamed: int = 0
    state: str = WAITING
    error: str | None = None
    result: dict[str, Any] | None = None
    quotes: tuple[str, ...] = ()
    offered: dict[str, Path] = field(default_factory=dict)
    opinion: Opinion | None = None
    opinions: int = 0
    cine: KeptCine | None = None
    chosen: tuple[int, int] | None = None
    answers: int = 1
    _source: Study | None = None
    _files: tuple[StoredFile, ...] = ()
    _removed: bool = False

    @property
    def short_id(self) -> str:
        """A short identifier that names no patient, also for file names."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:_SHORT]

    @property
    def answer_id(self) -> str:
        """Identifier of the present answer."""
        return f"{self.short_id}-answer{self.answers}"

    @property
    def is_pseudonym(self) -> bool:
        """Whether a reader typed the name."""
        return self.renamed > 0

    @property
    def upload(self) -> Path:
        """Folder of the upload."""
        return self.folder / _UPLOAD

    @property
    def results(self) -> Path:
        """Folder of the files for download."""
        return self.folder / _RESULTS

    @property
    def images(self) -> Path:
        """Folder of de-identified images, see :mod:`monai_fedlora.serve.chosen`."""
        return self.folder / _IMAGES

    @property
    def source(self) -> Study:
        """The uploaded study."""
        assert self._source is not None
        return self._source

    def fill(self, source: Study, files: Sequence[StoredFile]) -> None:
        """Set the uploaded study, and its files with their original names."""
        self.name, self._source, self._files = source.name, source, tuple(files)

    def enter(self, state: str) -> None:
        """Enter a state.

        Raises:
            Removed: the study was removed.
        """
        if self._removed:
            raise Removed
        self.state = state

    def offer(self, kind: str, file: Path) -> None:
        """Make a file available for download.

        Raises:
            Refused: the disk has no room for it.
        """
        try:
            self.kept.take(file.stat().st_size)
        except Refused:
            file.unlink()
            raise
        self.offered = {**self.offered, kind: file}

    def begin_again(self, ed: int, es: int, *, keep: str) -> None:
        """Remove the answer, and wait for another one.

        Args:
            ed: end-diastole that a person chose, from 0.
            es: end-systole that a person chose, from 0.
            keep: kind of the one file that belongs to no answer, and stays.
        """
        self.chosen, self.answers = (ed, es), self.answers + 1
        self.result = self.error = self.opinion = None
        gone = [file for kind, file in self.offered.items() if kind != keep]
        self.offered = {kind: file for kind, file in self.offered.items() if kind == keep}
        for file in gone:
            self.kept.give_back(file.stat().st_size)
            file.unlink()
        self.state = WAITING

    def fail(self, reason: str) -> None:
        """End with an error, in which stored files are called by their original names."""
        for file in self._files:
            reason = reason.replace(str(file.path), file.name)
        for folder in (self.upload, self.folder):
            reason = reason.replace(str(folder), self.name)
        if "volume" not in self.offered:  # without it no other frames can be chosen
            self.cine = None
            self.kept.give_back(sum(file.stat().st_size for file in self.images.glob("*")))
            shutil.rmtree(self.images, ignore_errors=True)
        self.error, self.state = reason, FAILED

    def forget_upload(self) -> None:
        """Remove the upload."""
        shutil.rmtree(self.upload, ignore_errors=True)
        self.sent.give_back()

    def finish(self) -> None:
        """End the worker's access: remove the upload, and everything if the study was removed meanwhile."""
        if self._removed:
            self.remove()
        else:
            self.forget_upload()

    def remove(self) -> None:
        """Remove everything; a worker that is classifying the study stops at its next step."""
        self._removed = True
        shutil.rmtree(self.folder, ignore_errors=True)
        self.sent.give_back()
        self.kept.give_back()
