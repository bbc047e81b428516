"""When a followed job has come to its end, or will not come to one by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_fedlora.federated.reasons import said_of
from monai_fedlora.federated.run_record import ENDED, not_ready
from monai_fedlora.federated.server_link import UNKNOWN, Seen

_GRACE = 15.0  # ours, seconds in which a site starts the process of a job, or ends it with the job
_CLOSING = 60.0  # ours, seconds after the process of a job until NVFlare has written how it ended


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a job is followed no longer.

    Attributes:
        reason: in words.
        ended: whether the run has come to its end, so that nothing is left to do.
        sites: those that it failed by, as far as can be seen.
    """

    reason: str
    ended: bool = False
    sites: Sequence[str] = ()


class Watch:
    """Judges one job, look by look.

    Args:
        sites: those that the job was sent to.
        silence: seconds without a sign of life after which a site counts as gone.
        patience: seconds without anything new from the run after which it is given up.
        excluding: whether a job that cannot begin without a site is given up, since the next may do without it.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        sites: Sequence[str],
        silence: float,
        patience: float,
        excluding: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._excluding = excluding
        self._sites, self._silence, self._patience, self._clock = sites, silence, patience, clock
        self._server: str | None = None
        self._since: dict[str, float] = {}
        self._progress: tuple[Any, ...] = ()
        self._absent: tuple[str, ...] = ()
        self._ran = False

    def judge(self, seen: Seen) -> Verdict | None:
        """What the last look says; None to go on looking."""
        self._server = self._server or seen.server
        self._ran = self._ran or seen.running
        if seen.results.get("status") in ENDED:
            return Verdict(reason="the run has come to its end", ended=True)
        if seen.status == UNKNOWN:
            return Verdict(reason="the server knows the job no more: its jobs were removed, by hand or by a restart")
        if seen.ended:
            return Verdict(reason=f"NVFlare ended the job: {seen.status}", sites=self._absent)
        if not seen.running:
            return self._without_process(seen)
        self._since.pop("server", None)
        absent = [site for site in self._sites if self._lasts(f"absent {site}", _at_work(seen, site) is False) > _GRACE]
        self._absent = tuple(site for site in self._sites if _at_work(seen, site) is False)
        if absent:
            reason = f"{_names(absent)} no longer part in the job: the process or the host there was ended"
            return Verdict(reason=reason, sites=absent)
        waited = self.waited(seen)
        if waited > self._silence and (gone := self.gone(seen)):
            return Verdict(reason=f"nothing was heard of {', '.join(gone)} for {self._silence:.0f} s", sites=gone)
        if waited > self._patience:
            return Verdict(reason=f"nothing new came for {waited:.0f} s", sites=self.awaited(seen.results))
        return None

    def _without_process(self, seen: Seen) -> Verdict | None:
        """What follows from a job that the server does not compute, and that NVFlare does not call ended."""
        if not self._ran and seen.status == "SUBMITTED":
            waited, gone = self._lasts("submitted", True), self.gone(seen)
            if self._excluding and waited > self._silence and gone:
                return Verdict(reason=f"the job cannot begin without {', '.join(gone)}", sites=gone)
            return None
        if seen.server != self._server:
            return Verdict(reason="the server was started anew, and does not run the job any more")
        if self._lasts("server", True) > _CLOSING:
            return Verdict(reason="the server does not run the job any more, and does not say how it ended")
        return None

    def gone(self, seen: Seen) -> list[str]:
        """Sites that have not been connected, or not been heard of, for too long."""
        return [site for site in self._sites if self._silent(seen, site) > self._silence]

    def _silent(self, seen: Seen, site: str) -> float:
        missing = self._lasts(f"missing {site}", site not in seen.sites)
        return seen.sites[site].silent if site in seen.sites else missing

    def in_words(self, seen: Seen) -> str:
        """How far the job is, whom it waits for, and what to do about it."""
        gone = [site for site in self._sites if site not in seen.sites or site in self.gone(seen)]
        advice = f"; {', '.join(gone)}: not connected, see whether NVFlare's kit runs there" if gone else ""
        if not seen.running:
            waits = seen.status == "SUBMITTED"
            return f"the job {'waits for its sites' if waits else 'has no process at the server'}{advice}"
        rounds = seen.results.get("rounds", ())
        if not rounds and (ready := not_ready(seen.results)):
            silent = [site for site in self._sites if site not in ready]
            parts = [
                "sites are asked whether they are ready",
                *([f"waiting for {', '.join(silent)}"] if silent else []),
                *(f"not ready {site}: {why}" for site, why in ready.items() if why),
            ]
            return "; ".join(parts) + advice
        if not rounds:
            return f"the job begins or ends: its process at the server tells of no round{advice}"
        plan, current = seen.results["plan"], rounds[-1]
        refused = [
            f"{entry['site']}: {said_of(entry)}"
            for entry in seen.results["refused"]
            if entry["round"] == current["round"]
        ]
        awaited = self.awaited(seen.results)
        where = f"round {current['round'] + 1} of {plan.get('start_round', 0) + plan['rounds']}"
        parts = [
            "the final evaluation" if "score" in current else where,
            *([f"waiting for {', '.join(awaited)}"] if awaited else []),
            *(f"refused {line}" for line in refused),
        ]
        return "; ".join(parts) + advice

    def waited(self, seen: Seen) -> float:
        """Seconds since the run's record was another one."""
        results = seen.results
        said = [sorted(entry["sites"]) for entry in results.get("rounds", ())]
        heard = (len(results.get("ready", ())), sorted(results.get("final", ())), len(results.get("refused", ())))
        progress = (said, *heard, seen.status)
        if progress != self._progress:
            self._progress = progress
            self._since.pop("progress", None)
        return self._lasts("progress", True)

    def awaited(self, results: Mapping[str, Any]) -> list[str]:
        """Sites whose answer to the current round, or to the final evaluation, has not arrived."""
        rounds = results.get("rounds", ())
        if not rounds:
            return []
        current = rounds[-1]
        refused = {entry["site"] for entry in results["refused"] if entry["round"] == current["round"]}
        ended = "score" in current
        answered = results["final"] if ended else [site for site, said in current["sites"].items() if "round" in said]
        return [site for site in self._sites if site not in answered and site not in refused]

    def _lasts(self, what: str, holds: bool) -> float:
        """Seconds for which something has held without a break."""
        if not holds:
            self._since.pop(what, None)
            return 0.0
        now = self._clock()
        return now - self._since.setdefault(what, now)


def _at_work(seen: Seen, site: str) -> bool | None:
    return seen.sites[site].at_work if site in seen.sites else None


def _names(sites: Sequence[str]) -> str:
    return f"{', '.join(sites)} {'takes' if len(sites) == 1 else 'take'}"
