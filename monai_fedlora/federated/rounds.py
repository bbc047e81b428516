"""A federation inside one process: the same sites and the same averaging, without NVFlare's messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.interrupted import MATERIALS, interrupted
from monai_fedlora.federated.job_files import CONFIG
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.materials import Installed, Source
from monai_fedlora.federated.members import Members
from monai_fedlora.federated.participation import TRIES, NotReady, TooFewAnswers
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import ANSWER_REFUSED, NOT_READY, STOPPED, TOO_FEW, Reason
from monai_fedlora.federated.run_record import RunRecord
from monai_fedlora.federated.seen_rounds import SeenRound, SeenRounds
from monai_fedlora.federated.server_state import NEVER
from monai_fedlora.federated.simulator import last_error
from monai_fedlora.federated.site_policy import Policy, own_policy
from monai_fedlora.federated.start import SharedFiles, Start
from monai_fedlora.federated.workspace import PRIVATE, make_room
from monai_fedlora.files import make_folder, write_text

_log = logging.getLogger(__name__)


def run_in_process(
    what: Plan | Path,
    *,
    folder: Path,
    data_root: str | None = None,
    backbone: str | None = None,
    threads: int = 1,
    overwrite: bool = False,
    record_failures: bool = False,
    keep_answers: bool = False,
    policy: Callable[[], Policy] = own_policy,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Mapping[str, Any]:
    """Run all rounds of a plan and the final evaluation, one site after the other, on one frozen backbone.

    A site that has answered keeps what it needs for the next task where it would after its process ended, so that many
    sites take little more memory than one. After every round ``shared.safetensors`` is what a later run can go on from.

    Args:
        what: the experiment, which then begins at its seed; or a job folder, which says what it begins with.
        folder: receives ``results.json``, ``shared.safetensors``, ``best_shared.safetensors`` and ``private/``.
        data_root: folder of prepared sites; None generates the phantom.
        backbone: path of the backbone file; None uses each site's own configuration.
        threads: that torch computes with on the CPU. The bits of the result depend on it, so that it is one, as in
            NVFlare's simulator, unless somebody asks for more.
        overwrite: replace the results of another run, see :func:`make_room`.
        record_failures: go on without a site whose task fails, as NVFlare does: the failure is one of ``refused``, its
            traceback is in ``private/errors.log``, and the site begins its next task as after a restart. Otherwise the
            error ends the run.
        keep_answers: keep what the server sees in every round among the private parts, to measure what it tells, see
            :class:`monai_fedlora.federated.seen_rounds.SeenRounds`.
        policy: returns the limits of every site, see :class:`Site`.
        on_progress: called with the content of ``results.json`` whenever a site has answered.

    Returns:
        The content of ``results.json``. Its status is "finished", or "incomplete" if updates were refused so that a
        round or a site went without any.

    Raises:
        ConfigError, PrivacyError, WeightsError: see :class:`Start`; or the folder holds the results of another run.
        PolicyError: a policy does not allow the plan.
        Busy: another run writes into the folder.
        NotReady: too few sites can begin, before any of them has trained.
        TooFewAnswers: a round did not count, see :class:`monai_fedlora.federated.participation.Participation`.
        FedLoraError, or whatever else a site's task raises: see ``record_failures``.
    """
    if isinstance(what, Plan):
        start = Start.of_plan(what, backbone=backbone)
    else:
        start = Start.of_job(what / CONFIG, backbone=backbone)
    return run_sites(
        start,
        Installed(data_root=data_root, backbone=backbone),
        folder=folder,
        threads=threads,
        overwrite=overwrite,
        record_failures=record_failures,
        keep_answers=keep_answers,
        policy=policy,
        on_progress=on_progress,
    )


def run_sites(
    start: Start,
    source: Source,
    *,
    folder: Path,
    threads: int = 1,
    overwrite: bool = False,
    resume: bool = False,
    materials: str = "",
    record_failures: bool = False,
    keep_answers: bool = False,
    policy: Callable[[], Policy] = own_policy,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Mapping[str, Any]:
    """Run what has a beginning, see :func:`run_in_process`, which has the other arguments.

    Args:
        start: of the run.
        source: of every site's data and network.
        resume: go on with the same run, if one was interrupted in ``folder``; the record of its earlier rounds stays.
            One that has come to its end is returned as it is.
        materials: hash of the data and of the network's code, which stays in ``folder``. A run is gone on with only
            if its own was the same; empty where they may change, which is so for the commands.

    Raises:
        ConfigError: see :func:`run_in_process` and :func:`interrupted`.
    """
    with _computing_with(threads):
        make_folder(folder)
        with FolderLock(folder):
            found = interrupted(folder, start, materials) if resume else None
            if found is None:
                make_room(folder, start.plan, overwrite=overwrite, from_python=bool(materials))
            elif found.ended:
                return found.results
            else:
                start = found.start
                _log.info("going on in %s with round %d", folder, start.first_round)
            private = folder / PRIVATE
            if materials:
                write_text(folder / MATERIALS, materials)
            build = partial(Site, plan=start.plan, private_root=private, source=source, policy=policy, alone=False)
            members = Members(
                start.plan.sites,
                build,
                private=private,
                record_failures=record_failures,
                budget=start.plan.privacy is not None,
            )
            seen = SeenRounds(private=private, plan=start.plan) if keep_answers else None
            earlier = found.results if found else {}
            return _run(start, members, folder=folder, earlier=earlier, seen=seen, on_progress=on_progress)


def _run(
    start: Start,
    members: Members,
    *,
    folder: Path,
    earlier: Mapping[str, Any],
    seen: SeenRounds | None,
    on_progress: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    plan, manifest, shared = start.plan, start.manifest, start.shared
    record = RunRecord(folder=folder, plan=plan, manifest=manifest, images=start.images)
    record.go_on(earlier, start.first_round)
    files = SharedFiles(folder=folder, start=start)
    average = SharedAverage.of(plan, manifest, earlier=start.earlier, moments=start.moments, accepted=start.accepted)
    try:
        reasons = members.begin()
        for name, reason in reasons.items():
            record.readiness(name, reason)
        if not plan.participation.can_begin(reasons):
            record.interrupt(NOT_READY)
            raise NotReady(reasons, last_error(folder))
        for number in range(start.first_round, plan.start_round + plan.rounds):
            _collect(number, shared, plan, members, average, record, on_progress)
            record.agreement(average.agreement())
            record.limits(average.limits())
            if seen is not None:
                seen.save(number, SeenRound(shared, {site: each.tensors for site, each in average.updates.items()}))
            shared = average.aggregate()
            record.end_round(score=average.score(plan.task_of.key), traffic={})
            record.flush()
            files.save(
                shared,
                round_number=number,
                score=average.score(plan.task_of.key),
                lengths=average.lengths,
                moments=average.moments,
                accepted=average.accepted,
                images=record.images,
            )
        record.begin_final()
        for name in plan.sites:
            accepted = average.accepted.get(name, NEVER)
            report = members.ask(name, partial(Site.finish, shared=shared, images=record.images, accepted=accepted))
            if isinstance(report, Reason):
                record.refusal(plan.start_round + plan.rounds - 1, name, report)
            else:
                record.final(name, report, accepted=accepted)
            on_progress(record.value)
        record.finish()
    finally:
        record.interrupt(STOPPED)
        record.flush()
        members.release()
    return record.value


def _collect(
    number: int,
    shared: Mapping[str, Any],
    plan: Plan,
    members: Members,
    average: SharedAverage,
    record: RunRecord,
    on_progress: Callable[[Mapping[str, Any]], None],
) -> None:
    """Ask the sites for a round, and again while too few of their answers count.

    Raises:
        TooFewAnswers: no attempt counted.
    """
    participation = plan.counting
    for attempt in range(TRIES):
        record.begin_round(number)
        average.begin(number, shared)
        for name in participation.asked(plan.sites, seed=plan.seed, number=number, attempt=attempt):
            accepted = average.last_accepted(name)
            task = partial(Site.train_round, round_number=number, shared=shared, accepted=accepted)
            update = members.ask(name, task)
            if isinstance(update, Reason):
                record.refusal(number, name, update)
            else:
                try:
                    average.accept(name, update)
                    record.contribution(name, update.report, accepted=accepted)
                except Refusal as error:
                    record.refusal(number, name, Reason(ANSWER_REFUSED, str(error)))
            on_progress(record.value)
        if not (lacks := participation.lacks(average.updates)):
            return
        record.repeat(number, lacks)
    record.interrupt(TOO_FEW)
    raise TooFewAnswers(number, lacks, [entry for entry in record.value["refused"] if entry["round"] == number])


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """Set the number of torch's CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
