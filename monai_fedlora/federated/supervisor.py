"""Brings a federation's run to its end over jobs that fail, servers that restart and sites that come back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.continued import (
    brings_custom_folder,
    check_unedited,
    continued_job,
    same_job,
    stored_round,
)
from monai_fedlora.federated.job_files import CONFIG, PLAN_NAME
from monai_fedlora.federated.participation import NotReady
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import BUSY, GAVE_UP, NOT_READY
from monai_fedlora.federated.run_record import (
    ATTEMPTS,
    ENDED,
    INTERRUPTED,
    LAST_NAME,
    RESULTS_NAME,
    RUNNING,
    interruption_said,
    mark_interrupted,
    not_ready,
    unready_codes,
)
from monai_fedlora.federated.server_link import NotRunning, Seen, ServerLink, Unanswered, Unreachable
from monai_fedlora.federated.supervision import Supervision, joined
from monai_fedlora.federated.watch import Verdict, Watch
from monai_fedlora.files import make_folder, read_json, sha256, write_json

JOBS = "jobs"
"""Where the jobs lie as they were submitted."""
_NO_ANSWER = (Unreachable, Unanswered)
_PAUSE = 1.0  # ours, seconds between looks
_REMINDER = 30.0  # ours, seconds after which what is waited for is said again
_ENDING = 40.0  # ours, seconds in which a job that was told to end has ended


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a supervisor waits, and how often it tries.

    Args:
        tries: jobs in a row that store no new round before it gives up (ours: 5).
        exclude_after: jobs that fail by a site before it is left out; None never leaves one out.
        silence: seconds without a sign of life after which a site counts as gone (ours: 60).
        patience: seconds without anything new from the run after which the job is ended and gone on with (ours: 3600).

    Raises:
        ConfigError: one is out of range.
    """

    tries: int = 5
    exclude_after: int | None = None
    silence: float = 60.0
    patience: float = 3600.0

    def __post_init__(self) -> None:
        for name, least in (("tries", 1), ("exclude_after", 1), ("silence", 10), ("patience", 10)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigError(f"{name} is {value!r}; it must be at least {least}")


class Supervisor:
    """Submits a job, follows it, and goes on from the last stored round whenever it ends before its time.

    Args:
        job: folder of the first job.
        folder: of the run: receives the record, the shared tensors and the supervisor's own state.
        link: to the server.
        limits: of its patience.
        say: called with a line whenever something happens, and every half a minute while nothing does.
    """

    def __init__(
        self, *, job: Path, folder: Path, link: ServerLink, limits: Limits, say: Callable[[str], None]
    ) -> None:
        self._job, self._folder, self._link, self._limits, self._say = job, folder, link, limits, say
        self._plan = Plan.load(job / CONFIG / PLAN_NAME)
        self._fetched: int | None = None
        self._complete = False
        self._said = ""
        self._spoken = 0.0

    def run(self) -> Mapping[str, Any]:
        """Bring the run to its end and return its record.

        Raises:
            FedLoraError: so many jobs in a row brought no new round; the message says what to do.
            Unreachable: the server does not answer to the very first submission.
        """
        try:
            return self._run(self._begun())
        except FedLoraError:
            mark_interrupted(self._folder / RESULTS_NAME, GAVE_UP)
            raise

    def _run(self, state: Supervision) -> Mapping[str, Any]:
        while True:
            state = self._submitted(state, patient=True)
            verdict = self._follow(state)
            complete = verdict.ended and self._complete
            if not complete:
                self._tell(verdict.reason)
                complete = self._end(state, by_itself=verdict.ended)
            record = self._record()
            if interrupted := interruption_said(record):
                self._tell(f"the job {interrupted}")
            if record.get("status") in ENDED and complete:
                self._tell("the run has come to its end")
                return record
            if record.get("status") in ENDED:
                self._tell("its last tensors have not come, and the server gives them away no more")
            state = self._next(state, verdict)

    def _begun(self) -> Supervision:
        """The state that lies in the folder, or that of a new run whose first job was submitted.

        Raises:
            ConfigError: something else lies there.
        """
        make_folder(self._folder)
        state, digest = Supervision.load(self._folder), sha256(self._job / CONFIG / PLAN_NAME)
        if state is None and (self._folder / RESULTS_NAME).exists():
            raise ConfigError(f"{self._folder} holds the results of another run; give another --workspace")
        if state is not None and state.plan_sha256 != digest:
            raise ConfigError(
                f"{self._folder} holds the run of another job than {self._job}; give another --workspace, or that job"
            )
        if state is not None:
            return state
        check_unedited(self._job)
        state = Supervision(plan_sha256=digest, job=str(self._place_of(1)))
        shutil.rmtree(state.job, ignore_errors=True)  # of a supervisor that was ended before it had submitted it
        same_job(self._job, Path(state.job), follower=state.follower)
        return self._submitted(state, patient=False)

    def _place_of(self, number: int) -> Path:
        """The folder of a job of this run."""
        return (self._folder / JOBS / f"{self._plan.experiment}-{number}").resolve()

    def _submitted(self, state: Supervision, *, patient: bool) -> Supervision:
        """The state after the job was submitted, once, however often this is tried."""
        while state.job_id is None:
            state.save(self._folder)
            try:
                state = replace(state, job_id=self._link.submit(Path(state.job), token=state.token))
                state.save(self._folder)
                self._reopen()
                self._tell(f"submitted {Path(state.job).name} as {state.job_id}")
            except _NO_ANSWER as error:
                if not patient:
                    raise
                self._wait_for_server(error)
        return state

    def _follow(self, state: Supervision) -> Verdict:
        """Look at a job until there is nothing more to see."""
        sites = [site for site in self._plan.sites if site not in state.left_out]
        limits, excluding = self._limits, self._limits.exclude_after is not None
        watch = Watch(sites=sites, silence=limits.silence, patience=limits.patience, excluding=excluding)
        assert state.job_id is not None
        self._fetched, self._complete = None, False
        while True:
            try:
                seen = self._link.look(state.job_id, key=state.key)
                self._keep(state, seen)
            except _NO_ANSWER as error:
                self._wait_for_server(error)
                continue
            if (verdict := watch.judge(seen)) is not None:
                return verdict
            self._tell(watch.in_words(seen), again=_REMINDER)
            time.sleep(_PAUSE)

    def _wait_for_server(self, error: Exception) -> None:
        self._tell(f"{error}; it is asked again until it does: see whether the server runs", again=_REMINDER)
        time.sleep(_PAUSE)

    def _keep(self, state: Supervision, seen: Seen) -> None:
        """Bring what is new to this side."""
        if seen.stored is not None and seen.stored != self._fetched:
            with suppress(NotRunning, Unanswered):
                self._link.fetch(str(state.job_id), self._folder, key=state.key)
                self._fetched = seen.stored
        self._complete = seen.stored is None or seen.stored == self._fetched
        self._write(state, seen.results)

    def _end(self, state: Supervision, *, by_itself: bool) -> bool:
        """End a job, and bring what it has left where NVFlare gives it away; False where it does not.

        Args:
            state: that knows the job.
            by_itself: whether its run has come to its end, so that NVFlare ends it without being told.
        """
        job_id = str(state.job_id)
        deadline, told = time.monotonic() + _ENDING, by_itself
        while time.monotonic() < deadline:
            try:
                seen = self._link.look(job_id, key=state.key)
                if seen.ended:
                    left = self._link.download(job_id, self._folder)
                    self._write(state, left)
                    return bool(left)
                if not told:
                    self._link.abort(job_id)
                    told = True
                    if not seen.running and seen.status != "SUBMITTED":  # NVFlare has lost it, and will not say more
                        return False
            except _NO_ANSWER as error:
                self._wait_for_server(error)
                deadline = time.monotonic() + _ENDING
            time.sleep(_PAUSE)
        return False

    def _next(self, state: Supervision, verdict: Verdict) -> Supervision:
        """Write the job that goes on, and the state that knows it.

        Raises:
            FedLoraError: there were too many in a row, sites are not ready and none may be left out, or the job cannot
                be written.
        """
        record = self._record()
        if record.get("interrupted_by") == NOT_READY:
            verdict = Verdict(reason=verdict.reason, sites=[site for site, why in not_ready(record).items() if why])
        stored = self._folder / LAST_NAME
        number = stored_round(stored) if stored.is_file() else None
        tries = state.tries + 1 if number == state.stored else 1
        if tries > self._limits.tries:
            replace(state, tries=0).save(self._folder)
            raise FedLoraError(
                f"{self._limits.tries} jobs in a row have stored no new round; the last one ended because "
                f"{verdict.reason}. Mend that, with errors.log and log.txt of the sites and the server's log.txt, and "
                f"give the same command again: what is stored in {self._folder} is gone on from"
            )
        failures = {**state.failures, **{site: state.failures.get(site, 0) + 1 for site in verdict.sites}}
        left_out = self._left_out(state.left_out, failures)
        count = state.number + 1
        output = self._place_of(count)
        shutil.rmtree(output, ignore_errors=True)  # of a supervisor that was ended before it had noted it
        if number is None:
            same_job(self._job, output, without=left_out, follower=state.follower)
            said = f"no round is stored: the job begins again, as job {count}"
        else:
            more: dict[str, Any] = {"without": left_out, "custom_folder": brings_custom_folder(self._job)}
            plan = continued_job(stored, output, follower=state.follower, **more)
            last = plan.start_round + plan.rounds
            said = f"{number + 1} rounds are stored: job {count} goes on to round {last} of {last}"
        state = Supervision(
            plan_sha256=state.plan_sha256,
            key=state.key,
            job=str(output),
            number=count,
            tries=tries,
            seconds=float(record.get("seconds", 0.0)),
            stored=number,
            failures=failures,
            left_out=left_out,
            noted={name: record.get(name, []) for name in ATTEMPTS},
        )
        state.save(self._folder)
        waits = count > 2 and unready_codes(record) == {BUSY}  # by what an earlier job of this run has left there
        if record.get("interrupted_by") == NOT_READY and self._limits.exclude_after is None and not waits:
            raise NotReady(not_ready(record))
        self._tell(said)
        return state

    def _left_out(self, before: tuple[str, ...], failures: Mapping[str, int]) -> tuple[str, ...]:
        """The sites that the next job is not sent to."""
        most = self._limits.exclude_after
        worst = [] if most is None else [site for site in self._plan.sites if failures.get(site, 0) >= most]
        for site in worst:
            if site not in before:
                self._tell(
                    f"{site} is left out of the next jobs: {failures[site]} failed by it; to take it in again, mend "
                    "what is wrong there and begin a job with monai-fedlora resume"
                )
        return tuple(site for site in self._plan.sites if site in before or site in worst)

    def _record(self) -> dict[str, Any]:
        path = self._folder / RESULTS_NAME
        return dict(read_json(path)) if path.is_file() else {}

    def _reopen(self) -> None:
        """Let the record of earlier jobs say that the run goes on."""
        if (record := self._record()).get("status") in (INTERRUPTED, *ENDED):
            write_json(self._folder / RESULTS_NAME, {**record, "status": RUNNING, "interrupted_by": None})

    def _write(self, state: Supervision, results: Mapping[str, Any]) -> None:
        """Keep what the current job has written beside what earlier ones have."""
        record = self._record()
        more: dict[str, Any] = {"plan": self._plan, "seconds": state.seconds, "noted": state.noted}
        if results and (value := joined(record, results, **more)) != record:
            write_json(self._folder / RESULTS_NAME, value)

    def _tell(self, line: str, *, again: float | None = None) -> None:
        """Say a line; one that was said last is said again after so many seconds only."""
        now = time.monotonic()
        if line != self._said or (again is not None and now - self._spoken >= again):
            self._said, self._spoken = line, now
            self._say(line)
