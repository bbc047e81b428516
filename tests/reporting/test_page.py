"""The page says what the record says, in a form that opens offline and can be read aloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scipy.linalg import subspace_angles

from monai_fedlora.files import load_tensors, read_json
from monai_fedlora.reporting.found_run import FoundRun, read_run
from monai_fedlora.reporting.page import page
from monai_fedlora.reporting.record import parse_record
from monai_fedlora.site_report import PERSONAL, SHARED
from tests.rendering.reading import Page
from tests.reporting.conftest import of_numbers, value


def shown(changed: dict[str, Any]) -> Page:
    return Page(page(FoundRun(record=parse_record(changed, "results.json"))))


def rounded(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


@pytest.mark.usefixtures("no_figures")
def test_the_numbers_are_those_of_the_record(finished: Path) -> None:
    results = read_json(finished / "results.json")
    found = Page(page(read_run(finished)))
    for view, name in ((PERSONAL, "personal model"), (SHARED, "shared model")):
        table = found.table(f"Test split, {name}")
        for site, report in results["final"].items():
            metrics = report["test"][view]
            assert table[site][:3] == [
                str(metrics["n"]),
                rounded(metrics["balanced_accuracy"]),
                rounded(metrics["auroc"]),
            ]
            matrix = found.table(f"{site}, test split, {name}")
            assert [row[:-1] for name, row in matrix.items() if name != "true class"] == [
                [str(cell) for cell in row] for row in metrics["confusion_matrix"]
            ]
    losses, curve = found.table("Mean training loss"), found.table("Validation balanced accuracy")
    for entry in results["rounds"]:
        for place, site in enumerate(results["plan"]["sites"]):
            report = entry["sites"][site]
            assert losses[str(entry["round"] + 1)][place] == rounded(report["train_loss"])
            scores = [rounded(report["validation"][view]["balanced_accuracy"]) for view in (PERSONAL, SHARED)]
            assert curve[str(entry["round"]) if entry["round"] else "0 (start)"][place] == " / ".join(scores)
    last = [results["final"]["site-2"]["validation"][view]["balanced_accuracy"] for view in (PERSONAL, SHARED)]
    assert curve["2"][1] == " / ".join(map(rounded, last))
    scores = {site: report["test"][PERSONAL]["balanced_accuracy"] for site, report in results["final"].items()}
    worst = [site for site, score in scores.items() if score == min(scores.values())]
    said = f"worst site is {worst[0]}" if len(worst) == 1 else f"worst sites tie: {' and '.join(worst)}"
    assert f"{said} with {min(scores.values()):.3f}" in found.text
    assert "Every answer counted." in found.text


@pytest.mark.usefixtures("no_figures")
def test_agreement_is_that_of_the_record(finished: Path) -> None:
    found, results = Page(page(read_run(finished))), read_json(finished / "results.json")
    for entry in results["rounds"]:
        table = found.table(f"Round {entry['round'] + 1}: length")
        agreement = entry["agreement"]
        assert table["site-1"] == [f"{agreement['norms'][0]:.4g}", "", f"{agreement['cosines'][0][1]:+.3f}"]
        assert table["site-2"] == [f"{agreement['norms'][1]:.4g}", f"{agreement['cosines'][1][0]:+.3f}", ""]


@pytest.mark.usefixtures("no_figures")
def test_subspaces_are_those_of_the_models(finished: Path) -> None:
    tensors, _ = load_tensors(finished / "private" / "trial" / "site-1" / "final.safetensors")
    table = Page(page(read_run(finished))).table("site-1: shared against private update")
    layers = table.keys() - {"layer", "mean"}
    assert layers
    for layer in layers:
        for column, factor in ((2, "lora_B"), (5, "lora_A")):
            one, other = (
                tensors[f"{part}/{layer}.{factor}.{part}.weight"].double().numpy() for part in ("shared", "private")
            )
            if factor == "lora_A":
                one, other = one.T, other.T
            assert table[layer][column - 2].startswith(f"{one.shape[1]} and {other.shape[1]} of {one.shape[0]}")
            smallest, _, largest = map(float, table[layer][column].split(" / "))
            found = subspace_angles(one, other) * 57.29577951308232
            assert smallest == pytest.approx(found[-1], abs=0.06)
            assert largest == pytest.approx(found[0], abs=0.06)


@pytest.mark.parametrize(("kind", "warned"), [("synthetic", True), ("mixed", True), ("real", False), (None, False)])
@pytest.mark.usefixtures("no_figures")
def test_the_images_that_were_trained_on_are_said_before_any_result(kind: str | None, warned: bool) -> None:
    changed = value()
    changed["plan"]["start"] = {"kind": "synthetic", "name": "shared part of trial after 2 rounds", "source": None}
    if kind is not None:
        changed["training_data"] = {"kind": kind, "sites": {"north": kind}, "start": None}
    found = shown(changed)
    assert found.headings.index("Training images") < found.headings.index("Result")
    assert found.table("As each site says")["north"] == [kind or "unknown", "n/a"]
    assert ("synthetic" in found.text.partition("The shared part started")[0]) == (warned or kind is None)
    assert "shared part of trial after 2 rounds (synthetic images)" in found.text


@pytest.mark.usefixtures("no_figures")
def test_the_data_sets_of_the_models_that_lie_here_are_named(finished: Path) -> None:
    found = Page(page(read_run(finished)))
    rows = found.table("As each site says")
    assert {rows[site][1] for site in ("site-1", "site-2")} == {"phantom"}


@pytest.mark.usefixtures("no_figures")
def test_a_site_for_which_the_shared_model_is_better_is_told(finished: Path) -> None:
    changed = value()
    test = changed["final"]["north"]["test"]
    test["personal"] |= {"balanced_accuracy": 0.375, "confusion_matrix": [[2, 2], [3, 1]]}
    test["shared"] |= {"balanced_accuracy": 0.875, "confusion_matrix": [[4, 0], [1, 3]]}
    text = shown(changed).text
    assert "north: on the site's own 8 test cases the shared model does better than the personal one" in text
    assert "0.875 against 0.375" in text and "--site shared" in text
    assert read_run(finished).personal["site-1"].pairs is not None


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("task", "names", "key", "personal", "shared"),
    [
        ("segmentation", ["LV", "MYO"], "dice", 0.71, 0.84),
        ("regression", ["lv_ef", "lv_edv"], "scaled_error", 6.2, 4.5),
    ],
)
def test_a_better_shared_model_is_told_for_masks_and_numbers_too(
    task: str, names: list[str], key: str, personal: float, shared: float
) -> None:
    changed = value()
    changed["plan"] |= {"task": task, "classes": names}
    for report in [*changed["final"].values(), *(r for e in changed["rounds"] for r in e["sites"].values())]:
        for split in ("validation", "test"):
            if split in report:
                report[split] = {"personal": {"n": 8, key: personal}, "shared": {"n": 8, key: shared}}
    text = shown(changed).text
    assert "north: on the site's own 8 test cases the shared model does better than the personal one" in text
    assert f"{shared:.3f} against {personal:.3f}" in text


@pytest.mark.usefixtures("no_figures")
def test_biases_stand_with_their_limits_and_the_words_are_those_of_the_task() -> None:
    found = shown(of_numbers())
    assert found.table("Test split, shared model: bias") == {
        "site": ["lv_ef, %", "wall"],
        "north": ["+1.00 (-6.00 to +8.00)", "n/a"],
        "south": ["n/a", "n/a"],
    }
    assert "2 values" in found.text and "Validation scaled error of the model" in found.text
    assert "accuracy" not in found.text
    assert "limits of agreement" not in shown(value()).text


def test_the_page_needs_no_other_machine(finished: Path) -> None:
    html = page(read_run(finished))
    assert "default-src 'none'" in html
    Page(html).assert_self_contained()
    assert not re.search("https?:", html)


def test_the_page_can_be_read_aloud(finished: Path) -> None:
    found = Page(page(read_run(finished)))
    assert found.headings[0] == "trial: dual_lora at 2 sites"
    assert set(found.scopes) == {"col", "row"}
    alternatives = [value for tag, name, value in found.attributes if (tag, name) == ("img", "alt")]
    assert len(alternatives) >= 5
    assert all(text is not None and ". " in text for text in alternatives)
    assert ("html", "lang", "en") in found.attributes


EVIL = "<script>alert(1)</script>\"&'"


@pytest.mark.usefixtures("no_figures")
def test_text_of_a_run_is_escaped_everywhere() -> None:
    def spoilt(item: Any) -> Any:
        if isinstance(item, dict):
            return {key.replace("south", EVIL): spoilt(child) for key, child in item.items()}
        if isinstance(item, list):
            return [spoilt(child) for child in item]
        return (
            f"{item}{EVIL}".replace("south", "")
            if isinstance(item, str) and item not in ("north", PERSONAL, SHARED)
            else item
        )

    changed = spoilt(value())
    changed["final"][EVIL]["test"][PERSONAL]["balanced_accuracy"] = 0.125
    html = page(FoundRun(record=parse_record(changed, "r"), passed_over={EVIL: EVIL}))
    assert EVIL in Page(html).text
    assert "<script" not in html
    assert EVIL in Page(html).table("Test split, personal model")


@pytest.mark.usefixtures("no_figures")
def test_what_was_refused_is_said_with_the_reason() -> None:
    found = shown(value())
    assert found.tables["Answers that were left out of their round"][1:] == [
        ["2", "south", "n/a", "the update changes parameters by 3 (rms), above 1"]
    ]
    assert found.table("What each site has")["south"] == ["20", "8", "8", "1", "1", "3"]


@pytest.mark.usefixtures("no_figures")
def test_what_counted_for_less_is_said_with_both_numbers() -> None:
    found = shown(value())
    assert "In round 1 there were too few changes to say how long a usual one is" in found.text
    assert found.tables["Changes above the bound, which were clipped to it"][1:] == [
        ["2", "north", "10", "0.5", "2.5", "25.00%"]
    ]
    assert found.table("Undeclared training cases that weighed less")["2"] == ["north", "9,000", "60"]
    for limits in ({"longest": 1.0}, {"longest": 1.0, "clipped": [], "weights": {"a": 3, "b": {"claimed": "x"}}}):
        changed = value()
        changed["rounds"] = [{"round": 0, "limits": limits}]
        assert "No change was clipped, and all cases counted as claimed." in shown(changed).text
        del changed["rounds"][0]["limits"]
        assert "Limits on one site" not in shown(changed).text


@pytest.mark.usefixtures("no_figures")
def test_bytes_are_those_that_were_counted() -> None:
    found = shown(value()).table("Bytes of all messages")
    assert found["1"] == ["1,200 / 3,400", "1,200 / 3,400"]
    assert found["2"] == ["1,201 / 3,400", "n/a / n/a"]
    assert found["all"] == ["2,401 / 6,800", "1,200 / 3,400"]


@pytest.mark.usefixtures("no_figures")
def test_a_site_that_began_anew_is_named() -> None:
    restarted = [{"round": 1, "site": "south", "restored_rounds": 0}, {"round": None, "site": 3}, "junk"]
    found = shown({**value(), "restarted": restarted})
    assert found.text.count("south began round 1 with no state of its own") == 1


@pytest.mark.usefixtures("no_figures")
def test_a_site_that_the_plan_allows_to_be_missing_is_named_in_a_finished_run() -> None:
    found = shown({**value(), "status": "finished", "absent": ["south has <no> evaluation", 3]})
    assert "did without some of its sites: south has <no> evaluation." in found.text
    assert "incomplete" not in found.text and "not finished" not in found.text


@pytest.mark.usefixtures("no_figures")
def test_an_incomplete_run_says_what_it_lacks() -> None:
    found = shown({**value(), "status": "incomplete", "lacks": ["south has <no> evaluation"]})
    assert "came to its end incomplete: south has <no> evaluation" in found.text
    assert "not finished" not in found.text


@pytest.mark.usefixtures("no_figures")
def test_an_unfinished_run_says_how_far_it_went() -> None:
    changed = {**value(), "status": "running", "final": {}}
    found = shown(changed)
    assert "its record ends in round 2 with 1 answer, and 0 of 2 sites have a final evaluation" in found.text
    assert "No site has an evaluation of its test cases yet" in found.text
    stopped = shown({**changed, "status": "interrupted", "interrupted_by": "too_few_answers"})
    assert "was interrupted (too_few_answers): too few answers to a round counted" in stopped.text
    ready = {"north": {"versions": {"torch": "1.0"}, "bundle": "0" * 8}, "south": {"versions": 7, "bundle": []}, "x": 1}
    assert (
        "north computes with torch 1.0 (the server 2.0)"
        in shown({**changed, "versions": {"torch": "2.0"}, "ready": ready}).text
    )
    assert list(found.table("Validation balanced accuracy"))[1:] == ["0 (start)", "1"]
    assert "not finished" not in shown(value()).text


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_has_only_begun_is_a_page() -> None:
    found = shown({**value(), "status": "running", "final": {}, "rounds": []})
    assert "its record ends in round 0 with 0 answers" in found.text
    assert "Learning curves" not in found.headings
