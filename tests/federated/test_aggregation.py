"""Averaging against numpy, and refusals that cost the refused site and nobody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.methods import get_method
from monai_fedlora.scope import Entry, Manifest
from tests.helpers import make_manifest, make_payload, make_update, scored

SITES = ("east", "north", "south", "west")
MANIFEST = make_manifest()
METHOD = get_method("fedit")
Payload = dict[str, np.ndarray]


def report(cases: int = 10, *, round_number: int = 0, **more: Any) -> dict[str, Any]:
    return {"round": round_number, "cases": cases, **more}


def opened(
    *, manifest: Manifest = MANIFEST, declared: dict[str, int] | None = None, limit: float = 1e3, round_number: int = 0
) -> SharedAverage:
    average = SharedAverage(
        method=METHOD,
        manifest=manifest,
        sites=SITES,
        declared_cases=declared,
        update_bound=1e300,
        max_update_rms=limit,
    )
    average.begin(round_number, make_payload(manifest, seed=99))
    return average


def same_bits(one: Payload, other: Payload) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes() for key in one
    )


updates = st.dictionaries(
    st.sampled_from(SITES), st.tuples(st.integers(0, 1000), st.integers(1, 500)), min_size=1, max_size=4
)
dtypes = st.sampled_from(["float16", "float32"])


@pytest.mark.slow
@given(updates, dtypes)
def test_the_average_is_weighted_by_cases(values: dict[str, tuple[int, int]], dtype: str) -> None:
    manifest = make_manifest(dtype)
    average = opened(manifest=manifest, declared=dict.fromkeys(SITES, 500))
    for site, (seed, cases) in values.items():
        average.accept(site, make_update(make_payload(manifest, seed), report(cases)))
    result = average.aggregate()
    weights = [cases for _, cases in values.values()]
    for key, entry in manifest.entries.items():
        stacked = np.stack([make_payload(manifest, seed)[key] for seed, _ in values.values()]).astype(np.float64)
        expected = np.average(stacked, axis=0, weights=weights)
        assert result[key].dtype == np.dtype(entry.dtype)
        assert result[key].shape == entry.shape
        np.testing.assert_allclose(result[key], expected, rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-7)


@pytest.mark.slow
@given(updates, dtypes, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_a_bit(
    values: dict[str, tuple[int, int]], dtype: str, shuffler: Any
) -> None:
    manifest = make_manifest(dtype)
    results, scores = [], []
    for _ in range(2):
        order = list(values)
        shuffler.shuffle(order)
        average = opened(manifest=manifest)
        for site in order:
            seed, cases = values[site]
            metrics = {"personal": scored(seed / 1001)}
            average.accept(site, make_update(make_payload(manifest, seed), report(cases, validation=metrics)))
        results.append(average.aggregate())
        scores.append(average.score("balanced_accuracy"))
    assert same_bits(*results)
    assert scores[0] == scores[1]


def test_the_order_of_arrival_does_not_change_a_bit_even_where_a_sum_cancels() -> None:
    """1e30 + 1 - 1e30 is 0 in that order and 1 in another, in double precision too."""
    manifest = Manifest({"w": Entry((1,), "float32")})
    values = {"east": 1e30, "north": 1.0, "south": -1e30, "west": 1.0}
    results = set()
    for order in (sorted(values), sorted(values, reverse=True), ["east", "south", "north", "west"]):
        average = opened(manifest=manifest, limit=1e40)
        for site in order:
            average.accept(site, make_update({"w": np.array([values[site]], np.float32)}, report()))
        results.add(average.aggregate()["w"].tobytes())
    assert len(results) == 1


def test_the_score_does_not_depend_on_the_order_of_arrival() -> None:
    """With these values a sum in another order differs in the last bit."""
    values = {"east": (1, 0.1), "north": (1, 0.2), "south": (1, 0.3), "west": (1, 0.7)}
    scores = set()
    for order in (sorted(values), sorted(values, reverse=True), ["south", "west", "east", "north"]):
        average = opened()
        for site in order:
            cases, score = values[site]
            metrics = {"personal": scored(score)}
            average.accept(site, make_update(make_payload(MANIFEST), report(cases, validation=metrics)))
        scores.add(average.score("balanced_accuracy"))
    assert len(scores) == 1


@given(st.sampled_from(SITES), st.integers(0, 1000), st.integers(1, 10**6), dtypes)
def test_one_site_alone_gets_its_own_update_back(site: str, seed: int, cases: int, dtype: str) -> None:
    manifest = make_manifest(dtype)
    average = opened(manifest=manifest)
    average.accept(site, make_update(make_payload(manifest, seed), report(cases)))
    assert same_bits(average.aggregate(), make_payload(manifest, seed))


@given(st.dictionaries(st.sampled_from(SITES), st.integers(1, 500), min_size=2), dtypes)
def test_sites_that_agree_get_what_they_agree_on(cases: dict[str, int], dtype: str) -> None:
    manifest = make_manifest(dtype)
    average = opened(manifest=manifest)
    for site, count in cases.items():
        average.accept(site, make_update(make_payload(manifest, 5), report(count)))
    assert same_bits(average.aggregate(), make_payload(manifest, 5))


def finite(dtype: str) -> st.SearchStrategy[np.ndarray]:
    width = 16 if dtype == "float16" else 32
    return hnp.arrays(dtype, (3,), elements=st.floats(allow_nan=False, allow_infinity=False, width=width))


@pytest.mark.slow
@given(st.data(), dtypes)
def test_the_average_lies_between_the_updates_and_is_finite(data: st.DataObject, dtype: str) -> None:
    manifest = Manifest({"w": Entry((3,), dtype)})
    average = opened(manifest=manifest, limit=1e300)
    sent = {}
    for site in data.draw(st.lists(st.sampled_from(SITES), min_size=1, unique=True)):
        sent[site] = data.draw(finite(dtype))
        average.accept(site, make_update({"w": sent[site]}, report(data.draw(st.integers(1, 10**6)))))
    result = average.aggregate()["w"]
    stacked = np.stack(list(sent.values())).astype(np.float64)
    slack = np.finfo(dtype).eps * np.abs(stacked).max(axis=0) + np.finfo(dtype).smallest_subnormal
    assert np.isfinite(result).all()
    assert (result >= stacked.min(axis=0) - slack).all()
    assert (result <= stacked.max(axis=0) + slack).all()


def test_half_precision_updates_are_summed_in_double_precision() -> None:
    """Summed in float16, a thousand updates of 0.001 give a visibly different mean."""
    manifest = Manifest({"w": Entry((1,), "float16")})
    sites = tuple(f"s{number}" for number in range(1000))
    average = SharedAverage(method=METHOD, manifest=manifest, sites=sites)
    average.begin(0, {"w": np.zeros(1, np.float16)})
    for number, site in enumerate(sites):
        average.accept(site, make_update({"w": np.array([0.1 + number % 2 * 0.2], np.float16)}, report(1)))
    np.testing.assert_allclose(average.aggregate()["w"], 0.2, rtol=1e-3)


# ---- refusals -------------------------------------------------------------------------------------------


def damaged(payload: Payload, kind: str) -> Any:
    first = next(iter(payload))
    if kind == "nan":
        payload[first] = np.full_like(payload[first], np.nan)
    elif kind == "infinity":
        payload[first] = np.full_like(payload[first], np.inf)
    elif kind == "undeclared key":
        payload["encoder.blocks.1.attn.q.lora_A.private.weight"] = np.zeros(3, np.float32)
    elif kind == "missing key":
        del payload[first]
    elif kind == "shape":
        payload[first] = payload[first][:1]
    elif kind == "dtype":
        payload[first] = payload[first].astype(np.float64)
    elif kind == "too large":
        payload = {key: value + 1e4 for key, value in payload.items()}
    elif kind == "list":
        return list(payload.values())
    elif kind == "nothing":
        return None
    return payload


BAD_PAYLOADS = (
    "nan",
    "infinity",
    "undeclared key",
    "missing key",
    "shape",
    "dtype",
    "too large",
    "list",
    "nothing",
)
BAD_REPORTS: dict[str, Any] = {
    "no report": None,
    "empty report": {},
    "no cases": {"round": 0},
    "no round": {"cases": 5},
    "earlier round": report(5, round_number=2),
    "later round": report(5, round_number=4),
    "zero cases": report(0, round_number=3),
    "negative cases": report(-5, round_number=3),
    "fractional cases": {"round": 3, "cases": 1.5},
    "inflated cases": report(41, round_number=3),
    "text": report(5, round_number=3, note="patient007"),
    "infinite score": report(5, round_number=3, validation={"personal": {"balanced_accuracy": 1e308}}),
}


def attempts(site: str) -> dict[str, tuple[str, Any, Any]]:
    good, fine = make_payload(MANIFEST, 7), report(5, round_number=3)
    bad = {kind: (site, damaged(make_payload(MANIFEST, 7), kind), fine) for kind in BAD_PAYLOADS}
    bad |= {kind: (site, good, value) for kind, value in BAD_REPORTS.items()}
    bad |= {f"site {name!r}": (name, good, fine) for name in ("stranger", "", "?", None, "North")}
    return bad


@pytest.mark.parametrize("kind", sorted(attempts("west")))
def test_a_bad_update_is_refused_and_the_others_get_what_they_would_have_got(kind: str) -> None:
    site, payload, claimed = attempts("west")[kind]
    average = opened(declared={"west": 40}, round_number=3)
    average.accept("north", make_update(make_payload(MANIFEST, 1), report(10, round_number=3)))
    with pytest.raises(PrivacyError) as caught:
        average.accept(site, make_update(payload, claimed))
    assert "patient007" not in str(caught.value)
    average.accept("south", make_update(make_payload(MANIFEST, 2), report(30, round_number=3)))

    clean = opened(round_number=3)
    clean.accept("north", make_update(make_payload(MANIFEST, 1), report(10, round_number=3)))
    clean.accept("south", make_update(make_payload(MANIFEST, 2), report(30, round_number=3)))
    assert same_bits(average.aggregate(), clean.aggregate())
    assert set(average.updates) == {"north", "south"}


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(attempts("west"))), max_size=6), st.randoms(use_true_random=False))
def test_no_sequence_of_refusals_changes_the_result(kinds: list[str], shuffler: Any) -> None:
    bad = [attempts("west")[kind] for kind in kinds]
    good = [(site, make_payload(MANIFEST, seed), report(9, round_number=3)) for seed, site in enumerate(SITES[:3])]
    steps = [*((False, update) for update in bad), *((True, update) for update in good)]
    shuffler.shuffle(steps)
    average, clean = opened(declared={"west": 40}, round_number=3), opened(round_number=3)
    for accepted, update in steps:
        if accepted:
            average.accept(update[0], make_update(*update[1:]))
        else:
            with pytest.raises(PrivacyError):
                average.accept(update[0], make_update(*update[1:]))
    for update in good:
        clean.accept(update[0], make_update(*update[1:]))
    assert same_bits(average.aggregate(), clean.aggregate())


def test_a_second_answer_is_refused_and_the_first_stays() -> None:
    average = opened()
    average.accept("north", make_update(make_payload(MANIFEST, 1), report()))
    with pytest.raises(Refusal, match="already answered"):
        average.accept("north", make_update(make_payload(MANIFEST, 2), report()))
    assert same_bits(average.aggregate(), make_payload(MANIFEST, 1))


def test_a_refused_site_may_answer_again_in_the_same_round() -> None:
    average = opened()
    with pytest.raises(Refusal):
        average.accept("north", make_update(damaged(make_payload(MANIFEST, 1), "nan"), report()))
    average.accept("north", make_update(make_payload(MANIFEST, 1), report()))
    assert same_bits(average.aggregate(), make_payload(MANIFEST, 1))


def test_accepted_rounds_are_written_down_by_name_whoever_answers_first() -> None:
    average = opened(round_number=4)
    for site in reversed(SITES):
        average.accept(site, make_update(make_payload(MANIFEST), report(round_number=4)))
    assert list(average.accepted.items()) == [(site, 4) for site in sorted(SITES)]


def test_an_old_update_sent_again_in_a_later_round_is_refused() -> None:
    average = opened()
    average.accept("north", make_update(make_payload(MANIFEST, 1), report()))
    average.begin(1, make_payload(MANIFEST, 1))
    assert not average.updates
    with pytest.raises(Refusal, match=r"round 0.*round 1"):
        average.accept("north", make_update(make_payload(MANIFEST, 1), report(round_number=0)))


@pytest.mark.parametrize(("cases", "accepted"), [(1, True), (40, True), (41, False)])
def test_a_declared_site_cannot_claim_more_cases(cases: int, accepted: bool) -> None:
    average = opened(declared={"north": 40})
    if accepted:
        average.accept("north", make_update(make_payload(MANIFEST), report(cases)))
    else:
        with pytest.raises(Refusal, match="declared 40"):
            average.accept("north", make_update(make_payload(MANIFEST), report(cases)))


def test_an_undeclared_site_is_held_to_its_first_accepted_claim() -> None:
    average = opened()
    with pytest.raises(Refusal):
        average.accept("north", make_update(damaged(make_payload(MANIFEST), "nan"), report(1000)))
    average.accept("north", make_update(make_payload(MANIFEST), report(10)))
    for number, cases in enumerate((9, 10), start=1):
        average.begin(number, make_payload(MANIFEST))
        average.accept("north", make_update(make_payload(MANIFEST), report(cases, round_number=number)))
    average.begin(3, make_payload(MANIFEST))
    with pytest.raises(Refusal, match="claims 11"):
        average.accept("north", make_update(make_payload(MANIFEST), report(11, round_number=3)))


@pytest.mark.parametrize(("limit", "accepted"), [(0.51, True), (0.49, False)])
def test_the_change_is_a_root_mean_square_over_all_tensors(limit: float, accepted: bool) -> None:
    average = opened(limit=limit)
    steps = {"a": 0.5, "b.weight": -0.5, "c": 0.5}
    payload = {key: np.array(value + steps[key], np.float32) for key, value in make_payload(MANIFEST, seed=99).items()}
    if accepted:
        average.accept("north", make_update(payload, report()))
    else:
        with pytest.raises(Refusal, match=r"by 0.5 \(rms\)"):
            average.accept("north", make_update(payload, report()))


def test_one_far_value_among_many_counts() -> None:
    manifest = Manifest({"w": Entry((100,), "float32")})
    average = SharedAverage(method=METHOD, manifest=manifest, sites=SITES, max_update_rms=1.0)
    average.begin(0, {"w": np.zeros(100, np.float32)})
    far = np.zeros(100, np.float32)
    far[7] = 10.5
    with pytest.raises(Refusal, match="rms"):
        average.accept("north", make_update({"w": far}, report()))
    far[7] = 9.5
    average.accept("north", make_update({"w": far}, report()))


def test_without_any_accepted_update_the_shared_tensors_stay() -> None:
    average = opened()
    reference = make_payload(MANIFEST, seed=99)
    with pytest.raises(Refusal):
        average.accept("north", make_update(damaged(make_payload(MANIFEST), "too large"), report()))
    result = average.aggregate()
    assert same_bits(result, reference)
    for value in result.values():
        value += 1
    assert same_bits(average.aggregate(), reference)
    assert average.score("balanced_accuracy") is None


def test_a_round_cannot_start_from_undeclared_or_spoilt_tensors() -> None:
    average = opened()
    for kind in ("nan", "undeclared key", "missing key", "dtype"):
        with pytest.raises(PrivacyError):
            average.begin(1, damaged(make_payload(MANIFEST), kind))


def test_an_update_before_the_first_round_is_refused() -> None:
    average = SharedAverage(method=METHOD, manifest=MANIFEST, sites=SITES)
    for number in (-1, 0):
        with pytest.raises(PrivacyError):
            average.accept("north", make_update(make_payload(MANIFEST), report(round_number=number)))


def test_the_score_is_the_case_weighted_mean_of_the_sites_that_have_one() -> None:
    average = opened()
    average.accept(
        "north",
        make_update(make_payload(MANIFEST), report(10, validation={"personal": {**scored(0.5), "auroc": 0.9}})),
    )
    average.accept("south", make_update(make_payload(MANIFEST), report(30, validation={"personal": scored(0.9)})))
    average.accept("east", make_update(make_payload(MANIFEST), report(50, validation={"personal": {"auroc": None}})))
    average.accept("west", make_update(make_payload(MANIFEST), report(70)))
    assert average.score("balanced_accuracy") == pytest.approx(0.8)
    assert average.score("auroc") == pytest.approx(0.9)
    assert average.score("mcc") is None


def test_with_equal_weights_an_update_counts_as_much_as_any_other_whatever_its_cases() -> None:
    average = opened()
    average.equal_weights = True
    payloads = {site: make_payload(MANIFEST, seed=seed) for seed, site in enumerate(("north", "south"))}
    for (site, payload), cases, value in zip(payloads.items(), (10, 490), (0.5, 0.9), strict=True):
        average.accept(site, make_update(payload, report(cases, validation={"personal": scored(value)})))
    found = average.aggregate()
    for key, entry in MANIFEST.down.entries.items():
        expected = np.mean([payload[key].astype(np.float64) for payload in payloads.values()], axis=0)
        assert np.array_equal(found[key], expected.astype(entry.dtype))
    assert average.score("balanced_accuracy") == pytest.approx(0.7)
    limits = average.limits()
    assert limits is not None
    assert limits["weights"] == {}


# ---- tensors that travel one way ------------------------------------------------------------------------

ONE_WAY = Manifest(
    {
        "layer.lora_A.shared.weight": Entry((2, 3), "float32", "up"),
        "layer.lora_B.shared.weight": Entry((4, 2), "float32", "up"),
        "layer.base_layer.lora_delta": Entry((4, 3), "float32", "down"),
        "head.weight": Entry((2, 4), "float32"),
    }
)


def opened_one_way() -> SharedAverage:
    average = SharedAverage(method=get_method("flora"), manifest=ONE_WAY, sites=SITES, max_update_rms=1e3)
    average.begin(0, make_payload(ONE_WAY.down, seed=99))
    return average


def test_a_method_may_send_down_what_no_site_sends_up() -> None:
    average = opened_one_way()
    for seed, site in enumerate(SITES[:2]):
        average.accept(site, make_update(make_payload(ONE_WAY.up, seed), report(10 + 20 * seed)))
    result = average.aggregate()
    assert result.keys() == ONE_WAY.down.entries.keys()
    assert not same_bits(result, make_payload(ONE_WAY.down, seed=99))


@pytest.mark.parametrize("key", sorted(set(ONE_WAY.down.entries) - set(ONE_WAY.up.entries)))
def test_a_site_that_sends_what_only_comes_down_is_refused(key: str) -> None:
    payload = make_payload(ONE_WAY.up) | {key: make_payload(ONE_WAY.down)[key]}
    with pytest.raises(Refusal, match="undeclared"):
        opened_one_way().accept("north", make_update(payload, report()))


def test_without_any_accepted_update_what_came_down_comes_down_again() -> None:
    assert same_bits(opened_one_way().aggregate(), make_payload(ONE_WAY.down, seed=99))


def test_a_round_cannot_start_from_what_only_goes_up() -> None:
    with pytest.raises(PrivacyError):
        opened_one_way().begin(1, make_payload(ONE_WAY.up))


def change_of(seed: int) -> np.ndarray:
    """What :func:`opened` makes of a payload's change, as one vector."""
    before = make_payload(MANIFEST, 99)
    return np.concatenate([(make_payload(MANIFEST, seed)[key] - before[key]).ravel() for key in sorted(before)])


@pytest.mark.slow
@given(st.lists(st.integers(0, 1000).filter(lambda seed: seed != 99), min_size=1, max_size=3))  # 99 is what was sent
def test_agreement_is_the_cosine_of_the_whole_changes(seeds: list[int]) -> None:
    average = opened()
    for site, seed in reversed(list(zip(SITES, seeds, strict=False))):
        average.accept(site, make_update(make_payload(MANIFEST, seed), report()))
    found = average.agreement()
    assert found is not None
    assert found["sites"] == sorted(SITES[: len(seeds)])
    in_order = [seed for _, seed in sorted(zip(SITES, seeds, strict=False))]
    for i, one in enumerate(map(change_of, in_order)):
        assert found["norms"][i] == pytest.approx(np.linalg.norm(one), rel=1e-5)
        for j, other in enumerate(map(change_of, in_order)):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert found["cosines"][i][j] == pytest.approx(cosine, abs=1e-5)


def test_a_site_that_changes_nothing_has_no_direction() -> None:
    average = opened()
    average.accept(SITES[0], make_update(make_payload(MANIFEST, 99), report()))
    average.accept(SITES[1], make_update(make_payload(MANIFEST, 1), report()))
    found = average.agreement()
    assert found is not None
    zero = found["sites"].index(SITES[0])
    assert found["norms"][zero] == 0
    assert found["cosines"][zero] == [None, None]


def test_nobody_and_nothing_agree_on_nothing() -> None:
    assert opened().agreement() is None
    empty = Manifest({})
    average = SharedAverage(method=METHOD, manifest=empty, sites=SITES)
    average.begin(0, {})
    average.accept(SITES[0], make_update({}, report()))
    assert average.agreement() is None


def test_what_the_server_does_not_send_changes_from_zero() -> None:
    average = opened_one_way()
    average.accept(SITES[0], make_update(make_payload(ONE_WAY.up, seed=1), report()))
    found = average.agreement()
    assert found is not None
    before = make_payload(ONE_WAY.down, seed=99)
    changes = [value - before.get(key, 0.0) for key, value in make_payload(ONE_WAY.up, seed=1).items()]
    assert found["norms"][0] == pytest.approx(np.sqrt(sum(float((c**2).sum()) for c in changes)), rel=1e-5)


def test_a_round_without_a_shared_step_has_no_weight() -> None:
    """Its tensors are those that came: with a weight they would hold the others back."""
    average = opened()
    reference = make_payload(MANIFEST, seed=99)
    average.accept("north", make_update(reference, report(90, idle=1)))
    average.accept("south", make_update(make_payload(MANIFEST, 2), report(10)))
    assert same_bits(average.aggregate(), make_payload(MANIFEST, 2))
    average = opened()
    average.accept("north", make_update(reference, report(90, idle=1)))
    assert same_bits(average.aggregate(), reference)
    assert average.accepted == {"north": 0}


def test_a_repeated_round_forgets_the_first_attempt() -> None:
    once, twice = opened(round_number=1), opened(round_number=1)
    for seed, site in enumerate(SITES):
        twice.accept(site, make_update(make_payload(MANIFEST, seed + 20), report(10, round_number=1)))
    twice.begin(1, make_payload(MANIFEST, seed=99))
    assert twice.accepted == {}
    for average in (once, twice):
        average.accept("north", make_update(make_payload(MANIFEST, 3), report(10, round_number=1)))
    assert once.lengths == twice.lengths
    assert same_bits(once.aggregate(), twice.aggregate())
    once.begin(2, make_payload(MANIFEST, seed=99))
    assert (once.last_accepted("north"), once.last_accepted("south")) == (1, -1)
