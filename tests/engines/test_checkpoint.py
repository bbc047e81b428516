from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ignite.engine import Engine

from monai_fedlora.engines.checkpoint import (
    BEST,
    LAST,
    CheckpointSaver,
    FrozenDigest,
    frozen_sha256,
    load_checkpoint,
    save_checkpoint,
    trainable_tensors,
    with_checkpoint,
)
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import load_tensors, save_tensors

SETTINGS = {"method": "dual_lora", "classes": ["NOR", "ABN"]}


@pytest.fixture
def saved(make_network, tmp_path):
    network = make_network()
    for parameter in trainable_tensors(network).values():
        parameter.normal_()
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, network, SETTINGS)
    return path, network


def refuse(path, network, message: str, **expected) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(path, network, expected.get("settings", SETTINGS))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_checkpoint_holds_the_trainable_part_alone_and_restores_it(saved, make_network) -> None:
    path, network = saved
    tensors, metadata = load_tensors(path)
    assert set(tensors) == {n for n, p in network.named_parameters() if p.requires_grad}
    assert metadata["frozen_sha256"] == frozen_sha256(network)
    fresh = with_checkpoint(make_network(), path=path, settings={"classes": ("NOR", "ABN")})
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
    assert load_checkpoint(path, fresh) == SETTINGS


def test_a_missing_checkpoint_is_an_error_and_never_random_weights(make_network, tmp_path) -> None:
    refuse(tmp_path / "b.safetensors", make_network(), "there is no checkpoint .*; train first")


def test_another_setting_is_refused(saved, make_network) -> None:
    refuse(
        saved[0], make_network(), "with method 'dual_lora', and this network has 'fedit'", settings={"method": "fedit"}
    )


def test_another_backbone_is_refused(saved, make_network) -> None:
    network = make_network()
    network.stem[1].weight.data[0, 0] += 1
    refuse(saved[0], network, "another backbone")


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "dtype", "nan"])
def test_tensors_that_do_not_fit_are_refused(saved, make_network, change: str) -> None:
    path, _ = saved
    tensors, metadata = load_tensors(path)
    key = "head.2.weight"
    if change == "missing":
        del tensors[key]
    elif change == "unexpected":
        tensors["head.3.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors[key] = torch.zeros(3, 6)
    elif change == "dtype":
        tensors[key] = tensors[key].half()
    else:
        tensors[key][0, 0] = math.nan
    save_tensors(path, tensors, metadata)
    refuse(path, make_network(), {"missing": key, "unexpected": "head.3.weight"}.get(change, key))


@pytest.mark.parametrize(
    "metadata",
    [{}, {"format": "9"}, {"format": "1"}, {"format": "1", "settings": "["}, {"format": "1", "settings": "[]"}],
)
def test_a_safetensors_file_of_another_kind_is_refused(saved, make_network, metadata: dict) -> None:
    save_tensors(saved[0], {"x": torch.zeros(1)}, metadata)
    refuse(saved[0], make_network(), "checkpoint")


@given(cut=st.floats(0, 1), junk=st.binary(max_size=40), place=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused(saved, make_network, tmp_path, cut, junk, place) -> None:
    path, network = saved
    content = path.read_bytes()[: math.ceil(path.stat().st_size * cut)]
    start = int(len(content) * place)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content[:start] + junk + content[start + len(junk) :])
    fresh = make_network()
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    try:
        load_checkpoint(damaged, fresh, SETTINGS)
    except WeightsError:
        assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
    else:
        loaded = trainable_tensors(fresh)
        assert all(torch.equal(value, loaded[key]) for key, value in trainable_tensors(network).items())


def test_the_frozen_digest_ignores_what_trains(make_network) -> None:
    network = make_network()
    digest = frozen_sha256(network)
    network.head[2].weight.data.normal_()
    assert frozen_sha256(network) == digest
    network.stem.half()
    assert frozen_sha256(network) != digest


def test_a_training_hashes_its_frozen_weights_once(make_network, tmp_path, monkeypatch) -> None:
    network, hashed = make_network(), []

    def counted(network) -> str:
        hashed.append(network)
        return frozen_sha256(network)

    monkeypatch.setattr("monai_fedlora.engines.checkpoint.frozen_sha256", counted)
    train(network, tmp_path, [0.5, 0.6, 0.7])
    assert len(hashed) == 1
    for name in (BEST, LAST):
        assert load_tensors(tmp_path / name)[1]["frozen_sha256"] == frozen_sha256(network)


@pytest.mark.parametrize("change", ["in_place", "loaded", "replaced", "type", "now_trains"])
def test_a_changed_frozen_weight_is_hashed_anew(make_network, change: str) -> None:
    network = make_network()
    digest = FrozenDigest(network)
    before, weight = digest(), network.stem[1].weight
    with torch.no_grad():
        if change == "in_place":
            weight.add_(1)
        elif change == "loaded":
            network.load_state_dict({key: value + 1 for key, value in network.state_dict().items()})
        elif change == "replaced":
            network.stem[1].weight = torch.nn.Parameter(weight + 1, requires_grad=False)
        elif change == "type":
            network.stem.half()
        else:
            weight.requires_grad_()
    assert digest() == frozen_sha256(network) != before


def train(network, folder, scores: list[float], **options) -> None:
    """Pretend to train: the head's bias counts epochs, the evaluator reports ``scores``."""
    evaluator = SimpleNamespace(
        state=SimpleNamespace(best_metric=-1.0, best_metric_epoch=-1, key_metric_name="auroc", metrics={})
    )

    def epoch(engine, _batch) -> None:
        network.head[2].bias.data.fill_(engine.state.epoch)
        value = scores[engine.state.epoch - 1]
        evaluator.state.metrics["auroc"] = value
        if evaluator.state.best_metric_epoch < 0 or value > evaluator.state.best_metric:
            evaluator.state.best_metric, evaluator.state.best_metric_epoch = value, engine.state.epoch

    engine = Engine(epoch)
    CheckpointSaver(network=network, evaluator=evaluator, output_dir=folder, settings=SETTINGS, **options).attach(
        engine
    )
    engine.run([0], max_epochs=len(scores))


def test_the_best_and_the_last_epoch_are_kept(make_network, tmp_path) -> None:
    train(make_network(), tmp_path, [0.5, 0.9, 0.9, 0.7])
    for name, epoch, value in ((BEST, 2, 0.9), (LAST, 4, 0.7)):
        tensors, metadata = load_tensors(tmp_path / name)
        assert tensors["head.2.bias"].tolist() == [epoch, epoch]
        expected = {**SETTINGS, "epoch": epoch, "key_metric": "auroc", "value": value}
        assert json.loads(metadata["settings"]) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, LAST]


def test_a_disabled_saver_writes_nothing(make_network, tmp_path) -> None:
    train(make_network(), tmp_path, [0.5], enabled=False)
    assert list(tmp_path.iterdir()) == []
