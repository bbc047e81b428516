"""What a site is told before it joins is what its account will charge it."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.errors import ConfigError, PolicyError
from monai_fedlora.privacy.account import Account
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.forecast import Forecast, as_budget, forecast, read_spent
from monai_fedlora.privacy.ledger import Ledger
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.privacy.randomness import Randomness

BUDGET = Budget(epsilon=4.0, delta=1e-5)


def told(budget: Budget = BUDGET, **given: object) -> Forecast:
    settings = {"patients": 400, "batch_size": 20, "epochs": 1, "rounds": 3, "noise": 2.0} | given
    return forecast(budget=budget, **settings)  # type: ignore[arg-type]


def charged(root: Path, experiment: str, mechanism: Mechanism, codes: list[str], rounds: int) -> None:
    settings = PrivacySettings(epsilon=100.0, delta=1e-5, clip=1.0)
    account = Account(
        ledger=Ledger(root),
        experiment=experiment,
        site="north",
        codes=codes,
        patients=len(codes),
        settings=settings,
        budget=lambda: None,
    )
    for number in range(rounds):
        account.charge(mechanism, round_number=number, randomness=Randomness(), answer=f"{experiment} {number}")


def test_a_round_and_its_epsilons_are_those_of_the_account() -> None:
    found = told(epochs=2, batch_size=32)
    assert found.a_round == Mechanism(noise_multiplier=2.0, sample_rate=32 / 400, steps=26)
    assert [count for count, _ in found.after] == [1, 2, 3]
    for count, epsilon in found.after:
        assert epsilon == pytest.approx(epsilon_of([found.a_round] * count, delta=1e-5))


def test_as_many_further_rounds_as_the_account_lets_through(tmp_path: Path) -> None:
    budget = Budget(epsilon=0.9, delta=1e-5)
    found = told(budget=budget, rounds=2)
    account = Account(
        ledger=Ledger(tmp_path),
        experiment="hearts",
        site="north",
        codes=["a"],
        patients=400,
        settings=PrivacySettings(epsilon=100.0, delta=1e-5, clip=1.0),
        budget=lambda: budget,
    )
    assert found.further > 0
    account.check(found.a_round, rounds=2 + found.further)
    with pytest.raises(PolicyError):
        account.check(found.a_round, rounds=2 + found.further + 1)


@pytest.mark.slow
def test_the_least_noise_is_for_all_rounds_and_after_what_was_spent() -> None:
    fresh = told(noise=None)
    assert fresh.least
    assert fresh.further == 0
    assert fresh.after[-1][1] == pytest.approx(4.0, rel=0.01)
    later = told(noise=None, spent=[fresh.a_round])
    assert later.a_round.noise_multiplier > fresh.a_round.noise_multiplier
    assert later.after[-1][1] <= 4.0


@pytest.mark.slow
def test_rounds_to_spare_are_within_the_budget_and_cost_noise() -> None:
    plain, spared = told(noise=None), told(noise=None, spare_rounds=2)
    assert plain.spare is None and spared.spare is not None
    assert spared.a_round.noise_multiplier == told(noise=None, rounds=5).a_round.noise_multiplier
    assert spared.a_round.noise_multiplier > plain.a_round.noise_multiplier
    assert spared.after[-1][1] < spared.spare <= 4.0
    assert spared.further == 2
    assert spared.guess > told(noise=spared.a_round.noise_multiplier).guess


def test_fewer_than_no_rounds_are_not_spared() -> None:
    with pytest.raises(ConfigError, match="-1 rounds cannot be spared"):
        told(spare_rounds=-1)


def test_rounds_that_would_be_refused_are_said() -> None:
    found = told(noise=0.7, rounds=6, budget=Budget(epsilon=2.0, delta=1e-5))
    assert found.further < 0
    assert f"{-found.further} of the rounds would be refused" in found.warnings[0]


@pytest.mark.slow
def test_a_small_site_is_warned_and_a_large_one_is_not() -> None:
    small = " ".join(told(patients=40, batch_size=16, noise=2.0).warnings)
    assert "with 40 patients the noise on every number of a step is 0.12 times" in small
    assert "every step takes 40% of the patients" in small
    assert told(patients=4000, batch_size=200).warnings == ()
    assert "hardly below one over the patients" in " ".join(told(budget=Budget(epsilon=4.0, delta=1e-3)).warnings)


@pytest.mark.parametrize("what", ["patients", "batch_size", "epochs", "rounds"])
def test_nothing_to_train_is_refused(what: str) -> None:
    with pytest.raises(ConfigError, match="train nothing"):
        told(**{what: 0})


def test_a_delta_above_one_over_the_patients_is_refused() -> None:
    with pytest.raises(ConfigError, match="above one over 400 patients"):
        told(budget=Budget(epsilon=4.0, delta=0.01))


@pytest.mark.parametrize("given", [None, {"epsilon": 0.0, "delta": 1e-5}, {"epsilon": 8.0, "delta": 1.0}])
def test_what_is_no_budget_is_refused(given: dict[str, float] | None) -> None:
    with pytest.raises(ConfigError):
        as_budget(given)


def test_what_a_ledger_has_spent_is_said_for_each_pool(tmp_path: Path) -> None:
    loud, quiet = (Mechanism(noise_multiplier=noise, sample_rate=0.1, steps=10) for noise in (2.0, 6.0))
    assert read_spent(tmp_path, delta=1e-5) == []
    charged(tmp_path, "skin", quiet, ["p1"], rounds=1)
    charged(tmp_path, "hearts", loud, ["q1", "q2"], rounds=2)
    most, least = read_spent(tmp_path, delta=1e-5)
    assert (most.codes, most.answers, most.experiments) == (2, 2, ("hearts",))
    assert most.epsilon == pytest.approx(epsilon_of([loud, loud], delta=1e-5))
    assert (least.codes, least.answers, least.experiments) == (1, 1, ("skin",))


def test_a_private_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        read_spent(tmp_path / "gone", delta=1e-5)
