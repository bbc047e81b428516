"""`monai-fedlora run` as a process of its own, and when it said what."""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from monai_fedlora.errors import FedLoraError
from monai_fedlora.files import read_json

_USUAL = re.compile(
    r"submitted |the job (waits|begins|has no process)|round \d+ of \d+(; waiting for [\w, ]+)?$|"
    r"the final evaluation(; waiting for [\w, ]+)?$"
)
_ROUND = re.compile(r"round (\d+) of \d+")
_END = "the run has come to its end"


class Supervised:
    """`monai-fedlora run` as a process, and when it said what.

    Args:
        job: folder of the job.
        kit: of the person who runs it.
        options: further ones.
        folder: of the run, in place of the usual one.

    Attributes:
        second: another run that was started beside it.
        killed: how many processes of each kind were ended while it ran.
    """

    def __init__(self, job: Path, kit: Path, *options: str, folder: Path | None = None) -> None:
        self.job, self._kit, self._options = job, kit, options
        self.second: Supervised | None = None
        self.killed: dict[str, int] = {}
        self._command = [sys.executable, "-u", "-m", "monai_fedlora.cli", "run", str(job), "--startup-kit", str(kit)]
        self._command += options
        self.folder = folder or job.with_name(f"{job.name}-run")
        self._command += ["--workspace", str(self.folder)]
        self.lines: list[tuple[float, str]] = []
        self.start()

    def beside(self, name: str | None) -> Supervised:
        """Start a run of the same job under another name, or of this very job, with a folder of its own."""
        job = self.job.with_name(name) if name else self.job
        return Supervised(job, self._kit, *self._options, folder=self.job.with_name(f"{name or 'again'}-run"))

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "999"},
        )
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append((time.monotonic(), line.rstrip().partition(" ")[2]))
            print("   ", line.rstrip(), flush=True)

    def results(self) -> dict[str, Any]:
        """The record so far."""
        try:
            return dict(read_json(self.folder / "results.json"))
        except FedLoraError:
            return {}

    def rounds(self) -> int:
        """Rounds that have begun."""
        return len(self.results().get("rounds", ()))

    def round_seconds(self) -> float:
        """Median of the seconds from the first line about a round to that about the next one."""
        begun: dict[str, float] = {}
        for moment, line in self.lines:
            if match := _ROUND.match(line):
                begun.setdefault(match[1], moment)
        return statistics.median(later - earlier for earlier, later in itertools.pairwise(begun.values()))

    def noticed(self, since: float) -> float | None:
        """Seconds from then until it said what an undisturbed run does not say, or repeated itself; None if never."""
        before = [line for moment, line in self.lines if moment < since]
        last = before[-1] if before else ""
        for moment, line in self.lines:
            if moment >= since:
                if line == _END:
                    break
                if line == last or not _USUAL.match(line):
                    return moment - since
                last = line
        return None

    def longest_silence(self, since: float) -> float:
        """The most seconds from one line to the next, from the last one before ``since`` on."""
        moments = [moment for moment, _ in self.lines if moment < since][-1:] or [since]
        moments += [moment for moment, _ in self.lines if moment >= since]
        return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)
