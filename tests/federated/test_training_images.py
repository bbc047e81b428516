"""Whether sites trained on synthetic or real images is known of every tensor that they moved, and of nothing more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.cli import main
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.origin import KINDS, Origin, together
from monai_fedlora.errors import PrivacyError, WeightsError
from monai_fedlora.federated.initial import build_shared, save_shared, start_origin, stored_images
from monai_fedlora.federated.job_files import CONFIG
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.run_record import RunRecord
from monai_fedlora.federated.site_state import TRAINED_ON
from monai_fedlora.files import load_tensors, read_json, write_json
from monai_fedlora.site_report import MetricsForm, Report, images_said
from tests.federated.conftest import Prepared
from tests.helpers import make_manifest, make_plan

REAL = Origin(kind="real", name="ward 7", source="own archive")
MADE = Origin(kind="synthetic", name="phantom-site-2", source="phantoms of monai-fedlora")


@pytest.fixture(scope="module")
def places(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The prepared sites, the first with real images, the second with synthetic ones."""
    data = tmp_path_factory.mktemp("origins") / "data"
    for site, origin in (("site-1", REAL), ("site-2", MADE)):
        datalist = replace(load_datalist(prepared.data / site / "datalist.json"), origin=origin)
        write_json(data / site / "datalist.json", datalist.to_json())
    return {**prepared.places, "data_root": str(data)}


@pytest.fixture(scope="module")
def finished(prepared: Prepared, places: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one round."""
    folder = tmp_path_factory.mktemp("mixed")
    run_in_process(prepared.plan(rounds=1), folder=folder, **places)
    return folder


def trained_on(folder: Path, site: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        load_tensors(folder / "private" / "trial" / site / "final.safetensors")[1][TRAINED_ON]
    )
    return found


def test_every_stored_tensor_of_a_run_says_what_images_moved_it(finished: Path) -> None:
    for site, origin in (("site-1", REAL), ("site-2", MADE)):
        assert trained_on(finished, site) == {"site": origin.to_json(), "shared": "mixed"}
    path = finished / "shared.safetensors"
    assert stored_images(path, load_tensors(path)[1]) == "mixed"
    best = finished / "best_shared.safetensors"  # drawn by the seed, so that no image moved it
    assert stored_images(best, load_tensors(best)[1]) == "unknown"
    said = read_json(finished / "results.json")["training_data"]
    assert said == {"kind": "mixed", "sites": {"site-1": "real", "site-2": "synthetic"}, "start": None}


def test_names_of_data_sets_stay_at_the_site(finished: Path) -> None:
    for name in ("results.json", "shared.safetensors", "best_shared.safetensors"):
        content = (finished / name).read_bytes()
        assert not any(text in content for text in (b"ward 7", b"own archive", b"phantom-site-2"))


@pytest.mark.slow
def test_run_that_starts_from_tensors_of_synthetic_images_never_loses_that(
    prepared: Prepared, places: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    options = [f"--backbone={prepared.backbone}", "--sites=site-1", "--rounds=1", "--set=batch_size=4"]
    options += ["--set=warmup_epochs=0", f"--start-from={finished / 'shared.safetensors'}"]
    assert main(["job", "dual_lora", f"--output={tmp_path / 'second'}", *options]) == 0
    plan = Plan.load(tmp_path / "second" / CONFIG / "plan.json")
    assert plan.start == Origin(kind="mixed", name="shared part of trial after 1 rounds")
    run_in_process(tmp_path / "second", folder=tmp_path / "W", **places)
    said = read_json(tmp_path / "W" / "results.json")["training_data"]
    assert (said["kind"], said["sites"], said["start"]) == ("mixed", {"site-1": "real"}, plan.start.to_json())
    final = load_tensors(tmp_path / "W/private/second/site-1/final.safetensors")[1]
    assert json.loads(final[TRAINED_ON]) == {"site": REAL.to_json(), "shared": "mixed"}

    options += [f"--start-from={tmp_path / 'W/shared.safetensors'}", "--experiment=second", "--resume"]
    assert main(["job", "dual_lora", f"--output={tmp_path / 'third'}", "--accept-changes", *options]) == 0
    later = Plan.load(tmp_path / "third" / CONFIG / "plan.json")
    assert (later.start_round, later.start) == (1, plan.start)


@pytest.mark.slow
def test_site_whose_images_were_exchanged_between_rounds_has_been_moved_by_both(
    prepared: Prepared, places: dict[str, Any], tmp_path: Path
) -> None:
    from monai_fedlora.federated.federated_site import Site

    plan = prepared.plan(sites=("site-1",))
    _, shared = build_shared(plan)

    def site(origin: Origin) -> Site:
        built = Site(name="site-1", plan=plan, private_root=tmp_path, source=Installed(**places))
        built._origin = origin
        return built

    first = site(MADE)
    update = first.train_round(0, shared)
    assert update.report.kind == "synthetic"
    first.store.release()
    second = site(REAL)
    update = second.train_round(1, update.tensors)
    assert update.report.kind == "mixed"
    second.finish(update.tensors, images="mixed")
    final = load_tensors(tmp_path / "trial/site-1/final.safetensors")[1]
    assert json.loads(final[TRAINED_ON])["site"] == {**REAL.to_json(), "kind": "mixed"}


@settings(max_examples=12)
@given(st.lists(st.tuples(st.sampled_from(("north", "south")), st.sampled_from(KINDS)), min_size=1, max_size=6))
def test_record_keeps_every_kind_that_counted_in_any_round(answers: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord(folder=Path(folder), plan=make_plan(), manifest=make_manifest())
        for number, (site, kind) in enumerate(answers):
            record.begin_round(number)
            record.contribution(site, Report(round=number, cases=5, images=images_said(kind)))
        record.flush()
        assert record.images == together(kind for _, kind in answers)


@pytest.mark.parametrize("value", [-1, len(KINDS), True, 1.0, "real", None, [2]])
def test_report_says_the_kind_of_images_in_one_of_four_numbers_and_no_other_way(value: object) -> None:
    with pytest.raises(PrivacyError, match="images"):
        Report.parse({"images": value}, form=MetricsForm(classes=2))
    assert Report.parse({}, form=MetricsForm(classes=2)).kind == "unknown"
    for kind in KINDS:
        assert Report.parse({"images": images_said(kind)}, form=MetricsForm(classes=2)).kind == kind


def test_tensors_of_an_earlier_version_are_of_unknown_images(tmp_path: Path) -> None:
    path = tmp_path / "shared.safetensors"
    save_shared(path, {}, plan=make_plan(), round_number=4)
    assert start_origin(str(path)) == Origin(name="shared part of trial after 5 rounds")
    save_shared(path, {}, plan=make_plan(), round_number=4, images="reel")
    with pytest.raises(WeightsError, match="damaged"):
        start_origin(str(path))
    assert start_origin(None) is None
    assert start_origin(str(tmp_path)) == Origin(name=tmp_path.name)
