"""A plan carries names and numbers into a hospital, and nothing that a config parser or a shell could run."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.federation_settings import of_federation
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
from monai_fedlora.files import read_json, write_json
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.site_report import MOST_CLASSES
from tests.helpers import make_manifest, make_plan, through_json, tiny_network

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
words = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
name_lists = st.lists(words.filter(lambda word: word != "server"), min_size=2, max_size=4, unique=True)

plans = st.fixed_dictionaries(
    {
        "experiment": words,
        "bundle": words,
        "method": st.sampled_from(["dual_lora", "fedit", "local", "fedavg"]),
        "sites": name_lists,
        "classes": name_lists,
        "rounds": st.integers(1, 100),
        "backbone_sha256": st.text("0123456789abcdef", min_size=64, max_size=64),
    },
    optional={
        "start_round": st.integers(0, 100),
        "local_epochs": st.integers(1, 10),
        "size": words,
        "seed": st.integers(0, 2**31),
        "max_share": st.floats(0.5, 1),
        "update_bound": st.floats(1, 1e6),
        "max_update_rms": st.floats(1e-6, 1e6),
        "wire_dtype": st.sampled_from(["float16", "float32", "int8"]),
        "top_k": st.floats(0, 1, exclude_min=True),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "augment": st.booleans(),
                "batch_size": st.integers(1, 64),
                "class_weights": st.none()
                | st.just("balanced")
                | st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3),
                "image_mean": st.none() | st.lists(st.floats(0, 1), min_size=3, max_size=3),
                "learning_rate": st.floats(1e-6, 1),
                "max_grad_norm": st.none() | st.floats(1e-3, 1e3),
                "mixed_precision": st.sampled_from(["off", "bf16"]),
                "style": st.none() | words,
            },
        ),
    },
)

# Anything that MONAI's config parser ($, @, %), a path or a shell could understand.
expressions = st.tuples(st.text(max_size=4), st.sampled_from("$@%/\\ \n\t;`"), st.text(max_size=4)).map("".join)


def placed(place: str, value: Any) -> dict[str, Any]:
    """A valid plan's JSON with ``value`` at a dotted place; ``[]`` wraps it into a list, ``{}`` makes it a key."""
    settings = make_plan(method_args={"rank": 4}, training={"batch_size": 2}, declared_cases={"north": 5}).to_json()
    target, _, last = place.rpartition(".")
    container = settings[target] if target else settings
    if last == "[0]":
        container[0] = value
    elif last == "{}":
        container[value] = 1
    elif last.endswith("[]"):
        container[last.removesuffix("[]")] = [value]
    else:
        container[last] = value
    return settings


PLACES = [
    *("experiment", "bundle", "method", "size", "backbone_sha256", "wire_dtype"),
    *("sites", "sites.[0]", "classes", "classes.[0]"),
    *("rounds", "start_round", "local_epochs", "seed", "max_share", "update_bound", "max_update_rms", "top_k"),
    *("declared_cases", "declared_cases.north", "declared_cases.{}"),
    *("training", "training.{}", "training.batch_size", "training.class_weights[]", "training.mixed_precision"),
    *("method_args", "method_args.{}", "method_args.rank", "method_args.head", "method_args.targets[]"),
]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@given(text=expressions)
def test_no_expression_path_or_blank_passes_anywhere(place: str, text: str) -> None:
    with pytest.raises(ConfigError):
        Plan.from_json(placed(place, text))


def test_every_field_of_a_plan_is_among_the_places() -> None:
    assert {place.partition(".")[0] for place in PLACES} == set(make_plan().to_json())


@pytest.mark.parametrize(
    "text", ["$import os", "@network", "%file", "../x", "a/b", "a\\b", "a b", "a\n", "\na", "", "é"]
)
@pytest.mark.parametrize("field", ["experiment", "bundle", "size"])
def test_a_name_is_a_plain_word(field: str, text: str) -> None:
    with pytest.raises(ConfigError, match=field):
        make_plan(**{field: text})


@pytest.mark.parametrize("text", ["..", ".", ".hidden", "-x", "_x", "x" * 101])
def test_a_name_starts_with_a_letter_or_digit_and_is_short(text: str) -> None:
    with pytest.raises(ConfigError, match="experiment"):
        make_plan(experiment=text)


@given(plans)
def test_a_plan_survives_json(value: dict[str, Any]) -> None:
    plan = Plan.from_json(value)
    assert Plan.from_json(through_json(plan.to_json())) == plan
    assert {key: plan.to_json()[key] for key in value} == through_json(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(PLACES), json_values)
def test_any_json_in_any_place_is_a_plan_that_can_be_written_or_is_refused(place: str, value: Any) -> None:
    if place.endswith("{}") and not isinstance(value, str):
        return
    try:
        plan = Plan.from_json(placed(place, value))
    except ConfigError:
        return
    json.dumps(plan.to_json(), allow_nan=False)
    assert Plan.from_json(through_json(plan.to_json())) == plan


@given(json_values)
def test_any_json_is_no_plan(value: Any) -> None:
    with pytest.raises(ConfigError):
        Plan.from_json(value)


@pytest.mark.parametrize("field", ["experiment", "bundle", "method", "sites", "classes", "rounds", "backbone_sha256"])
def test_a_missing_entry_is_named(field: str) -> None:
    settings = make_plan().to_json()
    del settings[field]
    with pytest.raises(ConfigError, match=field):
        Plan.from_json(settings)


@given(words)
def test_an_unknown_entry_is_named(name: str) -> None:
    settings = make_plan().to_json()
    if name in settings:
        return
    with pytest.raises(ConfigError, match=f"unknown.*{name}"):
        Plan.from_json({**settings, name: 1})


@pytest.mark.parametrize(
    "change",
    [
        {"sites": "north"},
        {"sites": {"north": 1}},
        {"sites": []},
        {"sites": ["north", "north"]},
        {"sites": [1, 2]},
        {"sites": [["north"], ["south"]]},
        {"sites": ["server", "north"]},
        {"classes": "NOR"},
        {"classes": ["NOR"]},
        {"classes": ["NOR", "NOR"]},
        {"rounds": 0},
        {"rounds": 1.0},
        {"rounds": True},
        {"rounds": "2"},
        {"start_round": -1},
        {"local_epochs": 0},
        {"seed": -1},
        {"backbone_sha256": "0" * 63},
        {"backbone_sha256": "0" * 65},
        {"backbone_sha256": "A" * 64},
        {"backbone_sha256": "0" * 64 + "\n"},
        {"backbone_sha256": None},
        {"wire_dtype": "bfloat16"},
        {"wire_dtype": None},
        {"wire_dtype": "int4"},
        *({"top_k": value} for value in (0, -0.1, 1.1, True, "0.1", None, float("nan"))),
        {"max_share": 0.49},
        {"max_share": 1.01},
        {"max_share": True},
        {"max_share": float("nan")},
        {"update_bound": 0.9},
        {"update_bound": float("inf")},
        {"update_bound": float("nan")},
        {"update_bound": "5"},
        {"max_update_rms": 0},
        {"max_update_rms": -1.0},
        {"max_update_rms": float("nan")},
        {"max_update_rms": float("inf")},
        {"max_update_rms": True},
        {"max_update_rms": "1"},
        {"declared_cases": {"east": 3}},
        {"declared_cases": {"north": 0}},
        {"declared_cases": {"north": -3}},
        {"declared_cases": {"north": 2.5}},
        {"declared_cases": {"north": True}},
        {"declared_cases": {"north": "3"}},
        {"declared_cases": ["north"]},
        {"training": []},
        {"training": {"learning_rate": float("nan")}},
        {"training": {"learning_rate": float("inf")}},
        {"training": {"class_weights": [[1, 2]]}},
        {"training": {"class_weights": {"a": 1}}},
        {"method_args": []},
        {"method_args": {"rank": 0}},
        {"method_args": {"alpha": "16"}},
        {"method_args": {"ranks": 8}},
        {"method": "unheard_of"},
        {"method": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_an_entry_of_the_wrong_kind_or_range_is_named(change: dict[str, Any]) -> None:
    ((field, value),) = change.items()
    named = next(iter(value)) if field in ("training", "method_args") and value else field
    with pytest.raises(ConfigError, match=named):
        Plan.from_json({**make_plan().to_json(), **change})
    with pytest.raises(ConfigError):
        make_plan(**change)


@given(words)
def test_training_overrides_outside_the_list_are_refused(name: str) -> None:
    if name in TRAINING_SETTINGS:
        return
    with pytest.raises(ConfigError, match=f"cannot set {name}"):
        make_plan(training={name: 1})


@pytest.mark.parametrize(
    "name", ["output_dir", "dataset_dir", "backbone", "network", "optimizer", "_target_", "epochs"]
)
def test_a_plan_cannot_reach_a_sites_paths_or_objects(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"cannot set {name}")):
        make_plan(training={name: "x"})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("accumulation_steps", [1, 4], [0, 1.0, True]),
        ("augment", [True, False], [1, "true", None]),
        ("augmented_views", [0, 4], [-1, 2.0]),
        ("batch_size", [1, 64], [0, "8"]),
        ("cache_dtype", ["float16", "bfloat16", "float32"], ["fp16", 16]),
        ("cache_features", [True, False], [0]),
        ("class_weights", [None, "balanced", [1, 2.5]], ["equal", [], [1, -1], [1, None], 2]),
        ("compiler", ["off", "reduce-overhead"], ["fast", None, True]),
        ("image_mean", [None, [0.5, 0, 1]], [0.5, [0.5], ["a", 0, 0], [True, 0, 0]]),
        ("image_std", [None, [0.5, 0.1, 1]], [1, [0.5, 0.5], [0, 1, 1]]),
        ("label_smoothing", [0, 0.1], [1, -0.1, "0"]),
        ("learning_rate", [1e-3, 1], [0, -1e-3, True]),
        ("max_grad_norm", [None, 5.0], [0, -1, "none"]),
        ("deterministic", [True, False], [0, "true"]),
        ("mixed_precision", ["off", "tf32", "bf16"], ["fp16", False, None]),
        ("style", [None, "fundus"], [3]),
        ("warmup_epochs", [0, 2], [-1, 0.5]),
        ("weight_decay", [0, 0.05], [-0.05, None]),
    ],
)
def test_a_training_setting_takes_its_own_kind_of_value(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert make_plan(training={name: value}).training == {name: value}
    for value in bad:
        with pytest.raises(ConfigError, match=f"{name} is .*it must be"):
            make_plan(training={name: value})


def test_every_training_setting_is_one_of_every_bundles_own() -> None:
    for config in BUNDLES.glob("*/configs/train.json"):
        own = {name: value for name, value in read_json(config).items() if name in TRAINING_SETTINGS}
        assert make_plan(training=own).training == own
        assert set(TRAINING_SETTINGS) - set(own) <= {"style"}


CHANGES: dict[str, Any] = {
    "experiment": "other",
    "bundle": "other",
    "method": "fedit",
    "sites": ("north", "east"),
    "classes": ("NOR", "HCM"),
    "rounds": 9,
    "backbone_sha256": "1" * 64,
    "method_args": {"rank": 4},
    "start_round": 3,
    "local_epochs": 2,
    "size": "base",
    "seed": 5,
    "declared_cases": {"north": 3},
    "max_share": 0.5,
    "update_bound": 2.0,
    "max_update_rms": 0.5,
    "wire_dtype": "float32",
    "top_k": 0.1,
    "training": {"batch_size": 2},
}
IDENTITY = {"experiment", "method", "method_args", "size", "classes", "backbone_sha256"}


@pytest.mark.parametrize("field", sorted(make_plan().to_json()))
def test_the_fingerprint_changes_with_what_stored_tensors_depend_on_and_nothing_else(field: str) -> None:
    changed = make_plan(**{field: CHANGES[field]})
    assert (changed.fingerprint != make_plan().fingerprint) == (field in IDENTITY)


@pytest.mark.parametrize("args", [{"rank": 8}, {"alpha": 16}, {"alpha": 16.0}, {"targets": ["q", "v"]}], ids=str)
def test_a_default_that_is_spelt_out_is_the_same_experiment(args: dict[str, Any]) -> None:
    assert make_plan(method_args=args).fingerprint == make_plan().fingerprint


@given(plans)
def test_the_fingerprint_survives_json(value: dict[str, Any]) -> None:
    plan = Plan.from_json(value)
    assert Plan.from_json(through_json(plan.to_json())).fingerprint == plan.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", plan.fingerprint)


def test_a_bad_plan_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for text in ("{", "[]", "{}", '{"experiment": "$x"}'):
        path.write_text(text)
        with pytest.raises(FedLoraError, match=re.escape(str(path))):
            Plan.load(path)
    write_json(path, make_plan().to_json())
    assert Plan.load(path) == make_plan()


def test_the_schedule_counts_from_round_zero_when_a_run_is_resumed() -> None:
    assert make_plan(rounds=5, local_epochs=2).total_epochs == 10
    assert make_plan(rounds=3, start_round=5, local_epochs=2).total_epochs == 16


def test_a_plans_scope_has_its_method_and_wire_type() -> None:
    network = tiny_network()
    plan = make_plan(method_args={"head": "private"}, wire_dtype="float16")
    plan.build_method().attach(network)
    entries = plan.scope(network).manifest.entries
    assert {entry.dtype for entry in entries.values()} == {"float16"}
    assert not any("head" in key for key in entries)


TEXTS = Prompts(
    templates=("a photo of {class}", "{class}, magnified"), class_texts={"NOR": "a heart", "ABN": "an ill one"}
)


def text_plan(**changes: Any) -> Plan:
    return make_plan(**{"method": "pfedst", "size": "clip_demo", "prompts": TEXTS, **changes})


def test_prompts_travel_with_a_plan_whose_method_reads_them() -> None:
    plan = text_plan()
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "prompts" not in make_plan().to_json()
    other = text_plan(prompts=Prompts(templates=("{class}",), class_texts=TEXTS.class_texts))
    assert plan.fingerprint != other.fingerprint


def test_prompts_and_methods_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="no prompts"):
        text_plan(prompts=None)
    with pytest.raises(ConfigError, match="reads no texts"):
        make_plan(prompts=TEXTS)
    with pytest.raises(ConfigError, match="class_texts"):
        text_plan(classes=("NOR", "HCM"))


@pytest.mark.parametrize(
    "prompts",
    [
        None,
        [],
        {"templates": ["a photo"], "class_texts": {}},
        {"templates": "a photo of {class}", "class_texts": {}},
        {"templates": ["a photo of {class}"]},
        {"templates": ["a photo of {class}"], "class_texts": {}, "path": "/etc"},
        {"templates": ["a photo of {class}"], "class_texts": {"NOR": "a\nline"}},
    ],
)
def test_prompts_in_a_plan_file_are_checked(prompts: Any) -> None:
    with pytest.raises(ConfigError):
        Plan.from_json({**text_plan().to_json(), "prompts": prompts})


def test_a_plan_from_before_the_limits_still_loads(tmp_path: Path) -> None:
    value = make_plan().to_json()
    del value["max_share"], value["update_bound"]
    path = tmp_path / "plan.json"
    write_json(path, value)
    assert Plan.load(path) == make_plan()


@pytest.mark.parametrize("count", [33, MOST_CLASSES])
def test_a_plan_has_as_many_classes_as_a_report_has_room_for(count: int) -> None:
    classes = tuple(f"c{number}" for number in range(count))
    assert make_plan(classes=classes).classes == classes
    with pytest.raises(ConfigError, match=f"there are {MOST_CLASSES + 1} classes"):
        make_plan(classes=tuple(f"c{number}" for number in range(MOST_CLASSES + 1)))


def test_site_weights_are_by_cases_unless_the_plan_says_equal() -> None:
    assert "site_weights" not in make_plan().to_json()
    plan = make_plan(site_weights="equal")
    assert Plan.from_json(plan.to_json()) == plan
    assert SharedAverage.of(plan, make_manifest()).equal_weights
    assert not SharedAverage.of(make_plan(), make_manifest()).equal_weights
    assert of_federation({"site_weights": "equal", "batch_size": 4}) == {"site_weights": "equal"}
    with pytest.raises(ConfigError, match="site_weights is 'evenly'"):
        make_plan(site_weights="evenly")
