"""Optimisers of the server against their equations and torch, in a run that goes on from a file, and who has none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.federation_settings import FEDERATION_SETTINGS, of_federation
from monai_fedlora.federated.initial import load_shared, save_shared
from monai_fedlora.federated.job_files import CONFIG
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.server_optimizer import (
    OPTIMIZERS,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    ServerOptimizer,
    check_steps_fit,
)
from monai_fedlora.federated.server_state import stored_moments
from monai_fedlora.federated.start import Start
from monai_fedlora.files import load_tensors, save_tensors
from monai_fedlora.methods import get_method
from tests.federated.conftest import same_bits
from tests.helpers import make_manifest, make_payload, make_plan, make_update, through_json
from tests.methods.federation import attached

HALF = make_manifest("float16")
Payload = dict[str, np.ndarray]


def steps(server: ServerOptimizer, changes: list[float], *, start: float = 1.0) -> list[float]:
    """Values of one parameter, whose mean change in each round is given."""
    sent, moments, found = {"w": np.array([start])}, {}, []
    for change in changes:
        sent, moments = server.step({"w": sent["w"] + change}, sent, moments)
        found.append(float(sent["w"][0]))
    return found


CHANGES = [0.02, -0.005, 0.0, 0.03, 0.001, -0.04]


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_steps_are_the_equations(name: str) -> None:
    beta1, beta2, tau, rate = (0.8, 0.9, 0.004, 0.03)
    settings: dict[str, Any] = {"beta1": beta1, "tau": tau, "learning_rate": rate}
    server = OPTIMIZERS[name](**settings, **({} if name == "fedadagrad" else {"beta2": beta2}))
    x, m, v, expected = 1.0, 0.0, tau * tau, []
    for d in CHANGES:
        m = beta1 * m + (1 - beta1) * d
        if name == "fedadagrad":
            v += d * d
        elif name == "fedadam":
            v = beta2 * v + (1 - beta2) * d * d
        else:
            v -= (1 - beta2) * d * d * math.copysign(1.0, v - d * d)
        x += rate * m / (math.sqrt(v) + tau)
        expected.append(x)
    assert steps(server, CHANGES) == pytest.approx(expected, abs=1e-7)


def torch_steps(make: Any, *, before: Any = lambda optimizer, number: None) -> list[float]:
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer, found = make([parameter]), []
    for number, change in enumerate(CHANGES, start=1):
        parameter.grad = torch.tensor([-change], dtype=torch.float64)
        before(optimizer, number)
        optimizer.step()
        found.append(parameter.item())
    return found


def test_momentum_is_that_of_torch() -> None:
    found = steps(FedAvgM(learning_rate=0.5, beta1=0.7), CHANGES)
    assert found == pytest.approx(torch_steps(lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.7)), abs=1e-7)


def test_adagrad_without_momentum_is_that_of_torch() -> None:
    tau = 0.002
    expected = torch_steps(lambda p: torch.optim.Adagrad(p, lr=0.02, initial_accumulator_value=tau**2, eps=tau))
    assert steps(FedAdagrad(learning_rate=0.02, tau=tau), CHANGES) == pytest.approx(expected, abs=1e-7)


def test_adam_is_that_of_torch_whose_correction_of_the_bias_is_taken_back() -> None:
    """Torch divides m by 1 - beta1^t and v by 1 - beta2^t; a rate and an eps that grow with them undo that."""
    beta1, beta2, tau, rate = 0.9, 0.99, 0.003, 0.02

    def undo(optimizer: torch.optim.Optimizer, number: int) -> None:
        (group,) = optimizer.param_groups
        root = math.sqrt(1 - beta2**number)
        group["lr"], group["eps"] = rate * (1 - beta1**number) / root, tau / root
        if number == 1:
            zero = torch.zeros(1, dtype=torch.float64)
            state = {"step": torch.tensor(0.0), "exp_avg": zero, "exp_avg_sq": zero + tau**2}
            optimizer.state[group["params"][0]] = state

    expected = torch_steps(lambda p: torch.optim.Adam(p, betas=(beta1, beta2)), before=undo)
    found = steps(FedAdam(learning_rate=rate, beta1=beta1, beta2=beta2, tau=tau), CHANGES)
    assert found == pytest.approx(expected, abs=1e-7)


# ---- on the server --------------------------------------------------------------------------------------


def opened(server: ServerOptimizer | None, **changes: Any) -> SharedAverage:
    return SharedAverage.of(make_plan(max_update_rms=100.0, server_optimizer=server, **changes), HALF)


def play(average: SharedAverage, numbers: range, sent: Payload) -> Payload:
    for number in numbers:
        average.begin(number, sent)
        for seed, site in enumerate(average.sites):
            noise = make_payload(HALF, 100 * number + seed)
            tensors = {key: np.array(value + 0.05 * noise[key], value.dtype) for key, value in sent.items()}
            average.accept(site, make_update(tensors, {"round": number, "cases": 5 + seed}))
        sent = average.aggregate()
    return sent


def test_the_server_steps_from_what_it_sent_towards_the_mean() -> None:
    sent = make_payload(HALF, 9)
    mean, half = (play(opened(server), range(1), sent) for server in (None, FedAvgM(learning_rate=0.5)))
    for key, value in sent.items():
        before = value.astype(np.float64)
        np.testing.assert_allclose(half[key], before + 0.5 * (mean[key] - before), atol=2e-3)
        assert half[key].dtype == value.dtype


def test_a_round_that_is_closed_twice_gives_the_same_bits() -> None:
    average = opened(FedAdam())
    first = play(average, range(3), make_payload(HALF, 9))
    moments = dict(average.moments)
    assert same_bits(average.aggregate(), first)
    assert same_bits(dict(average.moments), moments)


def test_a_round_without_answers_leaves_tensors_and_moments_alone() -> None:
    average = opened(FedYogi())
    sent = play(average, range(2), make_payload(HALF, 9))
    moments = dict(average.moments)
    average.begin(2, sent)
    assert same_bits(average.aggregate(), sent)
    assert same_bits(dict(average.moments), moments)


def test_a_step_that_float16_cannot_hold_is_told() -> None:
    with pytest.raises(ConfigError, match=r"float16 can hold in round 0; lower server_learning_rate, which is 1e\+09"):
        play(opened(FedAvgM(learning_rate=1e9)), range(1), make_payload(HALF, 9))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_server_that_goes_on_from_its_file_makes_the_same_steps(tmp_path: Path, name: str) -> None:
    start, path = make_payload(HALF, 9), tmp_path / "shared.safetensors"
    plan = make_plan(max_update_rms=100.0, server_optimizer=OPTIMIZERS[name]())
    expected = play(SharedAverage.of(plan, HALF), range(4), start)
    killed = SharedAverage.of(plan, HALF)
    reached = play(killed, range(2), start)
    save_shared(path, reached, plan=plan, round_number=1, moments=killed.moments)
    assert same_bits(load_shared(path, manifest=HALF)[0], reached)
    moments = stored_moments(path, HALF, plan, first=2)
    assert {value.dtype for value in moments.values()} == {np.dtype("float32")}
    assert same_bits(play(SharedAverage.of(plan, HALF, moments=moments), range(2, 4), reached), expected)
    assert not same_bits(play(SharedAverage.of(plan, HALF), range(2, 4), reached), expected)


def test_moments_are_of_the_same_experiment_round_and_optimiser(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, plan = tmp_path / "shared.safetensors", make_plan(max_update_rms=100.0, server_optimizer=FedAdam())
    average = SharedAverage.of(plan, HALF)
    save_shared(
        path, play(average, range(2), make_payload(HALF, 9)), plan=plan, round_number=1, moments=average.moments
    )
    assert stored_moments(path, HALF, plan, first=2)
    assert not caplog.records
    assert stored_moments(path, HALF, plan, first=3) == {}
    for change in ({"experiment": "other"}, {"server_optimizer": None}, {"server_optimizer": FedAdam(beta2=0.9)}):
        assert stored_moments(path, HALF, dataclasses.replace(plan, **change), first=2) == {}
    assert [str(path) in said and "are left out" in said for said in caplog.messages] == [True] * 4


@pytest.mark.parametrize("damage", ["shape", "value", "missing"])
def test_damaged_moments_are_named(tmp_path: Path, damage: str) -> None:
    path, plan = tmp_path / "shared.safetensors", make_plan(max_update_rms=100.0, server_optimizer=FedAdam())
    average = SharedAverage.of(plan, HALF)
    save_shared(
        path, play(average, range(1), make_payload(HALF, 9)), plan=plan, round_number=0, moments=average.moments
    )
    tensors, metadata = load_tensors(path)
    if damage == "missing":
        del tensors["server/v/c"]
    else:
        tensors["server/v/c"] = torch.zeros(3) if damage == "shape" else torch.tensor(float("nan"))
    save_tensors(path, tensors, metadata)
    with pytest.raises(WeightsError, match=r"shared\.safetensors holds moments of fedadam that do not fit"):
        stored_moments(path, HALF, plan, first=1)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """With two sites, whose usual length of a change follows from the rounds before as well, and changes in 8 bits."""
    images = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = fl.SiteData(train=(images[:8], [0, 1] * 4), test=(images[8:], [0, 1] * 4))

    def run(name: str, **more: Any) -> fl.Run:
        def network() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))

        settings: dict[str, Any] = {
            "rounds": 3,
            "server_optimizer": "fedadam",
            "wire_dtype": "int8",
            "update_bound": 1.0,
        }
        choice = fl.method("fedit", targets="1", head="2", rank=2)
        return fl.federate(network, choice, {"a": data, "b": data}, folder=tmp_path / name, **settings, **more)

    def kill(record: Any) -> None:
        if len(record["rounds"]) == 3:
            raise KeyboardInterrupt

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", on_progress=kill)
    run("killed", resume=True)
    one, other = (load_tensors(tmp_path / name / "shared.safetensors") for name in ("whole", "killed"))
    assert one[0].keys() == other[0].keys()
    assert sum(key.startswith("server/v/") for key in one[0]) == 4
    assert all(torch.equal(one[0][key], other[0][key]) for key in one[0])
    assert one[1]["update_lengths"] == other[1]["update_lengths"]


# ---- who can have one, and how it is named ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["dual_lora", "fedit", "ffa_lora", "fedsa_lora", "fedavg", "fedbn", "linear_probe"])
def test_methods_that_average_can_have_one(name: str) -> None:
    method = get_method(name)
    network = attached(method)
    check_steps_fit(method, network, method.scope(network).manifest)


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("flora", {}, "travels one way only"),
        ("fedex_lora", {}, "travels one way only"),
        ("fedsvd", {}, "travels one way only"),
        ("flexlora", {}, "begins anew in every round"),
        ("dual_lora", {"averaging": "product"}, "begins anew in every round"),
        ("local", {}, "nothing is averaged"),
        ("centralised", {}, "nothing is averaged"),
    ],
)
def test_methods_that_average_nothing_or_products_cannot(name: str, settings: dict[str, Any], why: str) -> None:
    method = get_method(name, settings)
    network = attached(method)
    with pytest.raises(ConfigError, match=f"{name} cannot have a server_optimizer: .*{why}"):
        check_steps_fit(method, network, method.scope(network).manifest)


def test_a_plan_says_its_optimiser_in_full() -> None:
    plan = make_plan(**of_federation({"server_optimizer": "fedadam", "server_tau": 0.01, "rank": 4}))
    said = plan.to_json()["server_optimizer"]
    assert said == {"optimizer": "fedadam", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.01}
    assert Plan.from_json(through_json(plan.to_json())) == plan
    assert "server_optimizer" not in make_plan().to_json()
    assert of_federation({"rank": 4, "server_optimizer": None}) == {}
    assert of_federation({"fine_tune_epochs": 2}) == {"fine_tune_epochs": 2}
    assert set(FEDERATION_SETTINGS) >= {f"server_{name}" for name in said}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server_optimizer": "fedadm"}, "'fedadm'.*fedadam"),
        ({"server_optimizer": 3}, "must be one of fedadam"),
        ({"server_tau": 0.1}, "server_tau needs a server_optimizer"),
        ({"server_optimizer": "fedavgm", "server_tau": 0.1}, "fedavgm has no server_tau"),
        ({"server_optimizer": "fedadam", "server_tau": 0}, "server_tau is 0; it must be a number above 0"),
        (
            {"server_optimizer": "fedadam", "server_beta2": 1.0},
            "server_beta2 is 1.0; it must be a number from 0 to below",
        ),
        ({"server_optimizer": "fedadam", "server_learning_rate": True}, "server_learning_rate is True"),
    ],
)
def test_settings_that_cannot_be_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_plan(**of_federation(settings))


@pytest.mark.slow
def test_a_job_holds_it_among_the_settings_of_other_kinds(tmp_path: Path) -> None:
    settings = {"rank": 4, "batch_size": 2, "server_optimizer": "fedyogi", "fine_tune_epochs": 3}
    job = fl.write_job("fedit", output=tmp_path / "job", sites=["north", "south"], settings=settings)
    plan = Start.of_job(job.folder / CONFIG).plan
    assert (plan.server_optimizer, plan.fine_tune_epochs) == (FedYogi(), 3)
    assert (plan.method_args, plan.training) == ({"rank": 4}, {"batch_size": 2})
    with pytest.raises(ConfigError, match=r"flora cannot have a server_optimizer"):
        fl.write_job("flora", output=tmp_path / "other", sites=["north", "south"], settings=settings)
    with pytest.raises(ConfigError, match=r"server_optimizer is a setting of the federation, not of fedit"):
        fl.method("fedit", server_optimizer="fedadam")
