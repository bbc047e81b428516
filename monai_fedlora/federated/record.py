"""The run's written record: ``results.json`` with every round, site and refusal, rewritten after each event."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import write_json
from monai_fedlora.scope import Manifest

RESULTS_NAME = "results.json"
LAST_NAME = "shared.safetensors"
BEST_NAME = "best_shared.safetensors"
FORMAT = 1


class RunRecord:
    """Collects what happened in a run and keeps ``<folder>/results.json`` up to date.

    The file holds ``plan``, ``manifest_digest``, ``payload_bytes``, ``status`` ("running" or "finished"),
    ``rounds`` (a list with, per site, the report and the bytes received from and sent to it, and how the accepted
    changes agree), ``final`` (per site) and ``refused`` (round, site, reason).
    """

    def __init__(self, *, folder: Path, plan: Plan, manifest: Manifest) -> None:
        self.path = folder / RESULTS_NAME
        self._started = time.time()
        self.value: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "plan": plan.to_json(),
            "manifest_digest": manifest.digest,
            "payload_bytes": manifest.up.nbytes,
            "status": "running",
            "rounds": [],
            "final": {},
            "refused": [],
        }

    def begin_round(self, number: int) -> None:
        """Open a round."""
        self.value["rounds"].append({"round": number, "sites": {}})
        self._write()

    def contribution(self, site: str, report: Mapping[str, Any]) -> None:
        """Note an accepted update of the current round."""
        self.value["rounds"][-1]["sites"][site] = dict(report)
        self._write()

    def refusal(self, number: int, site: str, reason: str) -> None:
        """Note that a site's answer was left out of a round, and why."""
        self.value["refused"].append({"round": number, "site": site, "reason": reason})
        self._write()

    def agreement(self, value: Mapping[str, Any] | None) -> None:
        """Note how the accepted changes of the current round lie to each other, if anything can be said."""
        if value is not None:
            self.value["rounds"][-1]["agreement"] = dict(value)
            self._write()

    def end_round(self, *, score: float | None, traffic: Mapping[str, Mapping[str, int]]) -> None:
        """Close a round with the score of the model it started from and the bytes it moved, per site."""
        current = self.value["rounds"][-1]
        current["score"] = score
        for site, counts in traffic.items():
            current["sites"].setdefault(site, {}).update(counts)
        self._write()

    def final(self, site: str, report: Mapping[str, Any]) -> None:
        """Note a site's evaluation of the last model."""
        self.value["final"][site] = dict(report)
        self._write()

    def finish(self) -> None:
        """Mark the run as complete."""
        self.value["status"] = "finished"
        self._write()

    def _write(self) -> None:
        self.value["seconds"] = round(time.time() - self._started, 3)
        write_json(self.path, self.value)
