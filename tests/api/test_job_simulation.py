"""What a simulated job has come to is told by its result, without a look into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai_fedlora as fl


def simulated(**answers: Any) -> fl.Simulated:
    plan = {"experiment": "trial", "sites": ["north", "south"], "rounds": 1}
    tests = {"north": {"test": {"personal": {"balanced_accuracy": 0.75, "auroc": None, "n": 4}}}}
    record = {"plan": plan, "seconds": 2.0, "rounds": [{"sites": answers}] * 2, "final": tests}
    return fl.Simulated(results={**record, "refused": [], "lacks": ["x"]}, workspace=Path("w"))


def test_traffic_is_the_sum_over_rounds_where_it_was_counted() -> None:
    run = simulated(north={"bytes_sent": 3000, "bytes_received": 500}, south={})
    assert run.traffic == {"north": (6000, 1000), "south": (0, 0)}
    assert simulated(north={"train_loss": 0.5}).traffic == {}


def test_the_table_is_text_with_a_row_for_every_site() -> None:
    lines = str(simulated().table()).splitlines()
    assert lines[0] == "trial: test split after 1 round (2 s)"
    assert [line.split() for line in lines[2:]] == [
        *(["north", "4", "0.750"], ["south"], ["mean", "0.750"]),
        ["of", "sites", "1", "0", "0", "0", "0"],
    ]


def test_a_record_without_notes_says_nothing_more() -> None:
    run = simulated()
    assert (run.lacks, run.refused, run.notes, run.images, run.error) == (["x"], [], [], None, "")
    assert run.path == Path("w") / "results.json"
