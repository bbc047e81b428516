"""What a site stores comes back to the bit, belongs to one experiment and site, and survives a crash."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora import files
from monai_fedlora.errors import PrivacyError, WeightsError
from monai_fedlora.federated import site_state as state_module
from monai_fedlora.federated.site_state import FINAL_NAME, NOISE_KEY, SiteState, SiteStore
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
    store.save(make_state(3))
    assert same(store.load_before(4), make_state(3))
    assert same(make_store(tmp_path).load_before(100), make_state(3))


def test_a_residual_that_an_earlier_version_stored_is_read(tmp_path: Path) -> None:
    store, state = make_store(tmp_path), make_state(3)
    store.save(state)
    tensors, metadata = load_tensors(path_of(store, 3))
    earlier = {re.sub("^residual/", "left_over/", key): value for key, value in tensors.items()}
    assert earlier.keys() != tensors.keys()
    save_tensors(path_of(store, 3), earlier, metadata)
    assert same(store.load_before(4), state)


def test_a_state_without_tensors_comes_back(tmp_path: Path) -> None:
    store, nothing = make_store(tmp_path), make_state(0, private={}, optimiser={}, residual={})
    store.save(nothing)
    assert same(store.load_before(1), nothing)


def test_a_view_into_a_larger_tensor_is_stored_as_what_it_shows(tmp_path: Path) -> None:
    store, whole = make_store(tmp_path), torch.arange(12.0).reshape(3, 4)
    store.save(make_state(0, private={"t": whole.T, "row": whole[1]}))
    loaded = store.load_before(1)
    assert loaded is not None
    assert torch.equal(loaded.private["t"], whole.T)
    assert torch.equal(loaded.private["row"], whole[1])


def test_a_new_site_has_no_state(tmp_path: Path) -> None:
    assert make_store(tmp_path).load_before(0) is None
    assert make_store(tmp_path).load_before(5) is None


def test_the_last_two_rounds_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number in range(5):
        store.save(make_state(number))
        assert sorted(store.rounds()) == [n for n in (number - 1, number) if n >= 0]
    assert same(store.load_before(4), make_state(3))
    assert same(store.load_before(5), make_state(4))


@pytest.mark.slow
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True), st.integers(0, 31))
def test_the_newest_earlier_round_is_loaded(tmp_path_factory: Any, numbers: list[int], asked: int) -> None:
    store = make_store(tmp_path_factory.mktemp("store"))
    for number in sorted(numbers):
        store.save(make_state(number))
    kept = [number for number in sorted(numbers)[-2:] if number < asked]
    if kept:
        assert same(store.load_before(asked), make_state(kept[-1]))
    else:
        with pytest.raises(PrivacyError, match=re.escape(str(store.folder))):
            store.load_before(asked)


def test_a_repeated_round_replaces_its_state(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    store.save(make_state(1))
    store.save(make_state(1, epoch=99))
    assert sorted(store.rounds()) == [0, 1]
    assert same(store.load_before(2), make_state(1, epoch=99))
    assert same(store.load_before(1), make_state(0))


@pytest.mark.slow
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_after_going_back_nothing_of_a_later_round_is_found(tmp_path_factory: Any, saved: list[int]) -> None:
    """Whatever rounds a site finished before, a round starts from what the last visit of an earlier one has left."""
    store, alive = make_store(tmp_path_factory.mktemp("store")), dict[int, int]()
    for visit, number in enumerate(saved):
        store.save(make_state(number, epoch=visit))
        alive = {n: v for n, v in alive.items() if n < number} | {number: visit}
        for asked in range(number + 1, 14):
            assert same(store.load_before(asked), make_state(number, epoch=visit))
        assert sorted(store.rounds()) == sorted(alive)[-len(store.rounds()) :]


def test_only_the_owner_can_enter_the_folder_and_read_the_files(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.folder.mkdir(parents=True, mode=0o755)
    store.save(make_state(0))
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
    make_store(tmp_path).save(make_state(0))
    with pytest.raises(PrivacyError, match=re.escape(str(path_of(make_store(tmp_path), 0)))):
        make_store(tmp_path, **change).load_before(1)


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
    make_store(tmp_path).save(make_state(0))
    assert same(make_store(tmp_path, **change).load_before(1), make_state(0))


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
    make_store(tmp_path).save(make_state(0))
    name = next(iter(change.get("training", change)))
    with pytest.raises(PrivacyError, match=f"{name}: .* -> .*--accept-changes"):
        make_store(tmp_path, **change).load_before(1)


def test_the_state_of_another_site_is_refused_and_named(tmp_path: Path) -> None:
    north, south = make_store(tmp_path, "north"), make_store(tmp_path, "south")
    north.save(make_state(0))
    south.folder.mkdir()
    path_of(north, 0).rename(path_of(south, 0))
    with pytest.raises(PrivacyError, match=re.escape(str(path_of(south, 0)))):
        south.load_before(1)


def test_experiments_and_sites_do_not_see_each_other(tmp_path: Path) -> None:
    make_store(tmp_path).save(make_state(0))
    assert make_store(tmp_path, "south").load_before(1) is None
    assert make_store(tmp_path, experiment="other").load_before(1) is None


@pytest.mark.parametrize("keep", [0, 7, 64, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    path = path_of(store, 0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        store.load_before(1)


@pytest.mark.slow
@given(st.data())
def test_a_damaged_byte_is_harmless_or_named(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Whatever stands in the header, the reader answers with one of its own errors or with a state."""
    store = make_store(tmp_path_factory.mktemp("store"))
    store.save(make_state(0))
    content = bytearray(path_of(store, 0).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    path_of(store, 0).write_bytes(content)
    try:
        assert store.load_before(1) is not None
    except (PrivacyError, WeightsError) as error:
        assert str(path_of(store, 0)) in str(error)


@pytest.mark.parametrize(
    "numbers",
    [None, "", "[]", "3", "null", "{}", '{"round": 0}', '{"round": 0, "epoch": null}', '{"x": 1}', '{"round": '],
)
def test_a_file_without_its_numbers_is_named(tmp_path: Path, numbers: str | None) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    path = path_of(store, 0)
    tensors, metadata = load_tensors(path)
    del metadata["numbers"]
    save_tensors(path, tensors, metadata if numbers is None else {**metadata, "numbers": numbers})
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        store.load_before(1)


@pytest.mark.parametrize("name", ["round-copy.safetensors", "round-00001 (1).safetensors", "round-.safetensors"])
def test_a_stray_file_does_not_stop_a_site(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    (store.folder / name).write_text("mine")
    store.save(make_state(1))
    store.save(make_state(2))
    assert sorted(store.rounds()) == [1, 2]
    assert (store.folder / name).read_text() == "mine"


def test_a_crash_while_saving_keeps_the_older_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    store.save(make_state(1))
    import safetensors.torch

    def half_written(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", half_written)
    for number in (1, 2):
        with pytest.raises(OSError, match="No space"):
            store.save(make_state(number))
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "round-00000.safetensors",
        "round-00001.safetensors",
    ]
    assert same(store.load_before(2), make_state(1))


def test_a_crash_before_the_rename_keeps_the_older_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))

    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(make_state(1))
    assert same(store.load_before(9), make_state(0))


def test_a_crash_while_cleaning_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    store.save(make_state(1))
    with monkeypatch.context() as patch:
        patch.setattr(state_module.Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            store.save(make_state(2))
    assert same(store.load_before(3), make_state(2))


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
        store.save(make_state(7))
        final = store.save_final(shared={"w": torch.full((2,), float(number))}, private={}, record={})
        store.save_evidence({})
        (store.folder / "notes.txt").write_text("mine")
        content = final.read_bytes()
        earlier = store.set_aside()
        assert earlier == store.folder / f"_earlier-{number}"
        assert (earlier / FINAL_NAME).read_bytes() == content
        assert earlier.stat().st_mode & 0o077 == 0
        assert str(earlier) in caplog.text
        assert store.load_before(8) is None
    assert sorted(path.name for path in store.folder.iterdir()) == ["_earlier-1", "_earlier-2", "notes.txt"]
    assert make_store(earlier.parent, experiment="x").rounds() == []


def test_clearing_leaves_what_is_not_of_this_experiment(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.save(make_state(0))
    store.save_final(shared={}, private={}, record={})
    store.save_evidence({})
    (store.folder / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]


def test_clearing_removes_this_site_of_this_experiment_only(tmp_path: Path) -> None:
    stores = [make_store(tmp_path), make_store(tmp_path, "south"), make_store(tmp_path, experiment="other")]
    for store in stores:
        store.save(make_state(0))
    stores[0].clear()
    stores[0].clear()
    assert [store.load_before(1) is None for store in stores] == [True, False, False]


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
