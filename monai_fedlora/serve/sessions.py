"""Sessions of browsers with their studies, and when they are removed."""

from __future__ import annotations

import hmac
import itertools
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.frames_choice import check_frames
from monai_fedlora.errors import DataError
from monai_fedlora.files import make_folder
from monai_fedlora.serve.disk import Disk, Share
from monai_fedlora.serve.pace import SPARED, Pace
from monai_fedlora.serve.refusal import BAD_REQUEST, CONFLICT, NOT_FOUND, TOO_MANY, Refused
from monai_fedlora.serve.served_study import FINISHED, ServedStudy
from monai_fedlora.serve.settings import ServeSettings
from monai_fedlora.studies.naming import comparable

_UNWANTED = "the study was removed while it was being sent"


@dataclass(kw_only=True)
class Session:
    """The session of one browser.

    Attributes:
        id: random, known to the browser alone.
        folder: of its studies.
        deidentifier: for its DICOM objects, so that images of one patient stay together within a session.
        key: the page's key, see :func:`monai_fedlora.serve.security.page_key`; empty for other clients.
        studies: by id.
        arriving: studies that are being sent, by id.
        seen: time of its last request, on the clock of :class:`Sessions`.
    """

    id: str
    folder: Path
    key: str = ""
    deidentifier: Deidentifier = field(default_factory=Deidentifier)
    studies: dict[str, ServedStudy] = field(default_factory=dict)
    arriving: dict[str, ServedStudy] = field(default_factory=dict)
    seen: float = 0.0

    def free_name(self, wanted: str) -> str:
        """A name that no study of this session has: the given one, or that with a number."""
        names = (wanted if number == 1 else f"{wanted} ({number})" for number in itertools.count(1))
        return next(name for name in names if not self.has(name))

    def has(self, name: str, *, beside: str = "") -> bool:
        """Whether a study has this name or one that looks the same, not counting the study with the id ``beside``."""
        taken = (comparable(study.name) for identity, study in self.studies.items() if identity != beside)
        return comparable(name) in taken

    def study(self, identity: str) -> ServedStudy:
        """A study by id.

        Raises:
            Refused: this session has none of this id.
        """
        if identity not in self.studies:
            raise no_study()
        return self.studies[identity]

    @property
    def waiting(self) -> int:
        """Number of unfinished studies, including those that are being sent."""
        return len(self.arriving) + sum(study.state not in FINISHED for study in self.studies.values())


class Sessions:
    """All sessions of a server.

    Args:
        root: folder for their files.
        settings: limits on number and age.
        clock: returns seconds.
    """

    def __init__(self, root: Path, *, settings: ServeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._settings, self._clock = root, settings, clock
        self.disk = Disk(settings.max_disk_bytes)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)

    def issue(self) -> str:
        """A new signed identifier for a session."""
        number = secrets.token_urlsafe(32)
        return f"{number}.{self._signature(number)}"

    def is_issued(self, identity: str) -> bool:
        """Whether this server issued an identifier; other sites on this machine cannot choose one."""
        number, _, signature = identity.partition(".")
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(number).encode())

    def find(self, identity: str, key: str = "", *, is_used: bool = True) -> Session:
        """The session of a browser.

        Args:
            identity: from its cookie.
            key: of its page, which takes precedence, because other programs of this machine can set cookies.
            is_used: whether a user caused the request, and not a timer of the page; only this keeps a session alive.

        Raises:
            Refused: there is none.
        """
        with self._lock:
            session = self._find(identity, key)
            if session is None:
                raise no_study()
            if is_used:
                session.seen = self._clock()
            return session

    def seconds_left(self, session: Session) -> float:
        """Seconds until an idle session without unfinished studies is removed."""
        return max(0.0, session.seen + 60 * self._settings.idle_minutes - self._clock())

    @contextmanager
    def arrival(self, identity: str, key: str = "", upload_id: str = "") -> Iterator[tuple[Session, ServedStudy]]:
        """Context of a study that is being sent: yields its session, made if there is none, and the empty study.

        A new session gets a new identifier if the given one was not issued by this server, or comes with a page's key
        (others may know it). If too many studies wait, the most delayed sender is given up.

        The study becomes part of the session when the block ends without an error, and is removed otherwise. If its
        name is taken, it gets a number.

        Args:
            identity: from the browser's cookie.
            key: of its page.
            upload_id: by which the page recognises the study.

        Raises:
            Refused: too many studies wait, or the session has too many.
        """
        with self._lock:
            session = self._find(identity, key)
            waiting = sum(other.waiting for other in self._sessions.values())
            if waiting >= self._settings.max_waiting and not self._drop_latest():
                raise Refused(TOO_MANY, f"{waiting} studies wait already; send this one when some are done")
            if session is not None and len(session.studies) >= self._settings.max_kept:
                raise Refused(TOO_MANY, f"{len(session.studies)} studies are kept already; remove some of them")
            if session is None:
                session = self._new_session(self.issue() if key or not self.is_issued(identity) else identity, key)
            session.seen = self._clock()
            study = self._new_study(session, upload_id)
            session.arriving[study.id] = study
        try:
            make_folder(study.upload)
            make_folder(study.results)
            yield session, study
            with self._lock:
                if self._sessions.get(session.id) is not session or study.id not in session.arriving:
                    raise no_study()
                session.seen = self._clock()
                study.name = session.free_name(study.name)
                session.studies[study.id] = study
        except BaseException:
            study.remove()
            raise
        finally:
            with self._lock:
                session.arriving.pop(study.id, None)

    def rename(self, session: Session, identity: str, name: str) -> ServedStudy:
        """Give a study a pseudonym.

        Raises:
            Refused: the session has no study of this id, or another of this name.
        """
        with self._lock:
            study = session.study(identity)
            if session.has(name, beside=identity):
                raise Refused(BAD_REQUEST, f"another study here is called {name!r}; choose another name")
            study.name, study.renamed = name, study.renamed + 1
        return study

    def remove_study(self, session: Session, identity: str) -> None:
        """Remove a study, also one that is being sent.

        Raises:
            Refused: the session has no study of this id.
        """
        with self._lock:
            arriving = session.arriving.pop(identity, None)
            if arriving is not None:
                arriving.pace.drop(_UNWANTED)
                return
            study = session.study(identity)
            del session.studies[identity]
        study.remove()

    def choose_frames(self, session: Session, identity: str, ed: int, es: int, *, keep: str) -> ServedStudy:
        """Replace the answer of a study by one with frames that a person chose.

        Args:
            session: of the study.
            identity: of the study.
            ed: end-diastole, from 0.
            es: end-systole, from 0.
            keep: kind of the one file that belongs to no answer, and stays.

        Raises:
            Refused: the session has no study of this id, it is not finished, has no such frames, or too many studies
                wait.
        """
        with self._lock:
            study = session.study(identity)
            if study.state not in FINISHED:
                raise Refused(CONFLICT, "this study is not finished; choose its frames when it is")
            if study.cine is None or keep not in study.offered or study.cine.loaded.frames is None:
                raise Refused(NOT_FOUND, "this study has no frames to choose from: only whole cines have")
            try:
                check_frames(ed, es, frames=len(study.cine.loaded.frames.areas))
            except DataError as error:
                raise Refused(BAD_REQUEST, str(error)) from error
            if sum(other.waiting for other in self._sessions.values()) >= self._settings.max_waiting:
                raise Refused(TOO_MANY, "too many studies wait already; choose the frames when some are done")
            session.seen = self._clock()
            study.begin_again(ed, es, keep=keep)
        return study

    def remove(self, session: Session) -> None:
        """Remove a session and all its studies."""
        with self._lock:
            self._sessions.pop(session.id, None)
            for study in session.arriving.values():
                study.pace.drop(_UNWANTED)
        for study in list(session.studies.values()):
            study.remove()
        shutil.rmtree(session.folder, ignore_errors=True)

    def remove_idle(self) -> int:
        """Remove sessions without a request for too long, unless they have unfinished studies.

        Returns:
            Number of sessions that were removed.
        """
        oldest = self._clock() - 60 * self._settings.idle_minutes
        with self._lock:
            idle = [session for session in self._sessions.values() if session.seen < oldest and not session.waiting]
        for session in idle:
            self.remove(session)
        return len(idle)

    def remove_all(self) -> None:
        """Remove all sessions."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            self.remove(session)

    def _signature(self, number: str) -> str:
        return hmac.new(self._key, number.encode("utf-8", "replace"), "sha256").hexdigest()

    def _find(self, identity: str, key: str) -> Session | None:
        if not key:
            return self._sessions.get(identity)
        same = (session for session in self._sessions.values() if hmac.compare_digest(session.key, key))
        return next(same, None)

    def _drop_latest(self) -> bool:
        """Give up the most delayed sender, if its delay is at least :data:`SPARED`; returns whether there was one."""
        arriving = [
            (study.pace.late, session, study)
            for session in self._sessions.values()
            for study in session.arriving.values()
        ]
        late, session, study = max(arriving, key=lambda entry: entry[0], default=(0.0, None, None))
        if session is None or study is None or late < SPARED:
            return False
        study.pace.drop()
        del session.arriving[study.id]
        return True

    def _new_study(self, session: Session, upload_id: str) -> ServedStudy:
        identity = secrets.token_urlsafe(16)
        return ServedStudy(
            id=identity,
            folder=session.folder / identity,
            pace=Pace(self._settings, clock=self._clock),
            sent=Share(self.disk),
            kept=Share(self.disk),
            upload_id=upload_id,
        )

    def _new_session(self, identity: str, key: str) -> Session:
        folder = self._root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        session = self._sessions[identity] = Session(id=identity, folder=folder, key=key)
        return session


def no_study() -> Refused:
    """The same refusal for a study that does not exist and one of another session."""
    return Refused(NOT_FOUND, "there is no such study here (any more); send it again")
