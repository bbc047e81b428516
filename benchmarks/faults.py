"""Faults in a provisioned federation under `monai-fedlora run`: when they are noticed, what is lost, and the bits.

A server and three sites on loopback, with certificates and mutual TLS, each end a process of an ordinary user. Every
fault meets a run of its own, in its third round if nothing else is said; nobody acts but for what starts ended hosts
again on any real machine. The bits are compared with those of a simulation in which the same answers counted. Rows of
faults that are not named stay as they are.

    python benchmarks/faults.py --faults site_job,server_job
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _absences import answered, simulated_with
from _deeds import FAULTS, SECOND, VICTIM
from _federation import SERVER, Federation, ordinary, own, waiting
from _machine import machine
from _policy import allow_small_sites
from _supervised import Supervised

from monai_fedlora.api.job_simulation import simulate
from monai_fedlora.api.written_job import write_job
from monai_fedlora.data.site import CACHE
from monai_fedlora.federated.continued import stored_round
from monai_fedlora.federated.run_record import ENDED
from monai_fedlora.files import load_tensors, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "faults.json"
SITES = ("north", "south", VICTIM)
NAME = "hearts"
UNDISTURBED = "undisturbed"
TRAINING = {"batch_size": 4, "learning_rate": 0.004, "warmup_epochs": 0}
_CODE = re.compile(rf"{VICTIM}: [^()]*\(([A-Z_]+)\)")
_GOES_ON = re.compile(r"(\d+) rounds are stored: job")


def run(settings: dict[str, Any], *, keep: Callable[[dict[str, Any]], None]) -> None:
    """Meet every fault; ``keep`` is given its row, and who the ends ran as, after each of them."""
    user = "an ordinary user" if ordinary() or os.geteuid() else "root"
    usual = settings["round_seconds"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        cache = place / "cache"
        cache.mkdir()
        os.environ[CACHE] = str(cache)
        write_job("dual_lora", output=place / NAME, sites=SITES, rounds=1, settings=TRAINING)
        simulate(place / NAME, workspace=place / "filling", in_process=True)
        own(cache)
        for fault in settings["faults"]:
            trial = place / fault
            trial.mkdir()
            row = met(fault, trial, cache, rounds=settings["rounds"], usual=usual)
            usual = row["round_seconds"] if fault == UNDISTURBED else usual
            keep({"user": user, "row": row})
            shutil.rmtree(trial, ignore_errors=True)


def met(name: str, place: Path, cache: Path, *, rounds: int, usual: float | None) -> dict[str, Any]:
    """One fault in a federation of its own, and what came of it.

    Args:
        name: of the fault.
        place: an empty folder.
        cache: where the sites' images lie.
        rounds: of the job, unless the fault needs a number of its own.
        usual: seconds of a round in a run that nobody disturbed, as the benchmark measures them.
    """
    fault, options = FAULTS[name], dict(FAULTS[name].job)
    if fault.rounds_late is not None:
        if usual is None:
            raise SystemExit(f"{name} needs the seconds of an undisturbed round: meet {UNDISTURBED} first")
        options["round_timeout"] = math.ceil(fault.rounds_late * usual)
    for folder, count in ((NAME, fault.rounds or rounds), (SECOND, rounds)):
        write_job("dual_lora", output=place / folder, sites=SITES, rounds=count, settings=TRAINING, **options)
    row: dict[str, Any] = {"fault": name, "what": fault.deed.__doc__, "job": options}
    environment = {CACHE: str(cache)}
    behind = VICTIM if fault.behind_a_line else None
    with Federation(place / "federation", sites=SITES, environment=environment, behind=behind) as federation:
        try:
            own_environment = fault.prepare(federation)
            for end in (SERVER, *SITES):
                if not (fault.absent and end == VICTIM):
                    federation.start(end, **(own_environment if end == VICTIM else {}))
            supervised = Supervised(place / NAME, federation.admin, "--silence", "45", *fault.options)
            try:
                return row | _met(name, federation, supervised)
            except TimeoutError as error:
                return row | {"finished": False, "status": None, "said": str(error)}
            finally:
                supervised.process.kill()
                if supervised.second:
                    supervised.second.process.kill()
        finally:
            federation.stop()
            fault.clear(federation)


def _met(name: str, federation: Federation, supervised: Supervised) -> dict[str, Any]:
    fault = FAULTS[name]
    with waiting(600, "the rounds before") as turns:
        for _ in turns:
            if supervised.rounds() >= fault.least:
                break
    begun, accepted = time.monotonic(), rounds_at(federation)
    print(f"  {name}", flush=True)
    fault.deed(federation, supervised)
    runs = [supervised, *([supervised.second] if supervised.second else [])]
    with waiting(fault.seconds, "the end") as turns:
        for _ in turns:
            if all(run.process.poll() is not None for run in runs):
                break
    ended = time.monotonic()
    results = supervised.results()
    said = " ".join(line for moment, line in supervised.lines if moment >= begun)
    gone_on = [int(match[1]) for _, line in supervised.lines if (match := _GOES_ON.match(line))]
    refused = {entry["code"] for entry in results.get("refused", ()) if entry["site"] == VICTIM}
    row = {
        "finished": results.get("status") == "finished",
        "status": results.get("status"),
        "seconds_until_noticed": supervised.noticed(begun),
        "longest_silence": supervised.longest_silence(begun),
        "seconds_until_the_end": ended - begun,
        "round_seconds": supervised.round_seconds(),
        "jobs": 1 + len(gone_on),
        "accepted_rounds_lost": max(0, accepted - gone_on[0]) if gone_on else 0,
        "codes": sorted({*_CODE.findall(said), *refused}),
        "rounds_without": [number for number, names in enumerate(answered(results)) if VICTIM not in names],
        **_bits(NAME, results, supervised.folder, federation),
    }
    if supervised.killed:
        row["killed"] = supervised.killed
    if (second := supervised.second) is not None:
        found, said = second.results(), " ".join(line for _, line in second.lines)
        row["second"] = {"status": found.get("status"), "codes": sorted(set(_CODE.findall(said)))}
        if found.get("status") == "finished":
            row["second"] |= _bits(second.job.name, found, second.folder, federation)
    return row


def _bits(name: str, results: Mapping[str, Any], folder: Path, federation: Federation) -> dict[str, bool]:
    """Whether a run has the bits of a simulation in which the same answers counted."""
    job, reference = folder.with_name(name), folder.with_name(f"{name}-simulated")
    if results.get("status") not in ENDED:
        return {"bits_equal": False, "personal_bits_equal": False}
    simulated_with(answered(results), job, folder=reference)
    return {
        "bits_equal": equal(folder / "shared.safetensors", reference / "shared.safetensors"),
        "personal_bits_equal": all(
            equal(
                federation.private(site) / name / site / "final.safetensors",
                reference / "private" / name / site / "final.safetensors",
            )
            for site in results["final"]
        ),
    }


def rounds_at(federation: Federation) -> int:
    """Rounds that the server has accepted so far, from its own disk."""
    stored = list(federation.kit(SERVER).glob("*/shared.safetensors"))
    return stored_round(stored[0]) + 1 if stored else 0


def equal(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, to the bit."""
    if not (one.is_file() and other.is_file()):
        return False
    (first, _), (second, _) = load_tensors(one), load_tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of the documentation's table."""
    lines = []
    for row in rows:
        asked = ", ".join(f"`--{key.replace('_', '-')} {value}`" for key, value in row["job"].items())
        what = row["what"].rstrip(".") + (f" ({asked})" if asked else "")
        if row["status"] is None:
            lines.append(f"| {what} | - | - | - | - | no end: {row.get('said', 'it left no record')} | - |")
            continue
        noticed = row["seconds_until_noticed"]
        status = str(row["status"])
        bits = row["bits_equal"] and row["personal_bits_equal"]
        if "killed" in row:
            status += f", after {sum(row['killed'].values())} kills"
        if "second" in row:
            second = row["second"]
            status += f"; the other {second['status']}" + "".join(f", `{code}`" for code in second["codes"])
            bits = bits and second.get("bits_equal", True) and second.get("personal_bits_equal", True)
        cells = (
            what,
            "-" if noticed is None else f"{noticed:.0f} s",
            f"{row['longest_silence']:.0f} s",
            str(row["jobs"] - 1),
            ", ".join(f"`{code}`" for code in row["codes"]) or "-",
            status,
            "equal" if bits else "others",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def names(text: str) -> list[str]:
    """Names of faults between commas."""
    if unknown := set(text.split(",")) - set(FAULTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(FAULTS)}")
    return text.split(",")


def main() -> None:
    """Run from the command line; a run that is stopped has written the faults that it has met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=names, default=",".join(FAULTS), help="names between commas (default: all)")
    parser.add_argument("--rounds", type=int, default=6)
    settings = vars(parser.parse_args())
    allow_small_sites()
    rows = {row["fault"]: row for row in (read_json(RESULTS)["rows"] if RESULTS.exists() else ())}
    usual = rows.get(UNDISTURBED, {}).get("round_seconds")

    def keep(found: dict[str, Any]) -> None:
        rows[found["row"]["fault"]] = found["row"] | {"user": found["user"]}
        there = [name for name in FAULTS if name in rows]
        result = {"settings": {**settings, "faults": there}, "machine": machine(), "rows": [rows[one] for one in there]}
        write_json(RESULTS, result)
        print({key: value for key, value in found["row"].items() if key != "what"}, flush=True)
        print(f"written to {RESULTS.name}", flush=True)

    run({**settings, "round_seconds": usual}, keep=keep)


if __name__ == "__main__":
    main()
