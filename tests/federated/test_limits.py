"""What one site can do to a round at most, whoever answers first, whatever it claims and however long its change is."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import WeightsError
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.initial import save_shared
from monai_fedlora.federated.limits import (
    CLAIM_RATIO,
    LENGTHS,
    UpdateBound,
    counted_cases,
    limits_said,
    lower_median,
    remembered,
    stored_lengths,
)
from monai_fedlora.methods import get_method
from monai_fedlora.methods.rules import change_length
from monai_fedlora.scope import Entry, Manifest
from monai_fedlora.site_report import MOST_CASES
from tests.helpers import make_payload, make_plan, make_update, scored

SITES = ("east", "north", "south", "west")
PAIR = {"layer.lora_A.shared.weight": Entry((2, 3), "float32"), "layer.lora_B.shared.weight": Entry((4, 2), "float32")}
HEAD = {"head.weight": Entry((2, 4), "float32")}
BOTH = Manifest({**PAIR, **HEAD})
ONE_WAY = Manifest(
    {
        **{key: dataclasses.replace(entry, travels="up") for key, entry in PAIR.items()},
        "layer.base_layer.lora_delta": Entry((4, 3), "float32", "down"),
        **HEAD,
    }
)
BESIDE = Manifest({**BOTH.entries, "layer.base_layer.lora_delta": Entry((4, 3), "float32", "down")})
METHODS = {
    "fedit": (get_method("fedit"), BOTH),
    "product": (get_method("fedit", {"averaging": "product", "rank": 2}), BOTH),
    "flexlora": (get_method("flexlora", {"rank": 2}), BOTH),
    "flora": (get_method("flora", {"rank": 2}), ONE_WAY),
    "fedex_lora": (get_method("fedex_lora", {"rank": 2}), BESIDE),
    "int8": (get_method("fedit"), BOTH.encoded(Encoding(values="int8"))),
    "top-k": (get_method("fedit"), BOTH.encoded(Encoding(values="float32", kept=0.3))),
    "fedavg": (get_method("fedavg"), Manifest(HEAD)),
}
Payload = dict[str, np.ndarray]


def opened(name: str = "fedit", *, sites: tuple[str, ...] = SITES, **changes: Any) -> SharedAverage:
    method, manifest = METHODS[name]
    average = SharedAverage(method=method, manifest=manifest, sites=sites, **{"max_update_rms": 1e30, **changes})
    average.begin(0, make_payload(manifest.down, seed=99))
    return average


def answer(average: SharedAverage, seed: int, *, times: float = 1.0) -> Payload:
    """A change of about the same length whatever the seed, so many times as long, as the manifest wants it.

    Of a method whose factors start anew the product gets longer.
    """
    sent, manifest = average._reference, average.manifest.up
    payload = {}
    for key, entry in manifest.entries.items():
        noise = make_payload(Manifest({key: dataclasses.replace(entry, encoding=None)}), seed)[key] / 10
        if entry.encoding is not None:
            payload[key] = entry.encoding.encode(times * noise)
        elif key not in sent:
            payload[key] = np.float32(times if ".lora_B." in key else 1) * (noise + 1)
        else:
            payload[key] = sent[key] + np.float32(times) * noise
    return payload


def said(cases: int = 10, *, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"round": number, "cases": cases, **more}


def moved(name: str, result: Payload, sent: Payload) -> float:
    """How far a round moved what the server sends, in the layer's weights."""

    def dense(tensors: Payload) -> list[np.ndarray]:
        tensors = {key: value.astype(np.float64) for key, value in tensors.items()}
        if name in ("product", "flexlora"):
            a, b = (tensors.pop(key) for key in PAIR)
            tensors["product"] = b @ a
        if name == "fedex_lora":
            a, b = (tensors.pop(key) for key in PAIR)
            tensors["layer"] = tensors.pop("layer.base_layer.lora_delta") + 8 * b @ a
        return [tensors[key] for key in sorted(tensors)]

    return float(np.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(dense(result), dense(sent), strict=True))))


# ---- weights --------------------------------------------------------------------------------------------

claims = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, MOST_CASES), min_size=1)


@given(claims, st.floats(0.5, 1), st.data())
def test_no_share_of_an_undeclared_site_exceeds_the_cap(
    claimed: dict[str, int], max_share: float, data: st.DataObject
) -> None:
    declared = data.draw(st.sets(st.sampled_from(sorted(claimed))))
    counted = counted_cases(claimed, declared=declared, max_share=max_share)
    total = sum(counted.values())
    for site, cases in counted.items():
        assert 1 <= cases <= claimed[site]
        assert site not in declared or cases == claimed[site]
        if site not in declared and len(claimed) > 1:
            assert cases <= max_share * total + 1e-6
            assert cases <= CLAIM_RATIO * lower_median(list(claimed.values()))


@given(claims, st.floats(0.5, 1))
def test_weights_do_not_depend_on_the_order_of_the_sites(claimed: dict[str, int], max_share: float) -> None:
    other = dict(reversed(claimed.items()))
    assert counted_cases(claimed, declared=(), max_share=max_share) == counted_cases(
        other, declared=(), max_share=max_share
    )


@given(st.lists(st.integers(100, 300), min_size=2, max_size=8))
def test_sites_of_usual_sizes_weigh_what_they_claim(sizes: list[int]) -> None:
    claimed = {str(place): size for place, size in enumerate(sizes)}
    assert counted_cases(claimed, declared=(), max_share=0.75) == claimed


def test_the_first_answer_cannot_become_the_average_by_claiming_cases() -> None:
    for order in itertools.permutations(SITES[:3]):
        average = opened(sites=SITES[:3])
        for site in order:
            cases = MOST_CASES if site == "east" else 10
            average.accept(site, make_update(answer(average, SITES.index(site)), said(cases)))
        limits = average.limits()
        assert limits is not None
        assert limits["weights"] == {"east": {"claimed": MOST_CASES, "counted": 60}}
        assert average._counted()["east"] / 80 == 0.75


def test_half_of_the_sites_cannot_outweigh_the_others_without_bounds() -> None:
    counted = counted_cases({"a": 10, "b": 10, "c": MOST_CASES, "d": MOST_CASES}, declared=(), max_share=0.75)
    assert counted == {"a": 10, "b": 10, "c": 100, "d": 100}


def test_a_declared_count_weighs_as_it_is() -> None:
    average = opened(declared_cases={"east": 1000}, sites=SITES[:2])
    average.accept("east", make_update(answer(average, 1), said(1000)))
    average.accept("north", make_update(answer(average, 2), said(10)))
    limits = average.limits()
    assert limits is not None
    assert limits["weights"] == {}


def test_the_score_has_the_weights_of_the_average() -> None:
    average = opened(sites=SITES[:3])
    for site, cases, accuracy in (("east", MOST_CASES, 1.0), ("north", 10, 0.0), ("south", 10, 0.0)):
        average.accept(site, make_update(answer(average, 1), said(cases, validation={"personal": scored(accuracy)})))
    assert average.score("balanced_accuracy") == 0.75


# ---- lengths --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@given(times=st.floats(1, 1e6), culprit=st.sampled_from(SITES))
def test_however_long_one_change_is_it_moves_the_average_by_a_bounded_length(
    name: str, times: float, culprit: str
) -> None:
    average = opened(name)
    for seed, site in enumerate(SITES):
        average.accept(site, make_update(answer(average, seed, times=times if site == culprit else 1), said()))
    lengths = average.changes
    honest = [length for site, length in lengths.items() if site != culprit]
    sent = make_payload(average.manifest.down, seed=99)
    most = sum(honest) / 4 + average.update_bound * max(honest) / 4
    # a product that is cut to the factors' rank is at most as far again from the mean as what it stands for
    slack = 2.0 if name in ("product", "flexlora") else 1.0
    assert moved(name, average.aggregate(), sent) <= slack * most * (1 + 1e-4) + 1e-5
    limits = average.limits()
    assert limits is not None
    if times > 20:
        assert list(limits["clipped"]) == [culprit]
        assert limits["clipped"][culprit]["kept"] * lengths[culprit] == pytest.approx(limits["longest"], rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_length_is_that_of_what_the_method_averages(name: str) -> None:
    average = opened(name, sites=SITES[:1])
    average.accept("east", make_update(answer(average, 1, times=0.5), said()))
    sent = make_payload(average.manifest.down, seed=99)
    length = average.changes["east"]
    assert length > 0
    if name == "fedex_lora":
        result = average.aggregate()
        tensors, layer = change_length(result, sent, {*PAIR, *HEAD}), {key: result[key] for key in result.keys() - HEAD}
        assert np.hypot(tensors, moved(name, layer, {key: sent[key] for key in layer})) == pytest.approx(
            length, rel=1e-4
        )
    elif name not in ("product", "flexlora"):  # one change of a product has twice the rank and is not kept whole
        assert moved(name, average.aggregate(), sent) == pytest.approx(length, rel=1e-4)
    else:
        tensors = {key: value.astype(np.float64) for key, value in answer(average, 1, times=0.5).items()}
        assert moved(name, tensors, sent) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_clipped_change_is_the_change_shortened_to_the_bound(name: str) -> None:
    """In the sum the rest of its weight stays with what was sent."""
    results = []
    for times in (10.0, 1000.0):
        average = opened(name, update_bound=1.0)
        for site in SITES[:3]:
            average.accept(site, make_update(answer(average, 1), said()))
        average.accept("west", make_update(answer(average, 1, times=times), said()))
        results.append(average.aggregate())
        limits = average.limits()
        assert limits is not None
        assert set(limits["clipped"]) == {"west"}
    if name not in ("product", "flexlora", "flora", "fedex_lora"):
        average = opened(name)
        average.accept("east", make_update(answer(average, 1), said()))
        for result in results:
            for key, value in average.aggregate().items():
                np.testing.assert_allclose(result[key], value, rtol=1e-4, atol=1e-4)


@given(st.permutations(SITES), st.integers(0, 3))
def test_a_clipped_round_does_not_depend_on_who_answers_first(order: list[str], culprit: int) -> None:
    results = []
    for sites in (SITES, order):
        average = opened()
        for site in sites:
            times = 1600 if site == SITES[culprit] else 1
            average.accept(
                site, make_update(answer(average, SITES.index(site), times=times), said(7 + SITES.index(site)))
            )
        results.append((average.aggregate(), average.limits(), average.lengths))
    (one, *rest), (other, *more) = results
    assert rest == more
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_two_sites_are_measured_by_the_last_rounds_too() -> None:
    average = opened(sites=SITES[:2])
    reference = average._reference
    for number in range(3):
        average.begin(number, reference)
        average.accept("east", make_update(answer(average, number), said(number=number)))
        average.accept(
            "north", make_update(answer(average, number, times=1 if number < 2 else 1600), said(number=number))
        )
        limits = average.limits()
        assert limits is not None
        if number == 0:
            assert (limits["usual"], limits["longest"], limits["rounds"]) == (None, None, 0)
        else:
            assert limits["rounds"] == 1
        assert list(limits["clipped"]) == (["north"] if number == 2 else [])


def test_a_change_that_was_clipped_is_remembered_as_clipped() -> None:
    average = opened()
    for seed, site in enumerate(SITES):
        average.accept(site, make_update(answer(average, seed, times=1600 if site == "west" else 1), said()))
    ((*_, last),) = average.lengths
    assert last == average._bound().longest


def test_a_site_alone_in_its_federation_is_not_clipped() -> None:
    average = opened(sites=("east",))
    reference = average._reference
    for number in range(4):
        average.begin(number, reference)
        average.accept("east", make_update(answer(average, 1, times=10.0**number), said(number=number)))
        limits = average.limits()
        assert limits is not None
        assert (limits["usual"], limits["clipped"]) == (None, {})


def test_sites_that_change_nothing_do_not_stop_the_others() -> None:
    average = opened()
    for site in SITES[:3]:
        average.accept(site, make_update(answer(average, 1, times=0.0), said()))
    average.accept("west", make_update(answer(average, 1), said()))
    limits = average.limits()
    assert limits is not None
    assert (limits["usual"], limits["clipped"]) == (None, {})


lengths = st.lists(st.floats(0, 1e6), max_size=4)


@given(st.lists(lengths, max_size=6), lengths)
def test_what_is_remembered_gives_the_bound_that_everything_would(past: list[list[float]], now: list[float]) -> None:
    everything = tuple(tuple(length for length in each if length > 0) for each in past)
    kept: tuple[tuple[float, ...], ...] = ()
    for each in past:
        kept = remembered(kept, each)
    bound, full = (UpdateBound.of(now, known, factor=5.0) for known in (kept, everything))
    assert (bound.usual, bound.longest) == (full.usual, full.longest)
    assert sum(map(len, kept[1:])) < 3


# ---- going on -------------------------------------------------------------------------------------------


def play(average: SharedAverage, numbers: range, sent: Payload) -> Payload:
    for number in numbers:
        average.begin(number, sent)
        for seed, site in enumerate(average.sites):
            times = 0.5**number * (50 if number == 3 and seed else 1)
            average.accept(
                site, make_update(answer(average, 10 * number + seed, times=times), said(5 + seed, number=number))
            )
        sent = average.aggregate()
    return sent


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_server_clips_as_the_undisturbed_one(tmp_path: Path, stop: int) -> None:
    plan = make_plan(sites=SITES[:2], max_update_rms=1e30)
    manifest = BOTH
    start = make_payload(manifest, 99)
    whole = SharedAverage.of(plan, manifest)
    expected = play(whole, range(4), start)
    limits = whole.limits()
    assert limits is not None
    assert list(limits["clipped"]) == ["north"]

    killed = SharedAverage.of(plan, manifest)
    reached = play(killed, range(stop), start)
    path = tmp_path / "shared.safetensors"
    save_shared(path, reached, plan=plan, round_number=stop - 1, **{LENGTHS: killed.lengths})
    resumed_plan = dataclasses.replace(plan, start_round=stop)
    earlier = stored_lengths(path, resumed_plan, first=resumed_plan.start_round)
    resumed = SharedAverage.of(resumed_plan, manifest, earlier=earlier)
    again = play(resumed, range(stop, 4), reached)
    assert all(again[key].tobytes() == expected[key].tobytes() for key in expected)
    assert resumed.limits() == limits


def test_lengths_are_those_of_the_same_experiment_and_the_round_before(tmp_path: Path) -> None:
    path, plan = tmp_path / "shared.safetensors", make_plan(start_round=3)
    save_shared(path, {}, plan=plan, round_number=2, **{LENGTHS: [[0.5, 0.25], [1.5]]})
    assert stored_lengths(path, plan, first=plan.start_round) == ((0.5, 0.25), (1.5,))
    assert stored_lengths(path, make_plan(start_round=2), first=2) == ()
    assert stored_lengths(path, make_plan(start_round=3, experiment="other"), first=3) == ()
    save_shared(path, {}, plan=plan, round_number=2)
    assert stored_lengths(path, plan, first=plan.start_round) == ()


@pytest.mark.parametrize("value", [3, "x", [3], [["x"]], [[0.0]], [[-1.0]], [[float("nan")]], [[1e999]], {"a": 1}])
def test_damaged_lengths_are_named(tmp_path: Path, value: Any) -> None:
    path, plan = tmp_path / "shared.safetensors", make_plan(start_round=1)
    save_shared(path, {}, plan=plan, round_number=0, **{LENGTHS: value})
    with pytest.raises(WeightsError, match=r"shared\.safetensors has"):
        stored_lengths(path, plan, first=plan.start_round)


def test_what_was_cut_is_said() -> None:
    average = opened()
    for seed, site in enumerate(SITES):
        west = site == "west"
        average.accept(
            site, make_update(answer(average, seed, times=1600 if west else 1), said(MOST_CASES if west else 10))
        )
    weighed, clipped = limits_said({"rounds": [{"round": 4}, {"round": 5, "limits": average.limits()}]})
    assert weighed.startswith("weighed down in round 5: west claimed 10,000,000 cases")
    assert "counted with 90" in weighed
    assert clipped.startswith("clipped in round 5: west changed the shared tensors by")
    assert limits_said({"rounds": [{"round": 0}]}) == []
