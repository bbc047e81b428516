"""A site trains, and sends, only what its own policy allows; the default policy holds where there is none."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ignite.engine import Events

from monai_fedlora.data.cases import Case
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import PhantomSettings
from monai_fedlora.engines.method import Turns
from monai_fedlora.errors import PolicyError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.furnished import Furnished
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.permit import EVALUATIONS, ROUNDS, Permit
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site_evaluation import SiteEvaluation
from monai_fedlora.federated.site_policy import Approval, Policy, job_hash
from monai_fedlora.files import read_json, write_json
from tests.federated.conftest import Prepared
from tests.helpers import make_plan, tiny_network

TINY = Policy(least_cases=1, least_steps=1)


class Untouched:
    """Fails a test in which a site evaluates or trains."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for part, name in ((SiteEvaluation, "of_network"), (Furnished, "part")):
            patch.setattr(part, name, self._note(name))

    def _note(self, name: str) -> Callable[..., Any]:
        def call(*_: Any) -> None:
            self.done.append(name)
            raise AssertionError(name)

        return call


def listed(prepared: Prepared, folder: Path, **changes: Any) -> dict[str, Any]:
    """Where a site finds the first prepared one's cases with other entries; ``count`` takes the first ones."""
    value = read_json(prepared.data / "site-1" / "datalist.json")
    count = changes.pop("count", None)
    training = value["training"][:count]
    for number, case in enumerate(training):
        case |= {key: change(number) for key, change in changes.items()}
    write_json(folder / "site-1" / "datalist.json", {**value, "training": training, "validation": [], "test": []})
    return {**prepared.places, "data_root": str(folder)}


# ---- before anything is read or built -------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.integers(1, 9),
    start=st.integers(0, 9),
    most=st.integers(1, 18),
    least=st.integers(1, 8),
    methods=st.none() | st.sets(st.sampled_from(["dual_lora", "fedit"])),
    bundles=st.none() | st.sets(st.sampled_from(["cine_cmr_dual_lora_classification", "other"])),
)
def test_a_site_reads_no_image_and_builds_no_network_for_a_plan_beyond_its_limits(
    prepared: Prepared,
    tmp_path: Path,
    rounds: int,
    start: int,
    most: int,
    least: int,
    methods: set[str] | None,
    bundles: set[str] | None,
) -> None:
    policy = Policy(
        least_cases=least,
        least_steps=1,
        most_rounds=most,
        methods=None if methods is None else tuple(methods),
        bundles=None if bundles is None else tuple(bundles),
    )
    plan = prepared.plan(rounds=rounds, start_round=start)
    broken = {
        "methods": methods is not None and plan.method not in methods,
        "bundles": bundles is not None and plan.bundle not in bundles,
        "most_rounds": start + rounds > most,
        "least_cases": least > 4,
    }
    with pytest.MonkeyPatch.context() as patch:
        untouched = Untouched(patch)
        with pytest.raises((PolicyError, AssertionError)) as caught:
            Site(
                name="site-1",
                plan=plan,
                private_root=tmp_path,
                policy=lambda: policy,
                source=prepared.source,
            )
    allowed = not any(broken.values())
    assert bool(untouched.done) == allowed
    assert allowed or broken[str(caught.value).partition(":")[0]]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", ["{", '{"least_case": 1}'])
def test_a_policy_that_cannot_be_understood_lets_nothing_train(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    (tmp_path / "mine.json").write_text(policy)
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "mine.json"))
    untouched = Untouched(monkeypatch)
    with pytest.raises(PolicyError, match=r"mine\.json"):
        Site(name="site-1", plan=prepared.plan(), private_root=tmp_path / "private", source=prepared.source)
    assert untouched.done == []


def test_without_a_policy_the_built_in_limits_hold_in_every_runner(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONAI_FEDLORA_POLICY")
    untouched = Untouched(monkeypatch)
    with pytest.raises(PolicyError, match=r"^least_cases: .*4 patients.*at least 16"):
        run_in_process(prepared.plan(), folder=tmp_path, **prepared.places)
    assert untouched.done == []
    assert not (tmp_path / "private").exists()


def test_two_images_of_one_patient_are_one_patient(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = Untouched(monkeypatch)
    places = listed(prepared, tmp_path, unit=lambda number: f"patient-{number // 2}")
    with pytest.raises(PolicyError, match=r"^least_cases: .* 2 patients"):
        policy = Policy(least_cases=3, least_steps=1)
        Site(
            name="site-1",
            plan=prepared.plan(),
            private_root=tmp_path,
            policy=lambda: policy,
            source=Installed(**places),
        )
    assert untouched.done == []


def test_a_unit_and_a_subject_of_one_name_are_two_patients() -> None:
    cases = [Case(subject="a", label=0, group="NOR"), Case(subject="b", label=0, group="NOR", unit="a")]
    permit = Permit(read=lambda: Policy(least_cases=2), plan=make_plan(), site="north", private_root="unused")
    permit.trains_on(cases)


def test_ways_of_writing_a_code_are_one_patient() -> None:
    cases = [Case(subject=code, label=0, group="NOR") for code in ("p1", "P1", " p1 ")]
    permit = Permit(read=lambda: Policy(least_cases=2), plan=make_plan(), site="north", private_root="unused")
    with pytest.raises(PolicyError, match="trains on 1 patients"):
        permit.trains_on(cases)


# ---- what the loss weighs, and how many steps -----------------------------------------------------------


def test_class_weights_that_leave_one_case_make_it_one_case(prepared: Prepared, tmp_path: Path) -> None:
    """Three hearts of one class and one of the other: the plan's weights ask for the gradient of the one alone."""
    places = listed(prepared, tmp_path, label=lambda number: int(number == 0))
    policy = Policy(least_cases=3, least_steps=1)

    def build(**training: Any) -> Site:
        plan = prepared.plan(training={"batch_size": 4, "warmup_epochs": 0, **training})
        return Site(name="site-1", plan=plan, private_root=tmp_path, policy=lambda: policy, source=Installed(**places))

    assert build(class_weights=[1.0, 1.0])
    with pytest.raises(PolicyError, match=r"^least_cases: .* 1 patients"):
        build(class_weights=[1e-9, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps", "local_epochs", "steps"),
    [(4, 1, 1, 1), (3, 1, 1, 2), (1, 2, 3, 6), (2, 1, 2, 4)],
)
def test_steps_are_those_of_the_sites_own_loader(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    accumulation_steps: int,
    local_epochs: int,
    steps: int,
) -> None:
    training = {"batch_size": batch_size, "accumulation_steps": accumulation_steps, "warmup_epochs": 0}
    plan = prepared.plan(training=training, local_epochs=local_epochs)

    def build(least: int) -> Site:
        policy = Policy(least_cases=1, least_steps=least)
        return Site(name="site-1", plan=plan, private_root=tmp_path, policy=lambda: policy, source=prepared.source)

    assert build(steps)
    with pytest.raises(PolicyError, match=rf"^least_steps: .* {steps} optimiser steps"):
        build(steps + 1)
    assert not (tmp_path / plan.experiment).exists()


def test_a_step_of_the_private_head_alone_hides_nothing(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan(method="fedrep", training={"batch_size": 1, "warmup_epochs": 0})
    places: dict[str, Any] = {"private_root": tmp_path, "source": prepared.source}
    with pytest.raises(PolicyError, match=r"^least_steps: .* 2 optimiser steps"):
        Site(name="site-1", plan=plan, policy=lambda: Policy(least_cases=1, least_steps=3), **places)
    site = Site(name="site-1", plan=plan, policy=lambda: Policy(least_cases=1, least_steps=2), **places)
    site.train_round(0, build_shared(plan)[1])
    assert site._permit._done == 2


def test_a_round_in_which_only_the_private_head_has_its_turn_sends_back_what_came(
    prepared: Prepared, tmp_path: Path
) -> None:
    """One step a round: the head's turn first, then that of what leaves, with all four patients in its step."""
    plan = prepared.plan(method="fedrep", rounds=4, training={"batch_size": 4, "warmup_epochs": 0})
    places: dict[str, Any] = {"private_root": tmp_path, "source": prepared.source}
    with pytest.raises(PolicyError, match=r"^least_steps: .* 1 optimiser steps"):
        Site(name="site-1", plan=plan, policy=lambda: Policy(least_cases=1, least_steps=2), **places)
    site = Site(name="site-1", plan=plan, policy=lambda: Policy(least_cases=4, least_steps=1), **places)
    first = build_shared(plan)[1]
    still = site.train_round(0, first).tensors
    assert site._permit._done == 0
    assert all(np.array_equal(still[key], first[key]) for key in first)
    moved = site.train_round(1, still).tensors
    assert site._permit._done == 1
    assert any(not np.array_equal(moved[key], first[key]) for key in first)


@pytest.mark.parametrize(("epochs", "share", "patients"), [(1, 0.5, 2), (1, 0.75, 1), (2, 0.5, 4), (2, 0.75, 2)])
def test_patients_whom_the_private_head_alone_saw_hide_nobody(
    prepared: Prepared, tmp_path: Path, epochs: int, share: float, patients: int
) -> None:
    """Of four patients, one a step, the tensors that leave see those of their own phase alone."""
    training = {"batch_size": 1, "warmup_epochs": 0}
    plan = prepared.plan(method="fedrep", method_args={"head_share": share}, training=training, local_epochs=epochs)

    def build(least: int) -> Site:
        policy = Policy(least_cases=least, least_steps=1)
        return Site(name="site-1", plan=plan, private_root=tmp_path, policy=lambda: policy, source=prepared.source)

    assert build(patients)
    with pytest.raises(PolicyError, match=rf"^least_cases: .* {patients} patients"):
        build(patients + 1)


def test_a_site_that_sends_no_tensor_may_take_as_few_steps_as_it_likes(prepared: Prepared, tmp_path: Path) -> None:
    policy = Policy(least_cases=1, least_steps=50)
    plan = prepared.plan(method="local")
    assert Site(name="site-1", plan=plan, private_root=tmp_path, policy=lambda: policy, source=prepared.source)


def test_what_was_trained_less_than_planned_does_not_leave(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan(training={"batch_size": 1, "warmup_epochs": 0})
    places: dict[str, Any] = {"private_root": tmp_path, "source": prepared.source}
    policy = Policy(least_cases=1, least_steps=4)
    site = Site(name="site-1", plan=plan, policy=lambda: policy, **places)
    site._trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.terminate())
    with pytest.raises(PolicyError, match=r"^least_steps: .* 1 optimiser steps"):
        site.train_round(0, build_shared(plan)[1])
    assert site.store.rounds() == []


@functools.cache
def attached(method: str) -> torch.nn.Module:
    network = tiny_network()
    make_plan(method=method).build_method().attach(network)
    return network


@given(
    loader=st.integers(1, 30),
    accumulation=st.integers(1, 8),
    epochs=st.integers(1, 6),
    least=st.integers(1, 60),
    method=st.sampled_from(["dual_lora", "fedrep", "feddpa"]),
)
def test_no_plan_takes_fewer_steps_than_the_policy_asks_for(
    loader: int, accumulation: int, epochs: int, least: int, method: str
) -> None:
    plan = make_plan(local_epochs=epochs, method=method)
    permit = Permit(
        read=lambda: dataclasses.replace(TINY, least_steps=least), plan=plan, site="north", private_root="x"
    )
    network, trainer = attached(method), SimpleNamespace(data_loader=range(loader), accumulation_steps=accumulation)
    manifest = plan.scope(network).manifest
    permit.sends(manifest)
    steps = sum(1 for _ in range(epochs) for _ in range(0, loader, accumulation))
    phases = plan.build_method().phases(network)
    if phases:
        turns = Turns.of([phase.share for phase in phases], steps)
        rounds = [[phases[number] for number in turns.in_round(number)] for number in range(turns.rounds)]
        moved = [sum(any(map(phase.trains, manifest.entries)) for phase in whose) for whose in rounds]
        steps = min(filter(None, moved))
    try:
        permit.trains_with(trainer, torch.optim.SGD(network.parameters(), lr=0.1), network)
    except PolicyError as error:
        assert str(error).startswith("least_steps: ")
        assert steps < least
    else:
        assert steps >= least


# ---- rounds and approvals, over the life of an experiment -----------------------------------------------


class Hospital:
    """A site that is built anew for every message, under a policy that may change."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.prepared, self.folder, self.policy = prepared, folder, TINY
        self.shared = build_shared(prepared.plan())[1]

    def train(self, number: int, **changes: Any) -> None:
        self.site(**changes).train_round(number, self.shared)

    def site(self, **changes: Any) -> Site:
        plan = self.prepared.plan(**changes)
        return Site(
            name="site-1",
            plan=plan,
            private_root=self.folder,
            policy=lambda: self.policy,
            source=self.prepared.source,
        )


@pytest.fixture
def hospital(prepared: Prepared, tmp_path: Path) -> Hospital:
    return Hospital(prepared, tmp_path / "private")


@pytest.mark.slow
def test_rounds_are_counted_through_restarts_and_repetitions(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.policy = dataclasses.replace(TINY, most_rounds=3)
    for number in (0, 1, 0):
        hospital.train(number)
    site = hospital.site()
    untouched = Untouched(monkeypatch)
    for number in (1, 2):  # round 0 has a kept answer, which is sent again
        with pytest.raises(PolicyError, match=r"^most_rounds: .* 3 rounds here, of at most 3"):
            site.train_round(number, hospital.shared)
    assert untouched.done == []
    monkeypatch.undo()
    hospital.train(0, experiment="another")
    counts = hospital.folder / ".messages" / "trial" / "site-1.json"
    assert read_json(counts) == {ROUNDS: 3, EVALUATIONS: 0}
    assert (counts.stat().st_mode | counts.parent.stat().st_mode) & 0o077 == 0


def test_final_evaluations_are_counted_as_well(hospital: Hospital) -> None:
    hospital.policy = dataclasses.replace(TINY, most_rounds=2)
    site = hospital.site()
    for _ in range(2):
        site.finish(hospital.shared)
    with pytest.raises(PolicyError, match=r"^most_rounds: .* 2 final evaluations"):
        site.finish(hospital.shared)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rounds": 0}', '{"rounds": -1, "final evaluations": 0}'])
def test_counts_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".messages" / "trial" / "north.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    permit = Permit(read=lambda: TINY, plan=make_plan(), site="north", private_root=tmp_path)
    with pytest.raises(PolicyError, match=r"^most_rounds: .*north\.json"):
        permit.begin(ROUNDS)


@settings(max_examples=15)
@given(asked=st.lists(st.sampled_from([ROUNDS, EVALUATIONS]), max_size=12), most=st.integers(2, 6))
def test_no_more_messages_leave_than_the_policy_allows(
    asked: list[str], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, sent = tmp_path_factory.mktemp("private"), []
    for what in asked:
        permit = Permit(
            read=lambda: dataclasses.replace(TINY, most_rounds=most),
            plan=make_plan(),
            site="north",
            private_root=folder,
        )
        try:
            permit.begin(what)
        except PolicyError:
            assert sent.count(what) == most
        else:
            permit.end(what)
            sent.append(what)
    assert all(sent.count(what) == min(asked.count(what), most) for what in (ROUNDS, EVALUATIONS))


def approved(plan: Plan) -> Policy:
    approval = Approval(sha256=job_hash(plan, build_shared(plan)[0]), experiment=plan.experiment, date="2026-01-31")
    return dataclasses.replace(TINY, require_approval=True, approved=(approval,))


@pytest.mark.slow
def test_a_site_that_asks_for_approval_trains_the_approved_job_alone(
    hospital: Hospital, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.policy = approved(prepared.plan())
    hospital.train(0)
    for change in ({"seed": 1}, {"rounds": 3}, {"start_round": 1, "rounds": 2}, {"method_args": {"rank": 2}}):
        with pytest.raises(PolicyError, match=r"^require_approval: "):
            hospital.site(**change)
    assert hospital.site().store.rounds("answered") == [0]


def test_an_approval_that_is_withdrawn_ends_a_run_at_the_next_message(hospital: Hospital, prepared: Prepared) -> None:
    hospital.policy = approved(prepared.plan())
    site = hospital.site()
    site.train_round(0, hospital.shared)
    hospital.policy = dataclasses.replace(hospital.policy, approved=())
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        site.train_round(1, hospital.shared)
    with pytest.raises(PolicyError, match=r"^require_approval: "):
        site.finish(hospital.shared)
    assert site.store.rounds("answered") == [0]


def test_the_demonstrations_sites_are_within_the_built_in_limits() -> None:
    """Every shipped job that sends tensors, at the sizes of the phantoms that a site without data trains on."""
    for config in sorted((Path(__file__).resolve().parents[2] / "nvflare_jobs").glob("*/app/config")):
        plan = Plan.load(config / "plan.json")
        cases = (PhantomSettings() if plan.bundle.startswith("cine") else PhotoPhantomSettings()).training
        Policy().check_plan(plan)
        Policy().check_cases(cases)
        if read_json(config / "manifest.json") and plan.method != "clip_zero_shot":
            steps = plan.local_epochs * -(-cases // plan.training["batch_size"])
            Policy().check_steps(steps // 2)  # half a round trains what leaves, in a method with phases
