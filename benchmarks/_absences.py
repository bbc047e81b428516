"""What a run computes in which sites do not answer in some rounds, simulated on this machine without any fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.rounds import run_in_process


def answered(results: Mapping[str, Any]) -> list[set[str]]:
    """The sites whose answer counted, for every round of a record."""
    return [{site for site, said in entry["sites"].items() if "round" in said} for entry in results["rounds"]]


def simulated_with(answers: Sequence[set[str]], job: Path, *, folder: Path) -> Mapping[str, Any]:
    """Simulate a job of which in each round these sites alone answer.

    Args:
        answers: of :func:`answered`.
        job: its folder.
        folder: of the run, see :func:`monai_fedlora.federated.rounds.run_in_process`.

    Returns:
        The record of the simulation.
    """
    train = Site.train_round

    def in_time(self: Site, round_number: int, *args: Any, **more: Any) -> Any:
        if self.name not in answers[round_number]:
            raise OSError("it is not asked")
        return train(self, round_number, *args, **more)

    Site.train_round = in_time  # type: ignore[method-assign]
    try:
        return run_in_process(job, folder=folder, record_failures=True)
    finally:
        Site.train_round = train  # type: ignore[method-assign]
