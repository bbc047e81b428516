"""What a finished federation gives: records, tables, curves, pages, models and jobs."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.api import finished_run as module
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.intervals import with_intervals
from monai_fedlora.files import read_json
from tests.api.conftest import LORA, SETTINGS, Small, two_sites


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    return fl.federate(Small, LORA, two_sites(images="synthetic"), **SETTINGS, folder=tmp_path_factory.mktemp("kept"))


def test_a_run_gives_the_same_from_memory_as_from_its_folder(kept: fl.Run, in_memory: fl.Run) -> None:
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.records] for run in (kept, in_memory)]
    assert untimed[0] == untimed[1]
    assert kept.cases == in_memory.cases
    assert kept.table() == in_memory.table()
    models = [run.personal("south").state_dict() for run in (kept, in_memory)]
    assert all(torch.equal(models[0][key], value) for key, value in models[1].items())
    assert in_memory.folder is None and kept.results["plan"] == in_memory.results["plan"]


def test_records_say_what_the_results_file_says(kept: fl.Run) -> None:
    assert kept.folder is not None
    results = read_json(kept.folder / "results.json")
    rows = {(row["site"], row["round"], row["split"], row["model"]): row for row in kept.records}
    for number, entry in enumerate(results["rounds"]):
        for site, said in entry["sites"].items():
            assert rows[site, number + 1, "training", "personal"]["loss"] == said["train_loss"]
            for model in ("personal", "shared"):
                measured = said["validation"][model]
                row = rows[site, number, "validation", model]
                assert row["balanced_accuracy"] == measured["balanced_accuracy"] and row["cases"] == measured["n"]
    assert rows["north", 2, "test", "shared"]["auroc"] == results["final"]["north"]["test"]["shared"]["auroc"]


def test_cases_name_their_subjects_and_add_up_to_the_metrics(kept: fl.Run) -> None:
    tests = [row for row in kept.cases if row["split"] == "test"]
    assert {row["model"] for row in tests} == {"personal", "shared"}
    assert {row["subject"] for row in tests} == {f"test-{number}" for number in range(4)}
    for row in tests:
        assert row["predicted"] == ("0" if row["p_0"] >= row["p_1"] else "1")
    for site in ("north", "south"):
        own = [row for row in tests if row["site"] == site and row["model"] == "personal"]
        right = sum(row["label"] == row["predicted"] for row in own) / len(own)
        said = next(r for r in kept.records if r["site"] == site and r["split"] == "test" and r["model"] == "personal")
        assert said["accuracy"] == pytest.approx(right)


def test_the_table_has_every_model_with_its_interval(kept: fl.Run) -> None:
    caption, head, *lines = str(kept.table()).splitlines()
    assert "95 % intervals" in caption and head.split()[:3] == ["site", "model", "n"]
    assert [line.split()[:2] for line in lines] == [
        [site, model] for site in ("north", "south") for model in ("personal", "shared")
    ]
    measured = kept.results["final"]["north"]["test"]["personal"]
    low, high = with_intervals(measured)["balanced_accuracy"]["interval_95"]
    assert f"{measured['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})" in lines[0]


def test_the_table_names_what_has_no_interval(kept: fl.Run) -> None:
    assert "has none" not in str(kept.table())
    many = copy.copy(kept)
    many.plan = dataclasses.replace(kept.plan, classes=("a", "b", "c"))
    assert "AUROC of more than two classes has none" in str(many.table()).splitlines()[0]


def test_a_job_of_a_toy_tells_which_sites_would_send_nothing(
    kept: fl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "write_job", lambda *arguments, **options: None)
    monkeypatch.setattr(module, "build_manifest", lambda plan: None)
    counts = {"north": 15, "south": 16}
    for declared in (counts, {"north": 16, "south": 16}):
        dataclasses.replace(kept.plan, size="vit_demo", declared_cases=declared).to_job(tmp_path / "job")
    (record,) = caplog.records
    assert "at least 16 patients" in record.getMessage() and record.getMessage().endswith("as here of north (15)")


def test_frames_are_the_records_where_pandas_is_installed(kept: fl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pytest.importorskip("pandas").DataFrame
    assert isinstance(kept.frame(), frame) and len(kept.frame("cases")) == len(kept.cases)
    with pytest.raises(ConfigError, match="choose records or cases"):
        kept.frame("rounds")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"needs pandas.*run\.records"):
        kept.frame()


def test_curves_are_drawings(kept: fl.Run) -> None:
    for what in ("personal", "shared", "loss"):
        assert "<svg" in kept.plot(what).svg
    with pytest.raises(ConfigError, match="choose personal, shared or loss"):
        kept.plot("accuracy")


def test_the_page_is_the_one_of_the_command(kept: fl.Run, in_memory: fl.Run, tmp_path: Path) -> None:
    page = in_memory.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for site in ("north", "south"):
        assert site in page
    with pytest.raises(ConfigError, match="is a folder"):
        in_memory.report(tmp_path)


def test_bytes_are_those_of_what_travels(kept: fl.Run) -> None:
    assert kept.bytes["up"] == kept.results["payload_bytes"] == kept.bytes["down"]
    assert kept.bytes["total"] == 4 * 2 * kept.bytes["up"] + 2 * kept.bytes["down"]


def test_a_site_that_the_run_does_not_have_has_no_model(kept: fl.Run) -> None:
    with pytest.raises(ExportError, match="no model of 'west'; choose from north, south, shared"):
        kept.personal("west")
    with pytest.raises(ExportError, match="did you mean 'north'"):
        kept.export("nort", "nowhere")


def test_a_network_of_this_program_makes_no_job(kept: fl.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no other machine has"):
        kept.plan.to_job(tmp_path / "job")
    assert not (tmp_path / "job").exists()
