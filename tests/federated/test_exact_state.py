"""Whatever becomes of a site's answers, it goes on as if it had given those alone that were accepted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.files import load_tensors
from tests.federated.conftest import Prepared, same_bits

ACCEPTED, LATE, REPEATED, RESTARTED = "accepted", "late", "repeated", "restarted"
ROUNDS = 5


def final_of(
    fates: list[str], prepared: Prepared, root: Path, *, asked_in_vain: bool, wire: str = "float16"
) -> Mapping[str, np.ndarray]:
    """Train a site whose answers have these fates, and return its personal model.

    Args:
        fates: one for each round. A late answer is not accepted; a repeated round is asked for twice; a restarted site
            is another process with the same folder.
        prepared: the site's data.
        root: for private state.
        asked_in_vain: whether the rounds are asked for whose answers come too late.
        wire: type that travels.
    """
    plan = prepared.plan(rounds=ROUNDS, wire_dtype=wire)

    def build() -> Site:
        return Site(name="site-1", plan=plan, private_root=root, source=prepared.source)

    site, accepted, shared = build(), -1, build_shared(plan)[1]
    for number, fate in enumerate(fates):
        if fate == LATE and not asked_in_vain:
            continue
        update = site.train_round(number, shared, accepted=accepted)
        if fate == RESTARTED:
            site.store.release()
            site = build()
        if fate in (REPEATED, RESTARTED) and asked_in_vain:
            again = site.train_round(number, shared, accepted=accepted)
            assert same_bits(dict(again.tensors), dict(update.tensors))
            assert again.report == update.report
        assert len([*site.store.rounds(), *site.store.rounds("answered")]) <= 2
        if fate != LATE:
            accepted, shared = number, site.scope.manifest.up.open(update.tensors, shared)
            shared = {key: value.astype(np.float16) for key, value in shared.items()}
    report = site.finish(shared, accepted=accepted)
    assert site.finish(shared, accepted=accepted).test == report.test
    assert report.restored_rounds == accepted + 1
    site.store.release()
    return {key: value.numpy() for key, value in load_tensors(site.store.folder / "final.safetensors")[0].items()}


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["float16", "int8"])
def test_late_answers_leave_no_trace_and_repeated_rounds_change_nothing(
    wire: str, prepared: Prepared, tmp_path: Path
) -> None:
    """With int8 the changes that were not sent are part of the state."""
    fates = random.Random(wire).choices([ACCEPTED, LATE, REPEATED, RESTARTED], k=ROUNDS)
    fates[1], fates[3] = LATE, REPEATED
    disturbed = final_of(fates, prepared, tmp_path / "disturbed", asked_in_vain=True, wire=wire)
    plain = final_of(fates, prepared, tmp_path / "plain", asked_in_vain=False, wire=wire)
    assert same_bits(dict(disturbed), dict(plain))


def test_an_answer_that_was_late_in_the_first_round_is_forgotten(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan(rounds=3)
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    shared = build_shared(plan)[1]
    site.train_round(0, shared, accepted=-1)
    update = site.train_round(1, shared, accepted=-1)
    assert update.report.restored_rounds == 0
    assert (site.store.rounds(), site.store.rounds("answered")) == ([], [1])
    with pytest.raises(PrivacyError, match="it must be of an earlier one"):
        site.train_round(1, shared, accepted=1)
