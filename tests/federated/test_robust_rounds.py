"""Robust rules with all around them: NVFlare, a server's optimiser, eight-bit changes, sites that are away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.participation import Participation, TooFewAnswers
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.server_optimizer import FedAvgM
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import load_tensors
from monai_fedlora.methods import get_method
from monai_fedlora.methods.rules import RULES
from monai_fedlora.scope import Entry, Manifest
from tests.federated.conftest import SITES, Prepared, written_job
from tests.helpers import make_plan, make_update

ROBUST = sorted(set(RULES.names()) - {"factors", "product"})
KEY_A, KEY_B, HEAD = "layer.lora_A.shared.weight", "layer.lora_B.shared.weight", "head.bias"
MANIFEST = Manifest({KEY_A: Entry((4, 64), "float16"), KEY_B: Entry((64, 4), "float16"), HEAD: Entry((8,), "float16")})
EIGHT = tuple(f"site-{number}" for number in range(8))
Payload = dict[str, np.ndarray]


def tensors(seed: int) -> Payload:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=entry.shape).astype(np.float16) for key, entry in MANIFEST.entries.items()}


def moved(reference: Payload, seed: int, spread: float = 0.02) -> Payload:
    return {key: (value + spread * tensors(seed)[key]).astype(np.float16) for key, value in reference.items()}


def average(rule: str, manifest: Manifest = MANIFEST, **settings: Any) -> SharedAverage:
    method = get_method("fedit", {"averaging": rule})
    return SharedAverage(method=method, manifest=manifest, sites=EIGHT, update_bound=1e6, **settings)


def answered(collector: SharedAverage, reference: Payload, sent: dict[str, Payload]) -> Payload:
    collector.begin(0, reference)
    for site, payload in sent.items():
        collector.accept(site, make_update(payload, {"round": 0, "cases": 10}))
    return collector.aggregate()


@pytest.mark.parametrize("rule", ROBUST)
def test_of_eight_sites_five_that_answer_are_combined_as_if_there_were_no_others(rule: str) -> None:
    reference = tensors(0)
    sent = {site: moved(reference, seed) for seed, site in enumerate(EIGHT[1:6], start=1)}
    alone = RULES[rule].combine([(1 / 5, payload) for payload in sent.values()], reference, MANIFEST)
    found = answered(average(rule), reference, sent)
    assert any((found[key] != reference[key]).any() for key in reference)
    for key, value in alone.items():
        np.testing.assert_array_equal(found[key], value.astype(np.float16))


@pytest.mark.parametrize("rule", ROBUST)
def test_changes_in_eight_bits_are_combined_as_they_are_decoded_and_outliers_move_nothing(rule: str) -> None:
    reference, encoded = tensors(0), MANIFEST.encoded(Encoding(values="int8"))

    def message(payload: Payload) -> Payload:
        return {
            key: entry.encoding.encode(payload[key].astype(float) - reference[key]) if entry.encoding else payload[key]
            for key, entry in encoded.entries.items()
        }

    honest = {site: moved(reference, seed) for seed, site in enumerate(EIGHT[:6], start=1)}
    lying = {site: moved(reference, seed, spread=0.9) for seed, site in enumerate(EIGHT[6:], start=90)}
    messages = {site: message(payload) for site, payload in {**honest, **lying}.items()}
    assert sum(entry.encoding is not None for entry in encoded.entries.values()) >= 2
    decoded = [(1 / 8, encoded.up.open(one, reference)) for one in messages.values()]
    found = answered(average(rule, encoded), reference, messages)
    for key, value in RULES[rule].combine(decoded, reference, encoded).items():
        np.testing.assert_array_equal(found[key], value.astype(np.float16))

    def effect(payload: Payload) -> np.ndarray:
        product = payload[KEY_B].astype(float) @ payload[KEY_A].astype(float)
        return np.concatenate([product.ravel(), payload[HEAD].astype(float)])

    def length(site_or_result: Payload) -> float:
        return float(np.linalg.norm(effect(site_or_result) - effect(reference)))

    assert length(found) < 2 * max(map(length, honest.values())) < min(map(length, lying.values())) / 5


@pytest.mark.parametrize("rule", [name for name in ROBUST if not RULES[name].products])
def test_a_servers_optimiser_steps_towards_what_the_rule_gives(rule: str) -> None:
    reference, server = tensors(0), FedAvgM(learning_rate=0.5)
    sent = {site: moved(reference, seed) for seed, site in enumerate(EIGHT, start=1)}
    middle = answered(average(rule), reference, sent)
    stepped = answered(average(rule, server=server), reference, sent)
    for key, value in middle.items():
        halfway = reference[key] + 0.5 * (value.astype(float) - reference[key])
        np.testing.assert_allclose(stepped[key].astype(float), halfway, atol=2e-3)


@pytest.mark.parametrize("rule", ["multi_krum", "product_multi_krum"])
def test_a_plan_refuses_fewer_answers_than_its_rule_takes(rule: str, tmp_path: Path) -> None:
    said = rf"min_sites is 4, and averaging {rule} needs the answers of at least 5 sites.*set min_sites to 5"
    settings: dict[str, Any] = {"method_args": {"averaging": rule}, "sites": EIGHT}
    with pytest.raises(ConfigError, match=said):
        make_plan(**settings, participation=Participation(min_sites=4))
    assert make_plan(**settings, participation=Participation(min_sites=5)).counting.least == 5
    plan = make_plan(**settings)
    with pytest.raises(ConfigError, match="needs at least 5 sites"):
        write_job(plan, MANIFEST, tmp_path / "job", without=EIGHT[:4])
    assert not (tmp_path / "job").exists()


def test_without_a_number_of_answers_a_round_needs_as_many_as_its_rule_and_asks_them() -> None:
    plan = make_plan(method_args={"averaging": "multi_krum"}, sites=EIGHT, participation=Participation(sample=0.25))
    assert plan.participation.begins_with(EIGHT) == 8 and "min_sites" not in plan.to_json()["participation"]
    assert len(plan.counting.asked(plan.sites, seed=0, number=0, attempt=0)) == 5
    assert plan.counting.lacks(EIGHT[:4]) == "4 answers counted, of at least 5"
    assert plan.counting.lacks(EIGHT[:5]) == ""
    assert make_plan(sites=EIGHT).counting.lacks(EIGHT[:1]) == ""


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))


@pytest.mark.slow
def test_a_run_ends_at_a_round_with_fewer_answers_than_krum_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = torch.rand(8, 1, 4, 4), [0, 1] * 4
    sites = {site: fl.SiteData(train=(images, labels), test=(images + 1, labels)) for site in EIGHT[:6]}
    chosen = fl.method("fedit", targets="1", head="2", rank=2, averaging="multi_krum")
    accept = SharedAverage.accept

    def refused(self: SharedAverage, site: str, update: Any) -> None:
        if self._round == 1 and site in EIGHT[:2]:
            raise Refusal("away")
        accept(self, site, update)

    monkeypatch.setattr(SharedAverage, "accept", refused)
    with pytest.raises(TooFewAnswers, match=r"round 1 .* 4 answers counted, of at least 5"):
        fl.federate(network, chosen, sites, rounds=2, folder=tmp_path, batch_size=4)
    assert load_tensors(tmp_path / "shared.safetensors")[1]["round"] == "0"


@pytest.mark.slow
def test_a_robust_rule_with_a_servers_optimiser_and_eight_bits_is_the_same_under_nvflare(
    prepared: Prepared, tmp_path: Path
) -> None:
    plan = prepared.plan(
        sites=SITES,
        method_args={"averaging": "geometric_median"},
        wire_dtype="int8",
        server_optimizer=FedAvgM(beta1=0.5),
    )
    places = {"data": str(prepared.data), "backbone": str(prepared.backbone)}
    results = simulate(written_job(plan, tmp_path), workspace=tmp_path / "run", threads=3, **places)
    assert (results["status"], results["refused"]) == ("finished", [])
    run_in_process(plan, folder=tmp_path / "other", **prepared.places)
    one, other = (load_tensors(tmp_path / name / "shared.safetensors")[0] for name in ("run", "other"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
