"""What the metadata of an exported bundle say of its training images is whole and does not contradict itself."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.check.metadata import training_data_problems


def changed(exported: Exported, **changes: Any) -> dict[str, Any]:
    return {**exported.metadata, "training_data": {**exported.metadata["training_data"], **changes}}


def test_what_an_export_writes_passes_and_so_does_an_older_bundle(exported: Exported) -> None:
    assert list(training_data_problems(exported.metadata)) == []
    older = {k: v for k, v in exported.metadata.items() if k not in ("training_data", "personal_or_shared")}
    assert list(training_data_problems(older)) == []


def test_entry_that_was_taken_out_is_missed(exported: Exported) -> None:
    without = {key: value for key, value in exported.metadata.items() if key != "training_data"}
    (found,) = training_data_problems(without)
    assert "missing" in found.problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parts": {"site": "real", "shared": "mixed", "start": None}}, "call the images real, and their parts"),
        ({"parts": {"site": "synthetic", "shared": "synthetic", "start": None}}, "call the images real"),
        ({"kind": "synthetic"}, "call the images synthetic"),
        ({"name": "phantom-site-1"}, "name of this package's phantoms"),
        (
            {
                "parts": {
                    "site": "real",
                    "shared": "real",
                    "start": {"kind": "synthetic", "name": "trial", "source": None},
                }
            },
            "call the images real",
        ),
        ({"kind": "reel"}, "not what an export writes"),
        ({"parts": {}}, "not what an export writes"),
        ({"parts": None}, "not what an export writes"),
        ({"backbone": {"name": "b", "kind": "good"}}, "not what an export writes"),
        ({"backbone": []}, "not what an export writes"),
    ],
)
def test_lie_that_can_be_seen_is_found(exported: Exported, changes: dict[str, Any], problem: str) -> None:
    assert any(problem in found.problem for found in training_data_problems(changed(exported, **changes)))
