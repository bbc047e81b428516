"""What the server saw is kept where it was asked for, for its owner alone, and goes with its run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.api.job_simulation import simulate
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.federated.run_record import RESULTS_NAME
from monai_fedlora.federated.seen_rounds import SEEN, SeenRound, SeenRounds
from monai_fedlora.federated.workspace import PRIVATE, make_room
from monai_fedlora.files import save_tensors, write_json
from tests.helpers import make_plan

PLAN = make_plan()


def seen(value: float) -> SeenRound:
    sent = {"layer.weight": np.full((2, 3), value, np.float16), "head.bias": np.zeros(2, np.float16)}
    return SeenRound(sent, {"north": {key: array + 1 for key, array in sent.items()}})


def test_rounds_come_back_as_they_were_and_a_round_done_again_removes_later_ones(tmp_path: Path) -> None:
    kept = SeenRounds(private=tmp_path, plan=PLAN)
    assert kept.load() == {}
    for number in range(3):
        kept.save(number, seen(number))
    found = kept.load()
    assert list(found) == [0, 1, 2]
    for key, array in seen(1).answers["north"].items():
        np.testing.assert_array_equal(found[1].answers["north"][key], array)
        assert found[1].answers["north"][key].dtype == np.float16
    np.testing.assert_array_equal(found[2].sent["layer.weight"], seen(2).sent["layer.weight"])
    kept.save(1, seen(9))
    assert list(kept.load()) == [0, 1]


def test_they_are_their_owner_s_alone(tmp_path: Path) -> None:
    kept = SeenRounds(private=tmp_path / "private", plan=PLAN)
    kept.save(0, seen(0))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (kept.folder, *kept.folder.iterdir()))


def test_rounds_of_another_run_and_damaged_ones_are_refused_by_name(tmp_path: Path) -> None:
    SeenRounds(private=tmp_path, plan=PLAN).save(0, seen(0))
    other = SeenRounds(private=tmp_path, plan=make_plan(seed=1, method_args={"rank": 2}))
    with pytest.raises(WeightsError, match=r"seen-00000\.safetensors was kept by another experiment"):
        other.load()
    path = tmp_path / PLAN.experiment / SEEN / "seen-00001.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="seen-00001"):
        SeenRounds(private=tmp_path, plan=PLAN).load()
    save_tensors(path, {}, {"fingerprint": PLAN.fingerprint})
    assert SeenRounds(private=tmp_path, plan=PLAN).load()[1] == SeenRound({}, {})


def test_overwriting_a_run_removes_what_its_server_saw(tmp_path: Path) -> None:
    kept = SeenRounds(private=tmp_path / PRIVATE, plan=PLAN)
    kept.save(0, seen(0))
    write_json(tmp_path / RESULTS_NAME, {"plan": PLAN.to_json(), "status": "finished"})
    make_room(tmp_path, PLAN, overwrite=True)
    assert not kept.folder.exists()


def test_nothing_but_a_run_in_this_process_keeps_answers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --in-process"):
        simulate("dual_lora", workspace=tmp_path / "W", keep_answers=True)
