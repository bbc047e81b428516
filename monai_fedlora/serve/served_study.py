"""A study that somebody sent to the page: its state, its files and what it says."""

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

SENDING, WAITING, READING, CLASSIFYING, EXPLAINING, DONE, FAILED = (
    "sending", "waiting", "reading", "classifying", "explaining", "done", "failed",
)  # fmt: skip
FINISHED = frozenset({DONE, FAILED})
_UPLOAD, _RESULTS, _IMAGES = "upload", "results", "images"
_SHORT = 8


class Removed(Exception):
    """Nobody wants the study any more."""


@dataclass(kw_only=True)
class ServedStudy:
    """A study of a session. The worker's thread changes it, and the server's reads it.

    Attributes:
        id: random.
        folder: its own.
        pace: of its sender.
        sent: what was sent fills so much of the disk.
        kept: so do the files that are offered.
        upload_id: by which the page that sends it knows it again; empty if it has none.
        name: what it is called, which no other study of the session is.
        renamed: how often its reader chose the name; such a one may go where a patient's name may not.
        state: one of the constants above.
        error: why it failed, for its sender.
        result: what the model says, from the state "explaining" on.
        quotes: those of its notes that call files and series as its sender does.
        offered: file in ``results`` by what it is.
        opinion: what its reader said of the answer last, as it was kept; None if nothing was.
        opinions: how many were kept.
        cine: what is kept so that other frames can be chosen; None if there is nothing to choose from.
        chosen: the frames (ED, ES) from 0 that a person chose; None before.
        answers: how many were begun.
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
        """A few signs that tell it from every other study, wherever its files go."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:_SHORT]

    @property
    def answer_id(self) -> str:
        """What tells the answer of now from every other."""
        return f"{self.short_id}-answer{self.answers}"

    @property
    def is_pseudonym(self) -> bool:
        """Whether its reader chose the name."""
        return self.renamed > 0

    @property
    def upload(self) -> Path:
        """Folder of what was sent."""
        return self.folder / _UPLOAD

    @property
    def results(self) -> Path:
        """Folder of what is offered."""
        return self.folder / _RESULTS

    @property
    def images(self) -> Path:
        """Folder of de-identified images, see :mod:`monai_fedlora.serve.chosen`."""
        return self.folder / _IMAGES

    @property
    def source(self) -> Study:
        """What was sent."""
        assert self._source is not None
        return self._source

    def fill(self, source: Study, files: Sequence[StoredFile]) -> None:
        """Say what was sent, and what its sender calls the files."""
        self.name, self._source, self._files = source.name, source, tuple(files)

    def enter(self, state: str) -> None:
        """Go on to a state.

        Raises:
            Removed: the study was removed.
        """
        if self._removed:
            raise Removed
        self.state = state

    def offer(self, kind: str, file: Path) -> None:
        """Let a file be seen.

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
        """Wait for another answer; the one of before is gone from now on.

        Args:
            ed: end-diastole that a person chose, from 0.
            es: end-systole, likewise.
            keep: kind of the file that is no part of an answer.
        """
        self.chosen, self.answers = (ed, es), self.answers + 1
        self.result = self.error = self.opinion = None
        gone = {kind: file for kind, file in self.offered.items() if kind != keep}
        self.offered = {kind: file for kind, file in self.offered.items() if kind == keep}
        for file in gone.values():
            self.kept.give_back(file.stat().st_size)
            file.unlink()
        self.state = WAITING

    def fail(self, reason: str) -> None:
        """End, and say why in the sender's own names of the files."""
        for file in self._files:
            reason = reason.replace(str(file.path), file.name)
        for folder in (self.upload, self.folder):
            reason = reason.replace(str(folder), self.name)
        if "volume" not in self.offered:
            self._forget_images()
        self.error, self.state = reason, FAILED

    def _forget_images(self) -> None:
        """Remove what another choice of frames would need, where there is nothing to choose from."""
        self.cine = None
        self.kept.give_back(sum(file.stat().st_size for file in self.images.glob("*")))
        shutil.rmtree(self.images, ignore_errors=True)

    def forget_upload(self) -> None:
        """Remove what was sent."""
        shutil.rmtree(self.upload, ignore_errors=True)
        self.sent.give_back()

    def finish(self) -> None:
        """Nothing is written any more: remove what was sent, and everything if the study was removed meanwhile."""
        if self._removed:
            self.remove()
        else:
            self.forget_upload()

    def remove(self) -> None:
        """Remove everything; where the worker is at the study, its next step ends it."""
        self._removed = True
        shutil.rmtree(self.folder, ignore_errors=True)
        self.sent.give_back()
        self.kept.give_back()
