"""What a site stores comes back to the bit, belongs to one experiment and site, and survives a crash."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora import files
from monai_fedlora.errors import PrivacyError, WeightsError
from monai_fedlora.federated import site_state as state_module
from monai_fedlora.federated.site_state import FINAL_NAME, NOISE_KEY, KeptAnswer, SiteState, SiteStore
from monai_fedlora.files import load_tensors, save_tensors, sha256
from tests.helpers import make_plan


def make_state(number: int, **changes: Any) -> SiteState:
    generator = torch.Generator().manual_seed(number)
    settings: dict[str, Any] = {
        "round": number,
        "epoch": 2 * number,
        "private": {
            "encoder.blocks.1.attn.q.lora_A.private.weight": torch.randn(3, 4, generator=generator),
            "half": torch.randn(5, generator=generator).half(),
        },
        "optimiser": {
            "head.weight/exp_avg": torch.randn(2, 2, generator=generator),
            "head.weight/step": torch.tensor(7.0),
            "count/step": torch.tensor(2**40 + number),
        },
        "residual": {"encoder.blocks.1.attn.q.lora_A.shared.weight": torch.randn(4, 3, generator=generator)},
    }
    return SiteState(**{**settings, **changes})


def make_store(root: Path, site: str = "north", **changes: Any) -> SiteStore:
    return SiteStore(root=root, plan=make_plan(**changes), site=site)


ANSWER = KeptAnswer(sent="0" * 64, after=None, tensors={}, report={})


def save(store: SiteStore, state: SiteState) -> None:
    """Save the state of a round whose answer is accepted."""
    store.save(state, ANSWER)
    store.settle(state.round, state.round + 1)


def load(store: SiteStore, number: int) -> SiteState | None:
    """Load as a site does whose server takes every answer for accepted."""
    store.settle(None, number)
    return store.load_before(number)


def same(one: SiteState | None, other: SiteState) -> bool:
    return (
        one is not None
        and (one.round, one.epoch) == (other.round, other.epoch)
        and all(
            mine.keys() == theirs.keys()
            and all(mine[k].dtype == theirs[k].dtype and torch.equal(mine[k], theirs[k]) for k in mine)
            for mine, theirs in (
                (one.private, other.private),
                (one.optimiser, other.optimiser),
                (one.residual, other.residual),
            )
        )
    )


def path_of(store: SiteStore, number: int) -> Path:
    return store.folder / f"round-{number:05d}.safetensors"


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    save(store, make_state(3))
    assert same(load(store, 4), make_state(3))
    assert same(load(make_store(tmp_path), 100), make_state(3))


def test_a_residual_that_an_earlier_version_stored_is_read(tmp_path: Path) -> None:
    store, state = make_store(tmp_path), make_state(3)
    save(store, state)
    tensors, metadata = load_tensors(path_of(store, 3))
    earlier = {re.sub("^residual/", "left_over/", key): value for key, value in tensors.items()}
    assert earlier.keys() != tensors.keys()
    save_tensors(path_of(store, 3), earlier, metadata)
    assert same(load(store, 4), state)


def test_a_state_without_tensors_comes_back(tmp_path: Path) -> None:
    store, nothing = make_store(tmp_path), make_state(0, private={}, optimiser={}, residual={})
    save(store, nothing)
    assert same(load(store, 1), nothing)


def test_a_view_into_a_larger_tensor_is_stored_as_what_it_shows(tmp_path: Path) -> None:
    store, whole = make_store(tmp_path), torch.arange(12.0).reshape(3, 4)
    save(store, make_state(0, private={"t": whole.T, "row": whole[1]}))
    loaded = load(store, 1)
    assert loaded is not None
    assert torch.equal(loaded.private["t"], whole.T)
    assert torch.equal(loaded.private["row"], whole[1])


def test_a_new_site_has_no_state(tmp_path: Path) -> None:
    assert load(make_store(tmp_path), 0) is None
    assert load(make_store(tmp_path), 5) is None


def test_an_answer_and_the_last_accepted_round_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number in range(5):
        store.settle(number - 1, number)
        store.save(make_state(number), ANSWER)
        assert store.rounds() == [number - 1][: number > 0]
        assert store.rounds("answered") == [number]
    assert same(store.load_before(4), make_state(3))
    assert same(load(store, 5), make_state(4))


@pytest.mark.slow
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_only_accepted_rounds_are_gone_on_from(tmp_path_factory: Any, accepted: list[bool]) -> None:
    """Some answers come too late; every next round begins with the state of the last one that did not."""
    store, last = make_store(tmp_path_factory.mktemp("store")), -1
    for number, in_time in enumerate(accepted):
        store.settle(last, number)
        found = store.load_before(last + 1)
        assert same(found, make_state(last)) if last >= 0 else found is None
        assert store.rounds("answered") == []
        store.save(make_state(number), ANSWER)
        last = number if in_time else last


def test_a_repeated_round_replaces_its_state(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    for epoch in (1, 99):
        store.settle(0, 1)
        store.save(make_state(1, epoch=epoch), ANSWER)
    assert (store.rounds(), store.rounds("answered")) == ([0], [1])
    store.settle(1, 2)
    assert same(store.load_before(2), make_state(1, epoch=99))
    assert store.rounds() == [1]


def test_an_answer_is_given_again_to_the_same_question_alone(tmp_path: Path) -> None:
    store, changed = make_store(tmp_path), make_store(tmp_path, seed=9)
    kept = KeptAnswer(sent="1" * 64, after=-1, tensors={"a": np.arange(3, dtype=np.float16)}, report={"round": 0})
    store.save(make_state(0), kept)
    again = store.kept_answer(0, sent="1" * 64, after=-1)
    assert again is not None
    assert again.tensors["a"].tobytes() == kept.tensors["a"].tobytes() and again.tensors["a"].dtype == np.float16
    assert (again.report, again.sent, again.after) == (kept.report, kept.sent, kept.after)
    assert store.kept_answer(0, sent="2" * 64, after=-1) is None
    assert store.kept_answer(0, sent="1" * 64, after=None) is None
    assert store.kept_answer(1, sent="1" * 64, after=-1) is None
    assert changed.kept_answer(0, sent="1" * 64, after=-1) is None
    (store.folder / "answered-00000.safetensors").unlink()
    assert store.kept_answer(0, sent="1" * 64, after=-1) is None


def test_only_the_owner_can_enter_the_folder_and_read_the_files(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.folder.mkdir(parents=True, mode=0o755)
    save(store, make_state(0))
    store.save_final(shared={}, private=make_state(0).private, record={})
    for folder in (store.folder, store.folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in store.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    "change",
    [
        {"method": "local"},
        {"method_args": {"rank": 4}},
        {"size": "base"},
        {"classes": ("NOR", "HCM")},
        {"backbone_sha256": "1" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_state_of_another_experiment_is_refused_and_named(tmp_path: Path, change: dict[str, Any]) -> None:
    save(make_store(tmp_path), make_state(0))
    with pytest.raises(PrivacyError, match=re.escape(str(path_of(make_store(tmp_path), 0)))):
        load(make_store(tmp_path, **change), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 9},
        {"sites": ("north", "south", "east")},
        {"declared_cases": {"north": 5}},
        {"seed": 4, "changed": ("seed",)},
        {"local_epochs": 3, "changed": ("local_epochs", "seed")},
        {"training": {"batch_size": 1}, "changed": ("training.batch_size",)},
        {"wire_dtype": "int8", "changed": ("wire_dtype",)},
        {"top_k": 0.1, "changed": ("top_k",)},
    ],
)
def test_a_run_that_goes_on_with_other_settings_keeps_its_state(tmp_path: Path, change: dict[str, Any]) -> None:
    save(make_store(tmp_path), make_state(0))
    assert same(load(make_store(tmp_path, **change), 1), make_state(0))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"seed": 4, "changed": ("top_k",)},
        {"local_epochs": 3},
        {"training": {"learning_rate": 0.02}},
        {"wire_dtype": "int8"},
        {"bundle": "another"},
    ],
)
def test_a_site_does_not_go_on_with_settings_whose_change_nobody_has_named(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    save(make_store(tmp_path), make_state(0))
    name = next(iter(change.get("training", change)))
    with pytest.raises(PrivacyError, match=f"{name}: .* -> .*--accept-changes"):
        load(make_store(tmp_path, **change), 1)


def test_the_state_of_another_site_is_refused_and_named(tmp_path: Path) -> None:
    north, south = make_store(tmp_path, "north"), make_store(tmp_path, "south")
    save(north, make_state(0))
    south.folder.mkdir()
    path_of(north, 0).rename(path_of(south, 0))
    with pytest.raises(PrivacyError, match=re.escape(str(path_of(south, 0)))):
        load(south, 1)


def test_experiments_and_sites_do_not_see_each_other(tmp_path: Path) -> None:
    save(make_store(tmp_path), make_state(0))
    assert load(make_store(tmp_path, "south"), 1) is None
    assert load(make_store(tmp_path, experiment="other"), 1) is None


@pytest.mark.parametrize("keep", [0, 7, 64, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    path = path_of(store, 0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load(store, 1)


@pytest.mark.slow
@given(st.data())
def test_a_damaged_byte_is_harmless_or_named(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Whatever stands in the header, the reader answers with one of its own errors or with a state."""
    store = make_store(tmp_path_factory.mktemp("store"))
    save(store, make_state(0))
    content = bytearray(path_of(store, 0).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    path_of(store, 0).write_bytes(content)
    try:
        assert load(store, 1) is not None
    except (PrivacyError, WeightsError) as error:
        assert str(path_of(store, 0)) in str(error)


@pytest.mark.parametrize(
    "numbers",
    [None, "", "[]", "3", "null", "{}", '{"round": 0}', '{"round": 0, "epoch": null}', '{"x": 1}', '{"round": '],
)
def test_a_file_without_its_numbers_is_named(tmp_path: Path, numbers: str | None) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    path = path_of(store, 0)
    tensors, metadata = load_tensors(path)
    del metadata["numbers"]
    save_tensors(path, tensors, metadata if numbers is None else {**metadata, "numbers": numbers})
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load(store, 1)


@pytest.mark.parametrize("name", ["round-copy.safetensors", "round-00001 (1).safetensors", "round-.safetensors"])
def test_a_stray_file_does_not_stop_a_site(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    (store.folder / name).write_text("mine")
    save(store, make_state(1))
    save(store, make_state(2))
    assert store.rounds() == [2]
    assert (store.folder / name).read_text() == "mine"


def test_a_crash_while_saving_keeps_the_older_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    save(store, make_state(1))
    import safetensors.torch

    def half_written(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", half_written)
    for number in (1, 2):
        with pytest.raises(OSError, match="No space"):
            save(store, make_state(number))
    assert [path.name for path in store.folder.iterdir()] == ["round-00001.safetensors"]
    assert same(load(store, 2), make_state(1))


def test_a_crash_before_the_rename_keeps_the_older_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))

    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save(store, make_state(1))
    assert same(load(store, 9), make_state(0))


def test_a_crash_while_cleaning_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    save(store, make_state(1))
    with monkeypatch.context() as patch:
        patch.setattr(state_module.Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            save(store, make_state(2))
    assert same(load(store, 3), make_state(1))
    assert store.rounds() == [1]


def test_evidence_is_bound_to_the_final_model(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    final = store.save_final(shared={"w": torch.ones(2)}, private={}, record={})
    path = store.save_evidence({"test/logits": torch.zeros(1, 2)})
    tensors, metadata = load_tensors(path)
    assert (path.parent, list(tensors)) == (final.parent, ["test/logits"])
    assert metadata["final_sha256"] == sha256(final)
    assert load_tensors(store.save_evidence({}))[0] == {}


def test_evidence_gets_a_secret_that_no_plan_tells(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.save_final(shared={"w": torch.ones(2)}, private={}, record={})
    first, second = (load_tensors(store.save_evidence({}))[1][NOISE_KEY] for _ in range(2))
    assert first != second and len(first) == len(second) == 64


def test_an_experiment_that_begins_anew_keeps_what_it_had_left_and_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    assert store.set_aside() is None
    assert not caplog.records
    for number in (1, 2):
        save(store, make_state(7))
        final = store.save_final(shared={"w": torch.full((2,), float(number))}, private={}, record={})
        store.save_evidence({})
        (store.folder / "notes.txt").write_text("mine")
        content = final.read_bytes()
        earlier = store.set_aside()
        assert earlier == store.folder / f"_earlier-{number}"
        assert (earlier / FINAL_NAME).read_bytes() == content
        assert earlier.stat().st_mode & 0o077 == 0
        assert str(earlier) in caplog.text
        assert load(store, 8) is None
    assert sorted(path.name for path in store.folder.iterdir()) == ["_earlier-1", "_earlier-2", "notes.txt"]
    assert make_store(earlier.parent, experiment="x").rounds() == []


def test_clearing_leaves_what_is_not_of_this_experiment(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    save(store, make_state(0))
    store.save_final(shared={}, private={}, record={})
    store.save_evidence({})
    (store.folder / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]


def test_clearing_removes_this_site_of_this_experiment_only(tmp_path: Path) -> None:
    stores = [make_store(tmp_path), make_store(tmp_path, "south"), make_store(tmp_path, experiment="other")]
    for store in stores:
        save(store, make_state(0))
    stores[0].clear()
    stores[0].clear()
    assert [load(store, 1) is None for store in stores] == [True, False, False]


def test_the_personal_model_holds_both_parts_and_its_record(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = store.save_final(shared={"w": torch.ones(2)}, private={"p": torch.zeros(3)}, record={"round": 2})
    assert path == store.folder / FINAL_NAME
    tensors, metadata = load_tensors(path)
    assert tensors.keys() == {"shared/w", "private/p"}
    assert json.loads(metadata["record"]) == {"round": 2}
    assert metadata["fingerprint"] == make_plan().fingerprint
    assert metadata["site"] == "north"
    assert json.loads(metadata["plan"]) == make_plan().to_json()
    assert store.rounds() == []
