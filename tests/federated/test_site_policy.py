"""A site's own limits: what a file says is understood exactly or allows nothing, and any other job has another hash."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from monai_fedlora.data.origin import Origin
from monai_fedlora.errors import PolicyError
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.server_optimizer import FedAdam
from monai_fedlora.federated.site_policy import (
    Approval,
    Policy,
    effective_patients,
    evenness,
    job_hash,
    site_policy,
)
from monai_fedlora.files import write_json
from monai_fedlora.networks.prompts import bundle_prompts
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.scope import Manifest
from tests.helpers import make_manifest, make_plan

TEXTS = "image_2d_pfedst_classification"
HASH = "a" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_the_limits_are_written_and_read_back(tmp_path: Path) -> None:
    policy = Policy(
        least_cases=20,
        least_steps=9,
        most_rounds=7,
        methods=("dual_lora",),
        bundles=(),
        budget=Budget(epsilon=8.0, delta=1e-5),
        require_approval=True,
        approved=(Approval(sha256=HASH, experiment="trial", date="2026-01-31"),),
    )
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    write_json(tmp_path / "policy.json", {"most_rounds": 3})
    assert Policy.load(tmp_path / "policy.json") == Policy(most_rounds=3)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"least_case": 16}, "'least_case' is not a limit"),
        ({"least_cases": "16"}, "least_cases must be a whole number"),
        ({"least_cases": 16.0}, "least_cases"),
        ({"least_cases": 0}, "least_cases"),
        ({"least_steps": True}, "least_steps"),
        ({"most_rounds": None}, "most_rounds"),
        ({"methods": "dual_lora"}, "methods must be null for all, or a list of names"),
        ({"bundles": [1]}, "bundles"),
        ({"budget": 8}, "budget must be null for none, or an object with epsilon and delta"),
        ({"budget": {"epsilon": 8}}, "budget must be"),
        ({"budget": {"epsilon": 0, "delta": 1e-5}}, "an epsilon above 0"),
        ({"budget": {"epsilon": True, "delta": 1e-5}}, "an epsilon above 0"),
        ({"budget": {"epsilon": 8, "delta": 1}}, "a delta between 0 and 1"),
        ({"budget": {"epsilon": 8, "delta": "1e-5"}}, "a delta between 0 and 1"),
        ({"require_approval": 0}, "require_approval must be true or false"),
        ({"require_approval": "true"}, "require_approval"),
        ({"approved": {"sha256": HASH}}, "approved must be a list"),
        ({"approved": [HASH]}, "approved"),
        ({"approved": [{"sha256": HASH[1:], "experiment": "trial", "date": ""}]}, "approved"),
        ({"approved": [{"sha256": HASH, "experiment": "trial"}]}, "approved"),
        ([], "a policy is a JSON object"),
        (None, "a policy is a JSON object"),
    ],
)
def test_what_is_not_understood_allows_nothing(tmp_path: Path, content: Any, named: str) -> None:
    path = tmp_path / "policy.json"
    write_json(path, content)
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"least_cases": 16, "least_cases": 1}', b"[" * 100_000, b'{"least_cases": 1} x'],
    ids=["empty", "truncated", "not utf-8", "twice", "deep", "more"],
)
def test_a_damaged_file_allows_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy.json").write_bytes(content)
    with pytest.raises(PolicyError, match=r"policy\.json cannot be read"):
        site_policy(tmp_path)


@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_content_is_a_policy_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "policy.json"
    path.write_bytes(content)
    try:
        policy = Policy.load(path)
    except PolicyError as error:
        assert str(path) in str(error)
    else:
        assert Policy.from_json(policy.to_json(), source="") == policy


@given(key=st.sampled_from(sorted(Policy().to_json())), value=JSON)
def test_a_key_of_a_wrong_kind_is_never_a_looser_limit(key: str, value: Any) -> None:
    try:
        policy = Policy.from_json({key: value}, source="the file")
    except PolicyError as error:
        assert key in str(error)
        assert "the file" in str(error)
        return
    read = policy.to_json()[key]
    assert type(read) is type(value)
    assert read == value


def test_a_policy_that_cannot_be_opened_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONAI_FEDLORA_POLICY")
    assert site_policy(tmp_path) == Policy()
    (tmp_path / "folder" / "policy.json").mkdir(parents=True)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "policy.json").symlink_to(tmp_path / "gone")
    for name in ("folder", "link"):
        with pytest.raises(PolicyError, match="until it can, nothing trains"):
            site_policy(tmp_path / name)
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "nowhere.json"))
    with pytest.raises(PolicyError, match="nowhere"):
        site_policy()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_looked_into_allows_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir(mode=0o000)
    with pytest.raises(PolicyError):
        site_policy(folder)


def test_the_file_in_the_kit_wins_over_a_variable_set_for_a_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "rehearsal.json", {"least_cases": 1})
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "rehearsal.json"))
    assert site_policy(tmp_path).least_cases == 1
    write_json(tmp_path / "policy.json", {"least_cases": 50})
    assert site_policy(tmp_path).least_cases == 50
    assert site_policy().least_cases == 1


# ---- limits ---------------------------------------------------------------------------------------------


@given(method=st.sampled_from(["local", "fedit", "dual_lora"]), allowed=st.none() | st.lists(st.sampled_from("abc")))
def test_methods_are_those_of_the_list(method: str, allowed: list[str] | None) -> None:
    plan, names = make_plan(method=method), {"a": "local", "b": "fedit", "c": "dual_lora"}
    policy = Policy(methods=None if allowed is None else tuple(names[letter] for letter in allowed))
    if policy.methods is None or method in policy.methods:
        policy.check_plan(plan)
    else:
        with pytest.raises(PolicyError, match=r"^methods: "):
            policy.check_plan(plan)


@given(start=st.integers(0, 300), rounds=st.integers(1, 300), most=st.integers(1, 300))
def test_rounds_count_over_the_life_of_an_experiment(start: int, rounds: int, most: int) -> None:
    plan, policy = make_plan(start_round=start, rounds=rounds), Policy(most_rounds=most)
    if start + rounds <= most:
        policy.check_plan(plan)
    else:
        with pytest.raises(PolicyError, match=r"^most_rounds: "):
            policy.check_plan(plan)


def test_under_a_budget_nothing_trains_that_keeps_no_account() -> None:
    policy = Policy(budget=Budget(epsilon=8.0, delta=1e-5))
    with pytest.raises(PolicyError, match=r"^budget: the plan trains without differential privacy"):
        policy.check_plan(make_plan())
    policy.check_plan(make_plan(privacy=PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0)))
    Policy().check_plan(make_plan())


WEIGHTS = st.floats(1e-30, 1e30)


@given(weights=st.lists(WEIGHTS, max_size=40))
def test_there_are_never_more_patients_than_cases(weights: list[float]) -> None:
    found = effective_patients([str(number) for number in range(len(weights))], weights)
    assert found <= len(weights) + 1e-9
    assert found >= min(len(weights), 1) - 1e-9


@given(count=st.integers(1, 40), weight=WEIGHTS, images=st.integers(1, 5))
def test_patients_of_equal_weight_count_as_many_as_they_are(count: int, weight: float, images: int) -> None:
    patients = [str(number) for number in range(count)] * images
    assert effective_patients(patients, [weight] * len(patients)) == pytest.approx(count)


def test_who_outweighs_all_others_is_one_patient() -> None:
    assert effective_patients(list("abcdefgh"), [1e-9] * 7 + [1.0]) == pytest.approx(1, abs=1e-6)
    assert effective_patients(["a"] * 99 + ["b"], [1.0] * 100) < 1.03
    assert effective_patients([], []) == 0


def test_a_number_of_patients_that_is_none_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^least_cases: "):
        Policy(least_cases=1).check_cases(float("nan"))


# ---- approval -------------------------------------------------------------------------------------------


def changes(plan: Plan) -> dict[str, Any]:
    """Another valid value for every entry of a plan."""
    return {
        "experiment": "other",
        "bundle": "another_bundle",
        "method": "fedit",
        "sites": (*plan.sites, "more"),
        "classes": (*plan.classes, "more"),
        "rounds": plan.rounds + 1,
        "backbone_sha256": "1" * 64,
        "method_args": {"rank": 5},
        "start_round": plan.start_round + 1,
        "local_epochs": plan.local_epochs + 1,
        "size": "base",
        "seed": plan.seed + 1,
        "declared_cases": {plan.sites[0]: 77},
        "update_bound": plan.update_bound + 0.5,
        "max_share": 0.875,
        "max_update_rms": plan.max_update_rms + 0.5,
        "wire_dtype": "int8",
        "top_k": 0.25,
        "training": {"batch_size": 3},
        "changed": ("seed",),
        "start": Origin(kind="synthetic", name="trial"),
        "site_weights": "equal",
        "server_optimizer": FedAdam(),
        "fine_tune_epochs": 2,
        "participation": Participation(min_sites=1),
        "privacy": PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0),
        "bundle_sha256": "2" * 64,
        "versions": {"torch": "2.12.1"},
    }


@given(cases=st.integers(1, 60), step=st.integers(1, 30), epochs=st.integers(1, 6))
def test_cases_of_a_small_last_step_count_as_often_as_the_steps_say(cases: int, step: int, epochs: int) -> None:
    """Against what shuffled epochs really weigh, which is hardly less even: the same case is seldom left twice."""
    weights = [0.0] * cases
    for epoch in range(epochs):
        order = [(number - epoch * (cases % step)) % cases for number in range(cases)]
        for start in range(0, cases, step):
            part = order[start : start + step]
            for number in part:
                weights[number] += 1 / len(part)
    share = evenness(cases, step=step, epochs=epochs)
    assert 0 < share <= 1
    if cases % step == 0 or epochs * (cases % step) <= cases:
        expected = effective_patients([str(number) for number in range(cases)], weights) / cases
        assert share == pytest.approx(expected, rel=1e-6)


def test_a_case_that_has_every_second_step_for_itself_hides_in_few() -> None:
    assert 17 * evenness(17, step=16, epochs=2) < 7
    assert evenness(32, step=8, epochs=1) == evenness(5, step=8, epochs=1) == 1


def approving(plan: Plan, manifest: Manifest) -> Policy:
    approval = Approval(sha256=job_hash(plan, manifest), experiment=plan.experiment, date="2026-01-31")
    return Policy(require_approval=True, approved=(approval,))


def test_the_approved_job_alone_passes() -> None:
    plan, manifest = make_plan(), make_manifest()
    policy = approving(plan, manifest)
    policy.check_approved(plan, manifest)
    policy.check_approved(Plan.from_json(json.loads(json.dumps(plan.to_json()))), manifest)
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        Policy(require_approval=True).check_approved(plan, manifest)
    Policy().check_approved(plan, manifest)


@pytest.mark.parametrize("name", sorted(changes(make_plan())))
def test_any_other_entry_of_the_plan_is_another_job(name: str) -> None:
    plan, manifest = make_plan(), make_manifest()
    other = dataclasses.replace(plan, **{name: changes(plan)[name]})
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        approving(plan, manifest).check_approved(other, manifest)


def test_no_entry_of_a_plan_was_forgotten() -> None:
    """A new entry has to change the hash as well, and this list, or a test of its own, has to say how."""
    names = {field.name for field in dataclasses.fields(Plan)}
    assert names - set(changes(make_plan())) == {"prompts", "plugins", "task", "scale"}
    text = make_plan(bundle=TEXTS, method="pfedst", classes=("NV", "MEL"), prompts=bundle_prompts(TEXTS))
    assert text.prompts is not None
    other = dataclasses.replace(text, prompts=dataclasses.replace(text.prompts, templates=("a scan of {class}",)))
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        approving(text, make_manifest()).check_approved(other, make_manifest())


def test_another_scale_of_values_has_to_be_approved_anew() -> None:
    plan = make_plan(task="regression", classes=("ejection_fraction",), scale=((50.0, 15.0),))
    other = dataclasses.replace(plan, scale=((50.0, 10.0),))
    approving(plan, make_manifest()).check_approved(plan, make_manifest())
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        approving(plan, make_manifest()).check_approved(other, make_manifest())


def entries() -> st.SearchStrategy[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {"shape": st.lists(st.integers(0, 5), max_size=3), "dtype": st.sampled_from(["float16", "float32"])},
        optional={"travels": st.sampled_from(["up", "down"])},
    )
    return st.dictionaries(st.text(max_size=4), one, max_size=4)


def settings() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "rounds": st.integers(1, 50),
            "start_round": st.integers(0, 50),
            "local_epochs": st.integers(1, 9),
            "seed": st.integers(0, 9),
            "experiment": st.sampled_from(["one", "two"]),
            "training": st.dictionaries(st.sampled_from(["batch_size", "warmup_epochs"]), st.integers(1, 9)),
            "top_k": st.sampled_from([0.5, 1, 1.0]),
        },
    )


def whole(plan: Plan) -> Plan:
    """The experiment from its first round to the plan's last."""
    return dataclasses.replace(plan, start_round=0, rounds=plan.start_round + plan.rounds)


def test_the_rounds_that_are_left_of_an_approved_job_are_approved() -> None:
    plan = make_plan(rounds=7)
    policy = approving(plan, make_manifest())
    policy.check_approved(dataclasses.replace(plan, start_round=3, rounds=4), make_manifest())
    for start, rounds in ((3, 5), (7, 1), (0, 6)):
        with pytest.raises(PolicyError, match=r"^require_approval: "):
            policy.check_approved(dataclasses.replace(plan, start_round=start, rounds=rounds), make_manifest())


def test_a_job_with_rounds_to_spare_is_another_one() -> None:
    plain, spared = (
        make_plan(privacy=PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0, spare_rounds=spare)) for spare in (0, 1)
    )
    assert job_hash(plain, make_manifest()) != job_hash(spared, make_manifest())
    assert "spare_rounds" not in json.dumps(plain.to_json())


@given(one=settings(), other=settings(), declared=entries(), others=entries())
def test_hashes_are_equal_where_plan_and_manifest_are(
    one: Mapping[str, Any], other: Mapping[str, Any], declared: Any, others: Any
) -> None:
    first = make_plan(**one), Manifest.from_json(declared)
    second = make_plan(**other), Manifest.from_json(others)
    same = [json.dumps([whole(plan).to_json(), sent.to_json()], sort_keys=True) for plan, sent in (first, second)]
    assert (job_hash(*first) == job_hash(*second)) == (same[0] == same[1])


@given(others=entries())
def test_any_other_manifest_is_another_job(others: Any) -> None:
    plan, manifest, other = make_plan(), make_manifest(), Manifest.from_json(others)
    assume(other != manifest)
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        approving(plan, manifest).check_approved(plan, other)
