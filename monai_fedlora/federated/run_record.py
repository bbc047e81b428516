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
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import write_json
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import Report

RESULTS_NAME = "results.json"
LAST_NAME = "shared.safetensors"
BEST_NAME = "best_shared.safetensors"
FORMAT = 2
READABLE = (1, FORMAT)
"""Formats that are read; see :func:`monai_fedlora.site_report.renamed_views` for what the first calls otherwise."""
FINISHED, INCOMPLETE, RUNNING = "finished", "incomplete", "running"
ENDED = (FINISHED, INCOMPLETE)
"""States of a run that has come to its end."""
_LEAST_PAUSE = 0.5  # ours, seconds
_BYTES_PER_SECOND = 16_000  # ours


class RunRecord:
    """Collects what happened in a run and keeps ``<folder>/results.json`` readable all the time.

    The file holds ``plan``, ``manifest_digest``, ``payload_bytes``, ``status``, ``rounds`` (a list with, per site, the
    report and the bytes received from and sent to it, how the accepted changes agree, and what the limits on one
    site's part did), ``final`` (per site), ``refused`` (round, site, reason), ``restarted`` (round, site, and the
    rounds behind the state that it had), ``training_data`` (the ``kind`` of all images that have moved the shared
    tensors, that of each of the ``sites``, and what the run had to ``start`` from) and ``lacks``: what the run has not
    done, in words. The status is "running"
    until the run's end, and for ever where that never came; then "finished", or "incomplete" where something is
    lacking (see :func:`shortfalls`).

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
            "lacks": [],
            "rounds": [],
            "final": {},
            "refused": [],
            "restarted": [],
        }

    def go_on(self, earlier: Mapping[str, Any], first: int) -> None:
        """Keep what an interrupted run has written of the rounds before ``first``; nothing of an empty record."""
        for name in ("rounds", "refused", "restarted"):
            self.value[name] = [entry for entry in earlier.get(name, ()) if entry["round"] < first]
        if self.value["rounds"]:
            self.value["training_data"] = earlier["training_data"]
            self._started -= earlier["seconds"]

    def begin_round(self, number: int) -> None:
        """Open a round."""
        with self._event(at_once=True):
            self.value["rounds"].append({"round": number, "sites": {}})

    def contribution(self, site: str, report: Report) -> None:
        """Note an accepted update of the current round."""
        with self._event():
            self._note_restart(site, report)
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

    def _note_restart(self, site: str, report: Report) -> None:
        """Note a site whose own state is gone, or older than what it had when it last answered."""
        had, number = report.restored_rounds, report.round or 0
        answered = [entry["round"] + 1 for entry in self.value["rounds"] if "round" in entry["sites"].get(site, {})]
        if had is not None and ((number and not had) or had < max(answered, default=0)):
            self.value["restarted"].append({"round": number, "site": site, "restored_rounds": had})

    def refusal(self, number: int, site: str, reason: str) -> None:
        """Note that a site's answer was left out of a round, and why."""
        with self._event():
            self.value["refused"].append({"round": number, "site": site, "reason": reason})

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

    def final(self, site: str, report: Report) -> None:
        """Note a site's evaluation of the last model."""
        with self._event():
            self._note_restart(site, report)
            self.value["final"][site] = report.to_json()

    def finish(self) -> None:
        """Note that the run has come to its end, and what it lacks."""
        with self._event(at_once=True):
            self.value["lacks"] = shortfalls(self.value)
            self.value["status"] = INCOMPLETE if self.value["lacks"] else FINISHED

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


def learnt(results: Mapping[str, Any]) -> bool:
    """Whether any answer of any site counted in any round."""
    return any("round" in said for entry in results["rounds"] for said in entry["sites"].values())


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


def shortfalls(results: Mapping[str, Any]) -> list[str]:
    """What a finished run lacks, in words.

    Listed are: that no update of any site was ever accepted; rounds without an accepted update; sites without one in
    any round; sites without an evaluation of the last model, which therefore have no personal model. A site that was
    left out of some rounds only is not listed here but under ``refused``.
    """
    sites = results["plan"]["sites"]
    heard = {
        entry["round"]: {s for s, said in entry["sites"].items() if "round" in said} for entry in results["rounds"]
    }
    if not learnt(results):
        found = ["no answer of any site counted: nothing was learnt, and the shared tensors are those of the start"]
    else:
        silent = [str(number + 1) for number, names in heard.items() if not names]
        found = [f"no answer counted in round {', '.join(silent)}"] if silent else []
        found += [
            f"no answer of {site} ever counted" for site in sites if not any(site in each for each in heard.values())
        ]
    return found + [f"{site} has no evaluation of the last model" for site in sites if site not in results["final"]]
