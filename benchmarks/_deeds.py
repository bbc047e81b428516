"""What happens to a provisioned federation in the middle of a run: functions that do it and undo what a host undoes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _federation import SERVER, Federation, own, waiting
from _poison import ENDING, HUGE, UNDECODABLE
from _supervised import Supervised

from monai_fedlora.data.site import CACHE
from monai_fedlora.federated.reasons import LATE

VICTIM = "west"
SECOND = "second"


def site_job(federation: Federation, run: Supervised) -> None:
    """A site's process of the job is ended with kill -9."""
    federation.send(VICTIM, signal.SIGKILL, jobs_only=True)


def site_host(federation: Federation, run: Supervised) -> None:
    """All processes of a site are ended with kill -9; 30 seconds later its host is back."""
    federation.send(VICTIM, signal.SIGKILL)
    time.sleep(30)
    federation.start(VICTIM)


def server_job(federation: Federation, run: Supervised) -> None:
    """The server's process of the job is ended with kill -9."""
    federation.send(SERVER, signal.SIGKILL, jobs_only=True)


def server(federation: Federation, run: Supervised) -> None:
    """All processes of the server are ended with kill -9; 5 seconds later it is back."""
    federation.send(SERVER, signal.SIGKILL)
    time.sleep(5)
    federation.start(SERVER)


def supervisor(federation: Federation, run: Supervised) -> None:
    """The supervisor is ended with kill -9; 5 seconds later the same command is given again."""
    run.process.kill()
    run.process.wait()
    time.sleep(5)
    run.start()


def stopped(federation: Federation, run: Supervised) -> None:
    """All processes of a site stand still for 60 seconds."""
    federation.send(VICTIM, signal.SIGSTOP)
    time.sleep(60)
    federation.send(VICTIM, signal.SIGCONT)


def read_only(federation: Federation, run: Supervised) -> None:
    """A site's private folder is read-only for 40 seconds."""
    place = federation.private(VICTIM)
    for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
        folder.chmod(0o500)
    time.sleep(40)
    for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
        folder.chmod(0o700)


def worker(federation: Federation, run: Supervised) -> None:
    """A site's process that trains is ended with kill -9."""
    _each(training(federation), signal.SIGKILL)


def worker_stopped(federation: Federation, run: Supervised) -> None:
    """A site's process that trains stands still for 60 seconds."""
    found = training(federation)
    _each(found, signal.SIGSTOP)
    time.sleep(60)
    _each(found, signal.SIGCONT)


def never_back(federation: Federation, run: Supervised) -> None:
    """All processes of a site are ended with kill -9, and its host never comes back."""
    federation.send(VICTIM, signal.SIGKILL)


def never_starts(federation: Federation, run: Supervised) -> None:
    """A site never starts."""


def images_removed(federation: Federation, run: Supervised) -> None:
    """A site's images are removed, and what was computed from them."""
    shutil.rmtree(_images(federation), ignore_errors=True)  # the site may write there meanwhile


def disk_full(federation: Federation, run: Supervised) -> None:
    """The disk of a site's private folder is full for 40 seconds."""
    ballast = federation.private(VICTIM) / "ballast"
    with suppress(OSError), open(ballast, "wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    time.sleep(40)
    ballast.unlink()


def cut(federation: Federation, run: Supervised) -> None:
    """The network of a site is cut for 60 seconds."""
    assert federation.line is not None
    federation.line.cut()
    time.sleep(60)
    federation.line.mend()


def slow(federation: Federation, run: Supervised) -> None:
    """A site's training gets a fiftieth of its time until an answer of it was late."""

    def late() -> bool:
        return any(entry["code"] == LATE for entry in run.results().get("refused", ()))

    def slow_down() -> None:
        while run.process.poll() is None and not late():
            found = federation.trainings(VICTIM)
            _each(found, signal.SIGSTOP)
            time.sleep(2.45)
            _each(found, signal.SIGCONT)
            time.sleep(0.05)

    threading.Thread(target=slow_down, daemon=True).start()


def undisturbed(federation: Federation, run: Supervised) -> None:
    """Nothing happens."""


def undecodable(federation: Federation, run: Supervised) -> None:
    """A site's answers cannot be decoded from then on."""
    _poisoned(federation, UNDECODABLE)


def huge(federation: Federation, run: Supervised) -> None:
    """A site's answers are 256 megabytes longer than any answer to the job from then on."""
    _poisoned(federation, HUGE)


def ending(federation: Federation, run: Supervised) -> None:
    """A site answers with a code for which NVFlare ends jobs from then on."""
    _poisoned(federation, ENDING)


def second_run(federation: Federation, run: Supervised) -> None:
    """Another experiment of the same sites is run as well."""
    run.second = run.beside(SECOND)


def same_run(federation: Federation, run: Supervised) -> None:
    """The same experiment is run once more, with another folder for its results."""
    run.second = run.beside(None)


def kills(federation: Federation, run: Supervised) -> None:
    """After every one to four rounds a process is killed: one that trains, or a job's at a site or the server."""

    def kill() -> None:
        drawn = random.Random(2026)  # nosec: what is killed when
        while run.process.poll() is None:
            with suppress(TimeoutError), waiting(900, "the next rounds") as turns:
                goal = run.rounds() + drawn.randint(1, 4)
                next(turn for turn in turns if run.process.poll() is not None or run.rounds() >= goal)
            victim = drawn.choice(federation.sites)
            what = drawn.choice(("trains", "site", "server"))
            time.sleep(drawn.uniform(0, 3))
            run.killed[what] = run.killed.get(what, 0) + 1
            if what == "trains":
                _each(federation.trainings(victim), signal.SIGKILL)
            else:
                federation.send(victim if what == "site" else SERVER, signal.SIGKILL, jobs_only=True)

    threading.Thread(target=kill, daemon=True).start()


def training(federation: Federation) -> list[psutil.Process]:
    """The victim's processes that train, as soon as there are some."""
    with waiting(120, "a process that trains") as turns:
        return next(found for _ in turns if (found := federation.trainings(VICTIM)))


def _each(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _poisoned(federation: Federation, how: str) -> None:
    place = _poison(federation)
    place.write_text(how, encoding="utf-8")
    own(place)


def _poison(federation: Federation) -> Path:
    return federation.folder / "poison"


def _images(federation: Federation) -> Path:
    return federation.folder / "images"


@dataclass(frozen=True)
class Fault:
    """A fault, and the federation that meets it.

    Attributes:
        deed: what happens in the third round; its docstring says so.
        job: further settings of the job.
        options: further ones of `monai-fedlora run`.
        behind_a_line: whether the victim reaches the server over a line that can be cut.
        small_disk: whether the victim's private folder has a disk of its own; needs a user who may mount one.
        own_images: whether the victim has images of its own, in a folder that nobody else reads.
        absent: whether the victim never starts.
        poison: whether the victim has a component of its own that can spoil its answers.
        rounds_late: time limit of a round in rounds of an undisturbed run, as a multiple; None for no limit.
        rounds: of the job, in place of the usual number.
        least: rounds that are over before it happens.
        seconds: until the run has to be over.
    """

    deed: Callable[[Federation, Supervised], None]
    job: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    behind_a_line: bool = False
    small_disk: bool = False
    own_images: bool = False
    absent: bool = False
    poison: bool = False
    rounds_late: int | None = None
    rounds: int | None = None
    least: int = 3
    seconds: int = 900

    def prepare(self, federation: Federation) -> Mapping[str, str]:
        """What has to be there before the victim starts; returns its environment."""
        if self.small_disk:
            place = federation.private(VICTIM)
            place.mkdir(mode=0o700, parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=700", "faults", str(place)], check=True)
            own(place)
        if self.own_images:
            shutil.copytree(federation.environment[CACHE], _images(federation))
            own(_images(federation))
            return {CACHE: str(_images(federation))}
        if self.poison:
            component = {"id": "poison", "path": "_poison.Poison", "args": {"place": str(_poison(federation))}}
            local = federation.kit(VICTIM) / "local"
            scope = {"name": "own", "properties": {}, "task_result_filters": [], "task_data_filters": []}
            policy = {"scopes": [scope], "default_scope": "own", "components": [component]}
            (local / "privacy.json").write_text(json.dumps(policy), encoding="utf-8")
            own(local)
            before = os.environ.get("PYTHONPATH")
            return {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])}
        return {}

    def clear(self, federation: Federation) -> None:
        """Undo what :meth:`prepare` has done outside of the federation's folder."""
        if self.small_disk:
            subprocess.run(["umount", str(federation.private(VICTIM))], check=True)


ALL = {"min_sites": 3}
TWO = {"min_sites": 2}
FAULTS = {
    fault.deed.__name__: fault
    for fault in (
        Fault(undisturbed),
        Fault(worker, job=ALL),
        Fault(site_job),
        Fault(server_job),
        Fault(supervisor),
        Fault(server),
        Fault(site_host),
        Fault(never_back, job=TWO, options=("--exclude-after", "1")),
        Fault(never_starts, job=TWO, absent=True),
        Fault(stopped),
        Fault(worker_stopped),
        Fault(cut, behind_a_line=True),
        Fault(read_only, job=ALL),
        Fault(disk_full, job=ALL, small_disk=True),
        Fault(images_removed, job=TWO, own_images=True),
        Fault(slow, job=TWO, rounds_late=3),
        Fault(undecodable, job=TWO, poison=True),
        Fault(huge, job=TWO, poison=True),
        Fault(ending, job=TWO, poison=True),
        Fault(second_run, rounds=40),
        Fault(same_run, rounds=40),
        Fault(kills, job=ALL, rounds=20, least=1, seconds=3000),
    )
}
