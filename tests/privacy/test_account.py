"""No patient is ever told more of than the budget, whatever is trained, repeated, renamed or prepared anew."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import PolicyError, PrivacyError
from monai_fedlora.privacy import account as account_module
from monai_fedlora.privacy import ledger as ledger_module
from monai_fedlora.privacy.account import Account
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.ledger import FOLDER, Ledger
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.patient_pool import Pool
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.privacy.randomness import Randomness

ROUND = Mechanism(noise_multiplier=10.0, sample_rate=1.0, steps=4)
PATIENTS = [f"P{number:03d}" for number in range(100)]
LOOSE = PrivacySettings(epsilon=1000.0, delta=1e-5, clip=1.0)


def quick_epsilon(mechanisms: Iterable[Mechanism], *, delta: float) -> float:
    """A bound in closed form that composes, so that many sequences can be tried."""
    rho = sum(mechanism.steps / (2 * mechanism.noise_multiplier**2) for mechanism in mechanisms)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_module, "epsilon_of", quick_epsilon)


def account(
    root: Path,
    *,
    codes: Iterable[str] = PATIENTS,
    experiment: str = "hearts",
    site: str = "north",
    plan: PrivacySettings = LOOSE,
    budget: Budget | None = None,
    copy: Path | None = None,
) -> Account:
    codes = list(codes)
    return Account(
        ledger=Ledger(root, copy=copy),
        experiment=experiment,
        site=site,
        codes=codes,
        patients=len(codes),
        settings=plan,
        budget=lambda: budget,
    )


def spend(whose: Account, *, round_number: int = 0, mechanism: Mechanism = ROUND, answer: str = "a") -> None:
    whose.charge(mechanism, round_number=round_number, randomness=Randomness(), answer=answer)


def charges(root: Path, codes: Iterable[str] = PATIENTS) -> int:
    with Ledger(root).opened() as opened:
        return len(opened.charges(opened.pool(list(codes))))


CASES = st.tuples(
    st.sets(st.integers(0, 7), min_size=1),
    st.sampled_from(["hearts", "skin"]),
    st.sampled_from([6.0, 10.0, 20.0]),
    st.sampled_from([1, 4, 16]),
)


@given(tried=st.lists(CASES, min_size=1, max_size=12), epsilon=st.floats(0.5, 6.0))
@settings(max_examples=15, deadline=None)
def test_nobody_is_told_more_of_than_the_budget(tried: list[tuple[set[int], str, float, int]], epsilon: float) -> None:
    budget, told = Budget(epsilon=epsilon, delta=1e-5), {number: [] for number in range(8)}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(account_module, "epsilon_of", quick_epsilon)
        for place, (patients, experiment, noise, steps) in enumerate(tried):
            mechanism = Mechanism(noise_multiplier=noise, sample_rate=1.0, steps=steps)
            codes = [PATIENTS[number] for number in patients]
            whose = account(Path(folder), codes=codes, experiment=experiment, budget=budget)
            try:
                whose.check(mechanism)
            except PolicyError:
                with pytest.raises(PolicyError):
                    spend(whose, mechanism=mechanism)
                continue
            spend(whose, mechanism=mechanism, round_number=place)
            for number in patients:
                told[number].append(mechanism)
    assert all(quick_epsilon(mechanisms, delta=1e-5) <= epsilon for mechanisms in told.values())


@pytest.mark.usefixtures("quick")
def test_what_passes_the_budget_is_refused_before_it_trains_and_before_it_leaves(tmp_path: Path) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND] * 2, delta=1e-5), delta=1e-5)
    whose = account(tmp_path, budget=budget)
    whose.check(ROUND, rounds=2)
    with pytest.raises(PolicyError, match="0 answers have spent 0 of it, and 3 more would make it"):
        whose.check(ROUND, rounds=3)
    spend(whose, round_number=0)
    spend(whose, round_number=1)
    before = charges(tmp_path)
    with pytest.raises(PolicyError, match=r"^budget: .* policy\.json, over all experiments"):
        whose.check(ROUND)
    with pytest.raises(PolicyError, match="Nothing was sent"):
        spend(whose, round_number=2)
    assert charges(tmp_path) == before == 2


@pytest.mark.usefixtures("quick")
def test_an_experiment_keeps_to_its_own_budget_where_the_site_has_none(tmp_path: Path) -> None:
    plan = PrivacySettings(epsilon=quick_epsilon([ROUND] * 2, delta=1e-5), delta=1e-5, clip=1.0)
    whose = account(tmp_path, plan=plan)
    whose.check(ROUND, rounds=2)
    spend(whose, round_number=0)
    whose.check(ROUND, rounds=2)
    spend(whose, round_number=0)
    with pytest.raises(PolicyError, match="the plan of hearts"):
        spend(whose, round_number=1)
    spend(account(tmp_path, plan=plan, experiment="another"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "again",
    [
        {"experiment": "other"},
        {"site": "south"},
        {"codes": [f" {code.lower()}" for code in reversed(PATIENTS)]},
        {"codes": [*PATIENTS[-1:], "new-1", "new-2"]},
        {"codes": [*PATIENTS, *(f"{code}_image_1" for code in PATIENTS)]},
    ],
    ids=["another experiment", "another site name", "other spelling and order", "one in common", "images with codes"],
)
def test_the_same_patients_have_one_budget(tmp_path: Path, again: dict[str, object]) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND], delta=1e-5), delta=1e-5)
    spend(account(tmp_path, budget=budget))
    with pytest.raises(PolicyError, match="1 answers have spent"):
        account(tmp_path, budget=budget, **again).check(ROUND)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
def test_other_patients_have_a_budget_of_their_own_and_new_codes_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND], delta=1e-5), delta=1e-5)
    spend(account(tmp_path, budget=budget))
    with caplog.at_level(logging.WARNING):
        other = account(tmp_path, budget=budget, codes=["X1", "X2"])
    assert "if these are the same people with new codes" in caplog.text
    spend(other)


@pytest.mark.usefixtures("quick")
def test_a_round_trained_anew_is_charged_again_and_one_sent_again_is_not(tmp_path: Path) -> None:
    whose = account(tmp_path)
    spend(whose, round_number=3, answer="first")
    assert whose.covers("first")
    assert not whose.covers("second")
    assert charges(tmp_path) == 1
    spend(whose, round_number=3, answer="second")
    assert charges(tmp_path) == 2


@pytest.mark.usefixtures("quick")
def test_an_answer_from_before_the_ledger_was_lost_is_not_covered(tmp_path: Path) -> None:
    spend(account(tmp_path / "a"), answer="first")
    assert not account(tmp_path / "b").covers("first")


@pytest.mark.usefixtures("quick")
def test_seeded_noise_is_never_charged(tmp_path: Path) -> None:
    whose = account(tmp_path)
    with pytest.raises(PrivacyError, match="drawn from a seed"):
        whose.charge(ROUND, round_number=0, randomness=Randomness.seeded(1), answer="a")
    assert charges(tmp_path) == 0


@pytest.mark.usefixtures("quick")
def test_two_experiments_that_were_both_let_in_do_not_pass_the_budget_together(tmp_path: Path) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND], delta=1e-5), delta=1e-5)
    one, two = (account(tmp_path, experiment=name, budget=budget) for name in ("one", "two"))
    one.check(ROUND)
    two.check(ROUND)
    spend(one)
    with pytest.raises(PolicyError):
        spend(two)


@pytest.mark.usefixtures("quick")
def test_of_many_at_once_only_as_many_are_charged_as_the_budget_has_room_for(tmp_path: Path) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND] * 3, delta=1e-5), delta=1e-5)

    def tried(number: int) -> bool:
        try:
            spend(account(tmp_path, experiment=f"e{number}", budget=budget))
        except PolicyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(tried, range(12))) == 3
    assert charges(tmp_path) == 3


def test_a_delta_above_one_over_the_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="above one over the 100 patients"):
        account(tmp_path, budget=Budget(epsilon=1.0, delta=0.02)).check(ROUND)
    with pytest.raises(PolicyError, match="above one over the 100 patients"):
        account(tmp_path, plan=PrivacySettings(epsilon=1.0, delta=0.02, clip=1.0)).check(ROUND)


def test_an_edited_ledger_lets_nothing_train(tmp_path: Path) -> None:
    whose = account(tmp_path)
    spend(whose)
    path = tmp_path / FOLDER / "charges.jsonl"
    path.write_text(path.read_text().replace("10.0", "99.0"))
    for attempt in (lambda: whose.check(ROUND), lambda: spend(whose), lambda: whose.covers("a")):
        with pytest.raises(PrivacyError, match="was edited"):
            attempt()


@pytest.mark.usefixtures("quick")
def test_a_ledger_that_was_set_back_spends_what_its_copy_knows(tmp_path: Path) -> None:
    budget = Budget(epsilon=quick_epsilon([ROUND], delta=1e-5), delta=1e-5)
    spend(account(tmp_path / "a", copy=tmp_path / "copy", budget=budget))
    (tmp_path / "a" / FOLDER / "charges.jsonl").unlink()
    with pytest.raises(PolicyError, match="1 answers have spent"):
        account(tmp_path / "a", copy=tmp_path / "copy", budget=budget).check(ROUND)


def test_a_site_names_the_place_of_the_copy_for_its_own_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_LEDGER_COPY", str(tmp_path / "copy"))
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "private"))
    with Ledger.of_site(tmp_path / "rehearsal" / "private").opened():
        assert not (tmp_path / "copy").exists()
    with Ledger.of_site(tmp_path / "private").opened():
        assert (tmp_path / "copy").exists()


@pytest.mark.parametrize("place", ["private", "private/copy", "private/.ledger", ".", "link"])
def test_a_copy_that_is_set_back_with_its_ledger_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "private")
    monkeypatch.setenv("MONAI_FEDLORA_LEDGER_COPY", str(tmp_path / place))
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "private"))
    with pytest.raises(PrivacyError, match="holds the other"):
        Ledger.of_site(tmp_path / "private")
    assert list((tmp_path / "private").iterdir()) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_copy_on_the_same_disk_is_kept_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, same: bool
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_LEDGER_COPY", str(tmp_path / "copy"))
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "private"))
    if not same:
        monkeypatch.setattr(ledger_module, "_disk_of", lambda path: hash(path))
    with Ledger.of_site(tmp_path / "private").opened():
        assert (tmp_path / "copy").exists()
    assert ("lies on the same disk as the private folder" in caplog.text) == same


def test_a_copy_of_nobody_knows_which_ledger_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_LEDGER_COPY", str(tmp_path / "copy"))
    monkeypatch.delenv("MONAI_FEDLORA_PRIVATE_DIR", raising=False)
    with pytest.raises(PrivacyError, match=r"MONAI_FEDLORA_PRIVATE_DIR is not.*set both"):
        Ledger.of_site(tmp_path / "private")


@pytest.mark.usefixtures("quick")
def test_an_experiment_that_has_given_all_its_answers_may_end(tmp_path: Path) -> None:
    plan = PrivacySettings(epsilon=quick_epsilon([ROUND] * 2, delta=1e-5), delta=1e-5, clip=1.0)
    for number in range(2):
        spend(account(tmp_path, plan=plan), round_number=number)
    account(tmp_path, plan=plan).check(ROUND, rounds=2)
    for rounds in (None, 3):
        with pytest.raises(PolicyError, match="2 answers have spent"):
            account(tmp_path, plan=plan).check(ROUND, rounds=rounds)


def test_charges_compose_by_the_accountant(tmp_path: Path) -> None:
    """A budget that the sum of the epsilons would pass has room for both."""
    each = Mechanism(noise_multiplier=2.0, sample_rate=0.1, steps=100)
    together = epsilon_of([each, each], delta=1e-5)
    assert together < 2 * epsilon_of([each], delta=1e-5)
    budget = Budget(epsilon=together, delta=1e-5)
    spend(account(tmp_path, experiment="one", budget=budget), mechanism=each)
    spend(account(tmp_path, experiment="two", budget=budget), mechanism=each)
    with pytest.raises(PolicyError):
        spend(account(tmp_path, experiment="three", budget=budget), mechanism=each)


def test_no_code_of_a_patient_is_in_the_ledger(tmp_path: Path) -> None:
    spend(account(tmp_path))
    found = b"".join(path.read_bytes() for path in (tmp_path / FOLDER).iterdir())
    assert not [code for code in PATIENTS if code.encode() in found]


@given(codes=st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=6), key=st.binary(min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_a_pool_depends_on_its_patients_and_the_key_alone(codes: set[str], key: bytes) -> None:
    pool = Pool.of(codes, key=key)
    assert Pool.of(sorted(codes, reverse=True), key=key).name == pool.name
    assert pool.shares_with(Pool.of({*codes, "more"}, key=key))
    assert not pool.shares_with(Pool.of(codes, key=bytes(byte ^ 255 for byte in key)))
