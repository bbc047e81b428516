"""The benchmark of membership deals lesions apart, and counts pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _membership import centres
from sklearn.metrics import roc_auc_score

from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME
from monai_fedlora.files import read_json
from tests.benchmarks.test_command_lines import loaded


def centre(site: str, lesions: int) -> Datalist:
    """Every lesion has two photographs."""
    cases = tuple(
        Case(
            subject=f"{site} {n}{letter}", label=n % 2, group="NV", unit=f"{site} lesion {n}", image=f"{n}{letter}.jpg"
        )
        for n in range(lesions)
        for letter in "ab"
    )
    return Datalist(
        site=site, dataset="skin", task="binary", classes=("benign", "other"), image_root=Path("/"), seed=0,
        training=cases[::2], validation=cases[1::2],
    )  # fmt: skip


def test_members_and_others_are_lesions_of_one_centre_that_is_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, seen = [centre("large", 40), centre("small", 35)], []
    monkeypatch.setattr(centres, "read_prepared", lambda _: full)
    monkeypatch.setattr(centres, "_read", lambda _, cases, __: seen.append(cases) or torch.zeros(len(cases)))
    found = centres.deal(tmp_path, tmp_path, cases=10, seed=0, size="vit_demo")
    assert set(found) == {"large"}
    listed = read_json(tmp_path / "large" / FILE_NAME)
    trains = [case["unit"] for case in listed["training"]]
    asked = [case.unit for case in seen[0]]
    assert asked[:10] == trains and found["large"].member.tolist() == [True] * 10 + [False] * 10
    held = [case["unit"] for split in ("training", "validation", "test") for case in listed[split]]
    assert len(set(asked)) == 20 and not set(asked[10:]) & set(held)


def test_the_area_counts_pairs_and_half_of_ties() -> None:
    module, random = loaded("membership"), np.random.default_rng(0)
    members, others = random.integers(0, 5, 30) + 1.0, random.integers(0, 5, 40) + 0.0
    expected = roc_auc_score([1] * 30 + [0] * 40, [*members, *others])
    assert module.auroc_of(members, others) == pytest.approx(expected)
    cells = [{"a": {"loss": {"members": members.tolist(), "others": others.tolist()}}}] * 2
    row = module.figures(cells, draws=200)["loss"]
    assert row["each"] == [round(expected, 3)] * 2
    assert row["interval_95"][0] < row["auc"] < row["interval_95"][1]
