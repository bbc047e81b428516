"""The run's written record: ``results.json`` with every round, site and refusal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.data.origin import together
from monai_fedlora.federated.installation import installed_versions
from monai_fedlora.federated.lock import in_use
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_budget import WITHHELD
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import INTERRUPTIONS, STATE_LOST, STOPPED, Reason, said_of
from monai_fedlora.federated.shortfalls import absences, shortfalls
from monai_fedlora.files import read_json, write_json
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import Report

RESULTS_NAME = "results.json"
LAST_NAME = "shared.safetensors"
BEST_NAME = "best_shared.safetensors"
FORMAT = 2
READABLE = (1, FORMAT)
"""Formats that are read; see :func:`monai_fedlora.site_report.current_views` for what earlier ones say otherwise."""
FINISHED, INCOMPLETE, RUNNING, INTERRUPTED = "finished", "incomplete", "running", "interrupted"
ENDED = (FINISHED, INCOMPLETE)
"""States of a run that has come to its end."""
ATTEMPTS = ("refused", "repeated")
"""Entries of a record that stay of an attempt at a round which is made again."""
BEGINNING, TRAINING, FINAL, OVER = "beginning", "training", "final evaluation", "over"
"""Stages of a run."""
_LEAST_PAUSE = 0.5  # ours, seconds
_BYTES_PER_SECOND = 16_000  # ours


class RunRecord:
    """Collects what happened in a run and keeps ``<folder>/results.json`` readable all the time.

    The file holds ``plan``, ``manifest_digest``, ``payload_bytes``, ``versions`` (of the server's packages), ``ready``
    (what each site has said of itself, see :class:`Readiness`, and in words why it was not ready), ``status``,
    ``rounds`` (a list with, per site, the report and the bytes received from and sent to it, how the accepted changes
    agree, and what the limits on one site's part did), ``repeated`` (round, and why its answers did not count),
    ``final`` (per site), ``refused`` (round, site, and a :class:`Reason`'s code and text), ``restarted`` (round, site,
    code, and the rounds behind the state that it had, which each report has as ``restored_rounds``), ``training_data``
    (the ``kind`` of all images that have moved the shared tensors, that of each of the ``sites``, and what the run had
    to ``start`` from), ``lacks``: what the run has not done of what its plan asks for, and ``absent``: what is missing
    of sites that the plan allows to be missing, both in words. Under a budget for privacy ``withheld`` names
    what no report says. The ``stage`` is "beginning", "training", "final evaluation" or "over". The status is "running"
    until the run's end; then "finished", or "incomplete" where something is lacking (see :func:`shortfalls`), or
    "interrupted", and ``interrupted_by`` says by what.

    It is written whole, at the beginning of every round and at the end at once. In between it follows what happens
    after half a second, or after so much longer as keeps it to 16 kB a second: a few sites are seen at work one by one,
    and many sites over many rounds do not write gigabytes. What happened in that time is all that a killed run loses.

    Args:
        folder: receives the file.
        plan: the experiment.
        manifest: what may travel in it.
        images: kind of the images behind the tensors that the run starts from; None where a seed has drawn them.
    """

    def __init__(self, *, folder: Path, plan: Plan, manifest: Manifest, images: str | None = None) -> None:
        self.path = folder / RESULTS_NAME
        self._started = time.time()
        self._lock = threading.RLock()
        self._due = 0.0
        self._timer: threading.Timer | None = None
        self._images = [] if images is None else [images]
        self.value: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "plan": plan.to_json(),
            "manifest_digest": manifest.digest,
            "payload_bytes": manifest.up.nbytes,
            "training_data": {
                "kind": together(self._images),
                "sites": {},
                "start": plan.start.to_json() if plan.start else None,
            },
            "status": RUNNING,
            "stage": BEGINNING,
            "interrupted_by": None,
            "lacks": [],
            "absent": [],
            "versions": installed_versions(),
            "ready": {},
            "rounds": [],
            "repeated": [],
            "final": {},
            "refused": [],
            "restarted": [],
            **({"withheld": list(WITHHELD)} if plan.privacy is not None else {}),
        }

    def go_on(self, earlier: Mapping[str, Any], first: int) -> None:
        """Keep what an interrupted run has written of the rounds before ``first``; nothing of an empty record.

        Refusals, and attempts that did not count, stay of the round that was in flight as well, which begins again.
        """
        for name in ("rounds", "restarted"):
            self.value[name] = [entry for entry in earlier.get(name, ()) if entry["round"] < first]
        for name in ATTEMPTS:
            self.value[name] = list(earlier.get(name, ()))
        if self.value["rounds"]:
            self.value["training_data"] = earlier["training_data"]
            self._started -= earlier["seconds"]

    def begin_round(self, number: int) -> None:
        """Open a round; of an attempt at the same one that did not count, only the refusals stay."""
        with self._event(at_once=True):
            self.value["stage"] = TRAINING
            if self.value["rounds"] and self.value["rounds"][-1]["round"] == number:
                self.value["rounds"].pop()
            self.value["rounds"].append({"round": number, "sites": {}})

    def readiness(self, site: str, reason: Reason | None, said: Readiness | None = None) -> None:
        """Note whether a site could train when it was asked last.

        Args:
            site: that was asked.
            reason: why it could not; None if it could.
            said: what it has answered; None where nothing came that can be read.
        """
        with self._event():
            found = said.to_json() if said else {"codes": [reason.code] if reason else []}
            self.value["ready"][site] = {**found, **({"reason": reason.text} if reason else {})}

    def repeat(self, number: int, why: str) -> None:
        """Note that an attempt at a round does not count, and why."""
        with self._event(at_once=True):
            self.value["repeated"].append({"round": number, "reason": why})

    def begin_final(self) -> None:
        """Note that the last model is sent to all sites."""
        with self._event(at_once=True):
            self.value["stage"] = FINAL

    def contribution(self, site: str, report: Report, *, accepted: int | None = None) -> None:
        """Note an accepted update of the current round.

        Args:
            site: that sent it.
            report: beside it.
            accepted: the last round before in which an update of the site was accepted, -1 for none; None if unknown.
        """
        with self._event():
            self._note_restart(site, report, accepted)
            self.value["rounds"][-1]["sites"][site] = report.to_json()
            self._note_images(site, report)

    def _note_images(self, site: str, report: Report) -> None:
        """Add a site's kind of images to those that have moved the shared tensors."""
        said: dict[str, Any] = self.value["training_data"]
        kinds = {report.kind} | ({said["sites"][site]} if site in said["sites"] else set())
        said["sites"][site] = together(kinds)
        said["kind"] = together([*self._images, *said["sites"].values()])

    @property
    def images(self) -> str:
        """Kind of all images that have moved the shared tensors."""
        return str(self.value["training_data"]["kind"])

    def _note_restart(self, site: str, report: Report, accepted: int | None) -> None:
        """Note a site whose own state is gone, or older than what it had when it last answered."""
        had, number = report.restored_rounds, report.round or 0
        answered = [entry["round"] + 1 for entry in self.value["rounds"] if "round" in entry["sites"].get(site, {})]
        expected = max(answered, default=min(number, 1)) if accepted is None else accepted + 1
        if had is not None and had < expected:
            said = {"round": number, "site": site, "code": STATE_LOST, "restored_rounds": had}
            self.value["restarted"].append(said)

    def refusal(self, number: int, site: str, reason: Reason) -> None:
        """Note that a site's answer was left out of a round, and why."""
        with self._event():
            said = {"round": number, "site": site, "code": reason.code, "reason": reason.text}
            self.value["refused"].append(said)

    def agreement(self, value: Mapping[str, Any] | None) -> None:
        """Note how the accepted changes of the current round lie to each other, if anything can be said."""
        if value is not None:
            with self._event():
                self.value["rounds"][-1]["agreement"] = dict(value)

    def limits(self, value: Mapping[str, Any] | None) -> None:
        """Note what the limits on one site's part did to the current round, if anybody was accepted."""
        if value is not None:
            with self._event():
                self.value["rounds"][-1]["limits"] = dict(value)

    def end_round(self, *, score: float | None, traffic: Mapping[str, Mapping[str, int]]) -> None:
        """Close a round with the score of the model it started from and the bytes it moved, per site."""
        with self._event():
            current = self.value["rounds"][-1]
            current["score"] = score
            for site, counts in traffic.items():
                current["sites"].setdefault(site, {}).update(counts)

    def final(self, site: str, report: Report, *, accepted: int | None = None) -> None:
        """Note a site's evaluation of the last model; for ``accepted`` see :meth:`contribution`."""
        with self._event():
            self._note_restart(site, report, accepted)
            self.value["final"][site] = report.to_json()

    def finish(self) -> None:
        """Note that the run has come to its end, and what it lacks."""
        with self._event(at_once=True):
            self.value |= outcome(self.value)
            self.value["stage"] = OVER

    def interrupt(self, by: str) -> None:
        """Note what has ended the run before its time; nothing where it has come to its end, or has not begun.

        Args:
            by: one of :data:`monai_fedlora.federated.reasons.INTERRUPTIONS`.
        """
        if self.value["status"] == RUNNING and self.path.is_file():
            with self._event(at_once=True):
                self.value |= _ended(by)

    def flush(self) -> None:
        """Write what has not been written yet."""
        with self._lock:
            if self._timer is not None:
                self._write()

    @contextmanager
    def _event(self, *, at_once: bool = False) -> Iterator[None]:
        """Change the record, and write it now or when it is time."""
        with self._lock:
            yield
            wait = self._due - time.monotonic()
            if at_once or wait <= 0:
                self._write()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._write_later)
                self._timer.daemon = True
                self._timer.start()

    def _write_later(self) -> None:
        with suppress(OSError, ValueError):  # whoever next writes at once is told
            self.flush()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.value["seconds"] = round(time.time() - self._started, 3)
        write_json(self.path, self.value)
        self._due = time.monotonic() + max(_LEAST_PAUSE, self.path.stat().st_size / _BYTES_PER_SECOND)


def outcome(results: Mapping[str, Any]) -> dict[str, Any]:
    """The entries ``status``, ``lacks`` and ``absent`` of a run that has come to its end."""
    lacks = shortfalls(results)
    return {"status": INCOMPLETE if lacks else FINISHED, "lacks": lacks, "absent": absences(results)}


def mark_interrupted(path: Path, by: str = STOPPED) -> None:
    """Let a record that a killed process has left say so."""
    if path.is_file() and (value := read_json(path)).get("status") == RUNNING:
        write_json(path, {**value, **_ended(by)})


def as_it_is(results: Mapping[str, Any], *folders: Path) -> Mapping[str, Any]:
    """A record with the status "interrupted" in place of "running" where no process works in its folder any more.

    A process that is killed writes nothing.

    Args:
        results: the record.
        folders: in which its run may lie. Where none of them was ever locked, as those that NVFlare has downloaded, or
            none can be looked at, the record stays as it is.
    """
    held = {in_use(folder) for folder in folders}
    if results.get("status") == RUNNING and False in held and True not in held:
        return {**results, **_ended(STOPPED)}
    return results


def _ended(by: str) -> dict[str, str]:
    return {"status": INTERRUPTED, "interrupted_by": by}


def interruption_said(results: Mapping[str, Any]) -> str:
    """What has ended a run before its time, in words; empty where nothing has, or it is not known."""
    by = results.get("interrupted_by")
    if results.get("status") != INTERRUPTED or not isinstance(by, str):
        return ""
    return f"was interrupted ({by}): {INTERRUPTIONS.get(by, 'for a reason that this version does not know')}"


def withheld_said(results: Mapping[str, Any]) -> list[str]:
    """One line where sites have kept numbers to themselves."""
    if not results.get("withheld"):
        return []
    return [
        f"under the plan's budget no site says its {', '.join(results['withheld'])}: numbers without noise would tell "
        "about its patients; each site has them in its own private folder"
    ]


def restarts_said(results: Mapping[str, Any]) -> list[str]:
    """One line for every site that began a round without its state of the round before."""
    found = []
    for entry in results.get("restarted", []):
        had = entry["restored_rounds"]
        state = f"an older state of its own (after {had} rounds)" if had else "no state of its own"
        found.append(
            f"{entry['site']} began round {entry['round']} with {state}: its private part, optimiser and what it had "
            "not sent are not those of its last round; its private folder was lost, replaced, or is another one"
        )
    return found


def not_ready(results: Mapping[str, Any]) -> dict[str, str | None]:
    """Of every site that was asked whether it is ready, why it was not, with its code; None of one that was."""
    return {
        site: said_of({"reason": said.get("reason", "not ready"), "code": said["codes"][0]}) if said["codes"] else None
        for site, said in results.get("ready", {}).items()
    }


def unready_codes(results: Mapping[str, Any]) -> set[str]:
    """The codes of all sites that were not ready when they were asked."""
    return {code for said in results.get("ready", {}).values() for code in said["codes"]}


def differences_said(results: Mapping[str, Any]) -> list[str]:
    """One line for every site whose packages or bundle are not those of most ends."""
    bundles = [said["bundle"] for said in results.get("ready", {}).values() if "bundle" in said]
    usual = max(sorted(set(bundles)), key=bundles.count, default="")
    found, server = [], results.get("versions", {})
    for site, said in results.get("ready", {}).items():
        others = [
            f"{name} {version} (the server {server[name]})"
            for name, version in said.get("versions", {}).items()
            if server.get(name, version) != version
        ]
        if said.get("bundle", usual) != usual:
            others.append("another bundle than most sites")
        if others:
            found.append(f"{site} computes with {', '.join(others)}: the bits are not those of equal ends")
    return found
