"""A provisioned server as somebody with a startup kit sees it, through NVFlare's own job API."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    InvalidJobDefinition,
    JobNotDone,
    JobNotFound,
    JobNotRunning,
    NoReply,
    SubmitTokenConflict,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.followed import PROGRESS, STORED
from monai_fedlora.federated.run_record import BEST_NAME, LAST_NAME, RESULTS_NAME
from monai_fedlora.files import atomic_path, read_json

_T = TypeVar("_T")
_REFUSALS = (AuthenticationError, AuthorizationError, InvalidJobDefinition, SubmitTokenConflict)
_CONNECT = 10.0  # ours, seconds
_SETTINGS = Path("startup") / "fed_admin.json"
_FRESH = 20.0  # ours, seconds; NVFlare's sites send a sign of life every few seconds
UNKNOWN = "UNKNOWN"
"""Status, ours, of a job that is not among the server's any more, as after its folder of jobs was emptied."""


class Unreachable(FedLoraError):
    """The server does not answer."""


class NotRunning(FedLoraError):
    """The server does not run the job."""


class NotKnown(NotRunning):
    """The server has no such job, or not any more."""


class Unanswered(FedLoraError):
    """The server runs the job, whose process does not answer: it begins, or ends."""


@dataclass(frozen=True, kw_only=True)
class SiteSeen:
    """A site as the server sees it.

    Attributes:
        silent: seconds for which this link has not seen a new sign of life.
        at_work: whether the job's process runs there; None where the server could not ask it.
    """

    silent: float = 0.0
    at_work: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A job and its sites at one moment.

    Attributes:
        status: of the job, in NVFlare's words, or :data:`UNKNOWN`.
        server: when the server's own process was started.
        running: whether the job's process runs at the server.
        results: the run's record so far; empty before it has begun.
        stored: changes whenever shared tensors were stored; None before the first.
        sites: those that are connected, by name.
    """

    status: str
    server: str
    running: bool
    results: Mapping[str, Any] = field(default_factory=dict)
    stored: int | None = None
    sites: Mapping[str, SiteSeen] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether NVFlare will do nothing more for the job."""
        return self.status.startswith("FINISHED") or self.status in ("ABORTED", "ABANDONED", "FAILED", UNKNOWN)


class ServerLink:
    """Asks the server, over a session that is opened when one is needed and again after it was lost.

    Args:
        kit: startup kit of somebody who may submit jobs.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, kit: Path) -> None:
        settings = kit / _SETTINGS
        if not settings.is_file():
            raise ConfigError(
                f"{kit} is no startup kit of a person: there is no {_SETTINGS} in it. NVFlare's provisioning makes one "
                "for each of the project's admins; give the folder that holds 'startup'"
            )
        self._kit = kit.resolve()
        self._user = str(read_json(settings)["admin"]["username"])
        self._session: Session | None = None
        self._heard: dict[str, tuple[float, float]] = {}

    def submit(self, job: Path, *, token: str) -> str:
        """Submit a job, once for every token; returns its id.

        Raises:
            Unreachable: the server does not answer.
            FedLoraError: it refuses the job.
        """
        return str(self._ask(lambda session: session.submit_job(str(job.resolve()), submit_token=token)))

    def look(self, job_id: str, *, key: str) -> Seen:
        """What is to be seen of a job to who has its key.

        Raises:
            Unreachable: the server does not answer.
        """
        status = self._status(job_id)
        system = self._ask(lambda session: session.get_system_info())
        silent = {client.name: self._silence(client.name, client.last_connect_time) for client in system.client_info}
        said, running = dict[str, Any](), status != UNKNOWN
        try:
            if running:
                said = self._ask(lambda session: session.do_app_command(job_id, PROGRESS, {"key": key}))
        except NotRunning:
            running = False
        except Unanswered:
            pass
        awake = [name for name, seconds in silent.items() if seconds < _FRESH]
        at_work = self._at_work(job_id, awake) if said else {}
        return Seen(
            status=status,
            server=str(system.server_info.start_time),
            running=running,
            results=said.get("results", {}),
            stored=said.get("stored"),
            sites={name: SiteSeen(silent=seconds, at_work=at_work.get(name)) for name, seconds in silent.items()},
        )

    def fetch(self, job_id: str, folder: Path, *, key: str) -> None:
        """Bring the shared tensors that a running job has stored into a folder.

        Raises:
            Unreachable: the server does not answer.
            NotRunning, Unanswered: the job has ended meanwhile.
        """
        for name in (BEST_NAME, LAST_NAME):
            if content := self._file(job_id, name, key):
                _write(folder / name, content)

    def download(self, job_id: str, folder: Path) -> Mapping[str, Any]:
        """Bring what a job that has ended has left into a folder; returns its record, empty where there is none.

        Raises:
            Unreachable: the server does not answer.
        """
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            try:
                found = Path(self._ask(lambda session: session.download_job_result(job_id, scratch))) / "workspace"
            except NotKnown:
                return {}
            for name in (BEST_NAME, LAST_NAME):
                if (found / name).is_file():
                    _write(folder / name, (found / name).read_bytes())
            return dict(read_json(found / RESULTS_NAME)) if (found / RESULTS_NAME).is_file() else {}

    def abort(self, job_id: str) -> None:
        """End a job; one that does not run is left as it is.

        Raises:
            Unreachable: the server does not answer.
        """
        with contextlib.suppress(NotRunning, Unanswered):
            self._ask(lambda session: session.abort_job(job_id))

    def close(self) -> None:
        """Log out."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()

    def _status(self, job_id: str) -> str:
        try:
            return str(self._ask(lambda session: session.get_job_meta(job_id))["status"])
        except NotKnown:
            return UNKNOWN

    def _silence(self, name: str, sign: float) -> float:
        """Seconds, by this machine's clock, since a site's sign of life was another one."""
        now = time.monotonic()
        if self._heard.get(name, (None, now))[0] != sign:
            self._heard[name] = (sign, now)
        return now - self._heard[name][1]

    def _at_work(self, job_id: str, names: list[str]) -> dict[str, bool]:
        """Whether the job's process runs, of the sites that the server can ask."""
        if not names:
            return {}
        try:
            said = self._ask(lambda session: session.get_client_job_status(names)) or []
        except Unanswered:  # one of the sites does not answer, which its silence will tell
            return {}
        jobs: dict[str, bool] = {}
        for entry in said:
            name, status = entry.get("client_name"), entry.get("status")
            mine = entry.get("job_id") == job_id and status != "stopped"
            jobs[name] = jobs.get(name, False) or mine
        return jobs

    def _file(self, job_id: str, name: str, key: str) -> bytes:
        """A file of a running job; empty where it has none."""
        while True:
            content, seal = b"", None
            while True:
                wanted = {"key": key, "name": name, "offset": len(content)}
                said = self._ask(lambda session, wanted=wanted: session.do_app_command(job_id, STORED, wanted))  # type: ignore[misc]
                if seal not in (None, said["sha256"]):
                    break  # a new round has replaced it meanwhile
                seal = said["sha256"]
                content += base64.b64decode(said["content"])
                if len(content) >= said["size"]:
                    if hashlib.sha256(content).hexdigest() != seal:
                        raise Unreachable(f"{name} did not arrive as it was sent")
                    return content

    def _ask(self, question: Callable[[Session], _T]) -> _T:
        try:
            if self._session is None:
                with contextlib.redirect_stdout(io.StringIO()):  # where NVFlare says that it connects
                    self._session = new_secure_session(
                        self._user, str(self._kit), timeout=_CONNECT, auto_login_max_tries=1
                    )
            return question(self._session)
        except (JobNotRunning, JobNotDone) as error:
            raise NotRunning(str(error)) from error
        except JobNotFound as error:
            raise NotKnown(str(error)) from error
        except _REFUSALS as error:
            raise FedLoraError(f"the server refuses what {self._user} asks for: {error}") from error
        except (NoReply, InternalError) as error:
            raise Unanswered(str(error)) from error
        except Exception as error:  # NVFlare has no common class for what goes wrong on the way
            self.close()
            raise Unreachable(f"the server does not answer ({type(error).__name__}: {error})") from error


def _write(path: Path, content: bytes) -> None:
    """Replace a file, which may be all that there is of earlier rounds, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
