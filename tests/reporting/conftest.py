"""A run of two rounds in this process, and a record written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.site_report import PERSONAL, SHARED
from tests.federated.conftest import Prepared, _one_thread, prepared
from tests.helpers import make_plan, through_json
from tests.rendering.reading import no_figures

__all__ = ["_one_thread", "no_figures", "prepared"]


@pytest.fixture(scope="session")
def finished(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two sites with a shared and a private adapter."""
    folder = tmp_path_factory.mktemp("finished")
    run_in_process(prepared.plan(), folder=folder, **prepared.places)
    return folder


def value() -> dict[str, Any]:
    """A record of two rounds at two sites, of which one was refused once."""

    def metrics(score: float) -> dict[str, Any]:
        return {
            "balanced_accuracy": score,
            "auroc": score,
            "ece": 0.125,
            "n": 8,
            "confusion_matrix": [[3, 1], [2, 2]],
        }

    def views(score: float) -> dict[str, Any]:
        return {PERSONAL: metrics(score), SHARED: metrics(0.5)}

    def answered(number: int, score: float) -> dict[str, Any]:
        numbers = {"round": number, "cases": 20, "train_loss": 0.75 - number / 4, "seconds": 2.0}
        return {**numbers, "validation": views(score), "bytes_sent": 1200 + number, "bytes_received": 3400}

    return through_json(
        {
            "format": 1,
            "version": "0.1.0",
            "plan": make_plan().to_json(),
            "payload_bytes": 1000,
            "status": "finished",
            "seconds": 12.5,
            "rounds": [
                {
                    "round": 0,
                    "score": 0.5,
                    "sites": {"north": answered(0, 0.5), "south": answered(0, 0.625)},
                    "agreement": {
                        "sites": ["north", "south"],
                        "norms": [0.5, 0.25],
                        "cosines": [[1.0, -0.375], [-0.375, 1.0]],
                    },
                    "limits": {"usual": None, "longest": None, "rounds": 0, "clipped": {}, "weights": {}},
                },
                {
                    "round": 1,
                    "score": 0.75,
                    "sites": {"north": answered(1, 0.75)},
                    "limits": {
                        "usual": 0.5,
                        "longest": 2.5,
                        "rounds": 1,
                        "clipped": {"north": {"length": 10.0, "kept": 0.25}},
                        "weights": {"north": {"claimed": 9000, "counted": 60}},
                    },
                },
            ],
            "final": {
                site: {"round": 2, "cases": 20, "seconds": 1.0, "validation": views(score), "test": views(score)}
                for site, score in (("north", 0.875), ("south", 0.625))
            },
            "refused": [{"round": 1, "site": "south", "reason": "the update changes parameters by 3 (rms), above 1"}],
        }
    )


def of_numbers() -> dict[str, Any]:
    """The record of a regression of two values, of which one site has too few test cases for a bias."""

    def metrics(bias: float) -> dict[str, Any]:
        ends = {"agreement_low_lv_ef": bias - 7, "agreement_high_lv_ef": bias + 7}
        return {"n": 8, "scaled_error": 0.5, "bias_lv_ef": bias, "bias_wall": None, **ends}

    changed = value()
    changed["plan"] |= {"task": "regression", "classes": ["lv_ef", "wall"]}
    few = {"n": 3, "scaled_error": 0.4, "bias_lv_ef": None, "bias_wall": None}
    for site, tests in (("north", (metrics(-2.0), metrics(1.0))), ("south", (few, few))):
        changed["final"][site]["test"] = dict(zip((PERSONAL, SHARED), tests, strict=True))
    return changed
