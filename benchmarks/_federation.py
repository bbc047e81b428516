"""A provisioned federation on this machine: certificates, mutual TLS and a process for every end, on loopback.

Root may write into folders that are read-only, so that the ends run as an ordinary user where this process is root's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from _line import Line

PROJECT = "hearts"
SERVER = "localhost"
ADMIN = "admin@nvidia.com"
_NOBODY = 65534
_PROGRAMS = {True: ("server.server_train", "fed_server.json"), False: ("client.client_train", "fed_client.json")}
_TRAINING = "monai_fedlora.federated.worker_pool"
_JOB_PROCESSES = ("nvflare.private.fed.app.server.runner_process", "nvflare.private.fed.app.client.worker_process")


class Federation:
    """A server and its sites; leaving the context ends all their processes.

    Args:
        folder: to create.
        sites: names of the sites.
        environment: of every site, on top of this process's.
        server_settings: replace entries of ``servers[0]`` in the server's ``resources.json``.
        behind: a site that reaches the server over a :class:`Line`, :attr:`line`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sites: Sequence[str],
        environment: Mapping[str, str] | None = None,
        server_settings: Mapping[str, Any] | None = None,
        behind: str | None = None,
    ) -> None:
        self.folder, self.sites = folder, tuple(sites)
        self.environment = dict(environment or {})
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(mode=0o755, parents=True)
        self.port = _free_port()
        self.line = Line(to=self.port) if behind else None
        ports = {behind: self.line.port} if behind and self.line else {}
        self.kits = _provision(folder, sites=self.sites, port=self.port, ports=ports)
        _configure_server(self.kit(SERVER), folder / "storage", server_settings or {})
        own(folder)

    def kit(self, name: str) -> Path:
        """The startup kit of an end or of a person."""
        return self.kits / name

    @property
    def admin(self) -> Path:
        """The kit of the person who runs the federation."""
        return self.kit(ADMIN)

    def private(self, site: str) -> Path:
        """A site's private folder."""
        return self.folder / "private" / site

    def start(self, name: str, **environment: str) -> None:
        """Start an end's host process."""
        is_server = name == SERVER
        program, settings = _PROGRAMS[is_server]
        command = [sys.executable, "-u", "-m", f"nvflare.private.fed.app.{program}"]
        command += ["-m", str(self.kit(name)), "-s", settings, "--set", "secure_train=true", "org=nvidia"]
        command += ["config_folder=config", *([] if is_server else [f"uid={name}"])]
        home = self.folder / "home" / name
        for place in (home, self.kit(name) / "transfer", *([] if is_server else [self.private(name)])):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            own(place)
        own(home.parent)
        told = {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if not is_server:
            told |= {"MONAI_FEDLORA_PRIVATE_DIR": str(self.private(name)), "MONAI_FEDLORA_THREADS": "1"}
            own(self.private(name).parent)
        with open(self.folder / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                [*ordinary(), *command],
                cwd=self.kit(name),
                env={**os.environ, **self.environment, **told, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )

    def host(self, name: str) -> list[psutil.Process]:
        """All processes of an end, its host's first."""
        with suppress(KeyError, psutil.NoSuchProcess):
            first = psutil.Process(self._running[name].pid)
            return [first, *first.children(recursive=True)]
        return []

    def job_processes(self, name: str) -> list[psutil.Process]:
        """The processes that an end has started for jobs."""
        return [process for process in self.host(name)[1:] if _is_of_job(process)]

    def trainings(self, name: str) -> list[psutil.Process]:
        """The processes of a site that train: those without children among what its jobs have started."""
        found = []
        for process in self.host(name)[1:]:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any(_TRAINING in part for part in process.cmdline()) and not process.children():
                    found.append(process)
        return found

    def send(self, name: str, number: signal.Signals, *, jobs_only: bool = False) -> None:
        """Send a signal to an end's processes, or to those of its jobs alone."""
        for process in self.job_processes(name) if jobs_only else self.host(name):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number == signal.SIGKILL and not jobs_only and name in self._running:
            self._running.pop(name).wait()

    def stop(self) -> None:
        """End every process of the federation."""
        for name in tuple(self._running):
            self.send(name, signal.SIGCONT)
            self.send(name, signal.SIGKILL)
        if self.line:
            self.line.close()

    def __enter__(self) -> Federation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _is_of_job(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return any(name in part for part in process.cmdline() for name in _JOB_PROCESSES)
    return False


def _provision(folder: Path, *, sites: Sequence[str], port: int, ports: Mapping[str, int]) -> Path:
    """Make startup kits with NVFlare's own tool, from its own sample project; returns their folder.

    Sites in ``ports`` are told to connect there instead of to the server's own port.
    """
    command = [sys.executable, "-m", "nvflare.cli", "provision"]
    home = {**os.environ, "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    tell: dict[str, Any] = {"cwd": folder, "env": home, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*command, "-g"], **tell)
    path = folder / "project.yml"
    head, _, rest = path.read_text(encoding="utf-8").partition("  - name: site-1\n")
    _, _, rest = rest.partition("  - name: site-2\n")
    client = "    type: client\n    org: nvidia\n"
    clients = "".join(
        f"  - name: {site}\n{client}"
        + (f"    connect_to:\n      host: {SERVER}\n      port: {ports[site]}\n" if site in ports else "")
        for site in sites
    )
    head = head.replace("server1", SERVER).replace("8002", str(port)).replace("example_project", PROJECT)
    path.write_text(head + clients + rest.removeprefix(client), encoding="utf-8")
    subprocess.run([*command, "-p", path.name, "-w", "prod"], **tell)
    return folder / "prod" / PROJECT / "prod_00"


def _configure_server(kit: Path, storage: Path, changes: Mapping[str, Any]) -> None:
    """Keep what the server stores inside the federation's folder."""
    local = kit / "local"
    text = (local / "resources.json.default").read_text(encoding="utf-8").replace("/tmp/nvflare", str(storage))
    settings = json.loads(text)
    settings["servers"][0].update(changes)
    (local / "resources.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


@cache
def ordinary() -> tuple[str, ...]:
    """What to put before a command so that an ordinary user runs it; nothing where this process is that already.

    Nothing either where no other user can run this interpreter, such as one below ``/root``.
    """
    setpriv = shutil.which("setpriv")
    if os.geteuid() or setpriv is None:
        return ()
    become = (setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    trial = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import monai_fedlora'], check=True)"
    tried = subprocess.run([*become, sys.executable, "-c", trial], cwd="/", capture_output=True, check=False)
    return become if tried.returncode == 0 else ()


def own(folder: Path) -> None:
    """Give a folder, and all in it, to the user of :func:`ordinary`."""
    if ordinary():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def waiting(seconds: float, what: str, *, pause: float = 0.2) -> Iterator[Iterator[None]]:
    """Yield an iterator for a loop that ends when something holds.

    Raises:
        TimeoutError: it did not hold for so long.
    """
    deadline = time.monotonic() + seconds

    def turns() -> Iterator[None]:
        while time.monotonic() < deadline:
            yield
            time.sleep(pause)
        raise TimeoutError(f"{what} did not come about in {seconds:g} s")

    yield turns()
