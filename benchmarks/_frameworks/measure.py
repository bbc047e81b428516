"""One measurement: a system does the work in processes of its own, and leaves numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from _frameworks.events import EVENTS, read, summary
from _frameworks.memory import MARK, Sampler, end_all
from _frameworks.systems import System
from _frameworks.work import OUTCOME_NAME, Work

_HERE = Path(__file__).resolve().parent.parent
_LOG = "log.txt"
_SHOWN_LINES = 30
"""Of the log of a run that failed."""


def measure(system: System, work: Work, *, python: str, timeout: float) -> dict[str, Any]:
    """Run a system and return seconds and bytes; one that fails leaves the reason under ``failed``.

    Everything that a run could find of an earlier one is in the work's own folder.

    Args:
        system: what to run.
        work: what it does.
        python: interpreter.
        timeout: seconds after which a run has failed.
    """
    folder, mark = Path(work.folder), uuid.uuid4().hex
    module, *arguments = system.command
    command = [python, "-m", f"_frameworks.{module}", *arguments, str(work.write())]
    environment = {
        **os.environ,
        EVENTS: str(folder / "events.jsonl"),
        MARK: mark,
        "MONAI_FEDLORA_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(_HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    log, started = folder / _LOG, time.time()
    with log.open("w", encoding="utf-8") as stream, Sampler(mark) as memory:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout)
            wall = time.time() - started
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_all(mark)
    if code != 0:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        reason = f"exit {code}" if code is not None else f"no end within {timeout:.0f} s"
        print("\n".join(lines[-_SHOWN_LINES:]), file=sys.stderr)
        return {"failed": f"{reason}: {lines[-1] if lines else 'no output'}"}
    outcome = json.loads((folder / OUTCOME_NAME).read_text(encoding="utf-8"))
    return {
        "wall_seconds": wall,
        **summary(read(folder / "events.jsonl"), epochs=work.epochs),
        "peak_bytes": memory.peak_bytes,
        "processes": memory.processes,
        **outcome,
    }


def imports(python: str, module: str) -> bool:
    """Whether an interpreter can import a module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
