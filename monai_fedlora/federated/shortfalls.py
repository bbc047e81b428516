"""What a run has not done: of what its plan asks for, and of what the plan allows it to do without."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from monai_fedlora.federated.participation import Participation


def learnt(results: Mapping[str, Any]) -> bool:
    """Whether any answer of any site counted in any round."""
    return any(map(_counted, results["rounds"]))


def shortfalls(results: Mapping[str, Any]) -> list[str]:
    """What a finished run lacks of what its plan asks for, in words.

    Listed are: that no update of any site was ever accepted; rounds without an accepted update; sites without one in
    any round; sites without an evaluation of the last model, which therefore have no personal model. A site that was
    left out of some rounds only is not listed here but under ``refused``. A plan with ``min_sites`` asks for so many
    sites and those that it requires; what is missing of others is no shortfall, see :func:`absences`.
    """
    spared = _spared(results)
    return [*_of_all(results), *(said for site, said in _of_sites(results) if site not in spared)]


def absences(results: Mapping[str, Any]) -> list[str]:
    """What is missing of sites that the plan allows a run to do without, in words: as of :func:`shortfalls`."""
    spared = _spared(results)
    return [said for site, said in _of_sites(results) if site in spared]


def absences_said(results: Mapping[str, Any]) -> list[str]:
    """One line where a run did without sites, as its plan allows; none for records that do not tell."""
    said = results.get("absent") or ()
    return [f"as the plan allows, the run did without some of its sites: {'; '.join(map(str, said))}"] if said else []


def _of_all(results: Mapping[str, Any]) -> Iterator[str]:
    if _final_alone(results):
        return
    if not learnt(results):
        yield "no answer of any site counted: nothing was learnt, and the shared tensors are those of the start"
    elif silent := [str(entry["round"] + 1) for entry in results["rounds"] if not _counted(entry)]:
        yield f"no answer counted in round {', '.join(silent)}"


def _of_sites(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each site that is missing somewhere, with what is missing of it."""
    sites = results["plan"]["sites"]
    if learnt(results) and not _final_alone(results):
        heard = {site for entry in results["rounds"] for site in _counted(entry)}
        yield from ((site, f"no answer of {site} ever counted") for site in sites if site not in heard)
    for site in sites:
        if site not in results["final"]:
            yield site, f"{site} has no evaluation of the last model"


def _spared(results: Mapping[str, Any]) -> Collection[str]:
    """Sites that the plan allows to be missing; none where so many are that the last model does not count."""
    plan = results["plan"]
    participation = Participation.from_json(plan.get("participation", {}))
    if participation.min_sites is None or participation.lacks(results["final"]):
        return ()
    return set(plan["sites"]) - set(participation.required_sites)


def _final_alone(results: Mapping[str, Any]) -> bool:
    """Whether the final evaluation was repeated, and nothing else asked for."""
    return results["plan"].get("start_round", 0) > 0 and not results["plan"]["rounds"]


def _counted(entry: Mapping[str, Any]) -> list[str]:
    """Sites whose answer counted in a round."""
    return [site for site, said in entry["sites"].items() if "round" in said]
