"""`monai-fedlora compare` runs what is asked for, goes on where it was stopped, and says in a line what is wrong."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.cli import main
from monai_fedlora.commands.compare import parse_grids, parse_methods, parse_seeds, split_settings
from monai_fedlora.comparison import execute as module
from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import read_json, write_json
from tests.comparison.conftest import invented, no_figures
from tests.federated.conftest import Prepared, prepared
from tests.plugin_packages import Install

__all__ = ["no_figures", "prepared"]

Command = Callable[..., int]


@pytest.fixture
def compare(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> int:
        places = ["--data", str(prepared.data), "--backbone", str(prepared.backbone), "--output", str(tmp_path / "out")]
        return main(["compare", *places, *arguments])

    return run


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, no_figures: None) -> dict[str, Any]:
    """The plan of every run that was done; nothing is trained, and each seed is a little better."""
    found: dict[str, Any] = {}

    def execute(comparison: Any, run: Run, **_: Any) -> tuple[dict[str, Any], list[Any]]:
        found[run.name] = comparison.plan(run)
        if run.method == "ffa_lora":
            raise FedLoraError("training diverged")
        result = invented(comparison, lambda run, *_: 0.5 + 0.1 * run.seed)[run]
        rate = found[run.name].training.get("learning_rate")
        more = {"validation": {"site-1": rate}, "identity": comparison.identity(run), "common": comparison.common()}
        return {**result, **more}, []

    monkeypatch.setattr(module, "execute", execute)
    return found


@pytest.mark.slow
def test_the_defaults_are_all_sites_and_three_seeds(
    compare: Command, plans: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    assert compare("--methods", "dual_lora,fedavg") == 0
    assert list(plans) == [f"{method}-seed{seed}" for seed in range(3) for method in ("dual_lora", "fedavg")]
    plan = plans["dual_lora-seed0"]
    assert plan.sites == ("site-1", "site-2", "site-3")
    assert (plan.rounds, plan.local_epochs, plan.classes) == (5, 1, ("NOR", "ABN"))
    assert plan.training == {"augment": False, "cache_features": True}
    assert plans["fedavg-seed0"].training["cache_features"] is False
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "runs",
        "report.html",
        "scores",
        "table.csv",
        "results.csv",
        "comparison.json",
    }
    said = capsys.readouterr().out
    assert "0.600 ± 0.100" in said
    assert "3 sites, 3 seeds" in said
    assert "report.html" in said.replace("\n", "")


def test_every_option_reaches_the_plans(compare: Command, plans: dict[str, Any], tmp_path: Path) -> None:
    options = "--methods fedit,fedavg --sites site-3,site-1 --seeds 4,9 --rounds 2 --local-epochs 3 --unseen site-1"
    options += " --cases-for-new 1,3 --set batch_size=2 --set rank=4 --set fedavg.learning_rate=0.5"
    assert compare(*options.split()) == 0
    assert len(plans) == 8
    fedit, fedavg = plans["fedit-seed9"], plans["fedavg-seed9"]
    assert (fedit.sites, fedit.seed, fedit.rounds, fedit.local_epochs) == (("site-3", "site-1"), 9, 2, 3)
    assert fedit.method_args == {"rank": 4}
    assert fedavg.method_args == {}
    assert fedit.training["batch_size"] == fedavg.training["batch_size"] == 2
    assert ("learning_rate" in fedit.training, fedavg.training["learning_rate"]) == (False, 0.5)
    assert plans["fedit-seed4-without-site-1"].sites == ("site-3",)
    assert read_json(tmp_path / "out" / "comparison.json")["settings"]["new_site_cases"] == [1, 3]


@pytest.mark.slow
def test_all_are_all_methods_that_work_and_need_no_texts_and_all_sites(
    compare: Command, plans: dict[str, Any], install: Install, capsys: pytest.CaptureFixture
) -> None:
    from monai_fedlora.methods import get_method, method_names

    able = {name for name in method_names() if not get_method(name).reads_text}
    install("broken", {"methods:broken": "nowhere_at_all:Method"}, {})
    assert compare("--methods", "all", "--seeds", "1", "--unseen", "all") == 1
    assert "note: left out: 'broken' cannot be imported from broken 1.0" in capsys.readouterr().out
    assert "pfedst" not in able
    assert {name.partition("-")[0] for name in plans} == able
    assert len(plans) == 4 * len(able)


def test_a_second_call_adds_what_is_missing(compare: Command, plans: dict[str, Any], capsys: Any) -> None:
    compare("--methods", "fedit", "--seeds", "2")
    plans.clear()
    assert compare("--methods", "fedit,local", "--seeds", "2") == 0
    assert list(plans) == ["local-seed0", "local-seed1"]
    said = capsys.readouterr().out
    assert "2 of 4 runs are there already" in said and "3 sites, 2 seeds" in said


def test_other_settings_need_another_folder(compare: Command, plans: dict[str, Any], capsys: Any) -> None:
    compare("--methods", "fedit", "--seeds", "1")
    assert compare("--methods", "fedit", "--seeds", "1", "--rounds", "7") == 2
    said = capsys.readouterr().err
    assert "rounds: 5, now 7" in said
    assert "--output" in said


def test_failed_runs_are_named_and_the_others_reported(
    compare: Command, plans: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    assert compare("--methods", "fedit,ffa_lora", "--seeds", "1") == 1
    assert "ffa_lora-seed0: training diverged" in capsys.readouterr().out
    assert "training diverged" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert compare("--methods", "ffa_lora", "--seeds", "5,6") == 1


def test_any_failure_is_named_and_the_others_reported(
    compare: Command, plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    own = module.execute

    def execute(comparison: Any, run: Run, **more: Any) -> tuple[dict[str, Any], list[Any]]:
        if run.method == "local":
            raise RuntimeError("out of memory")
        return own(comparison, run, **more)

    monkeypatch.setattr(module, "execute", execute)
    assert compare("--methods", "fedit,local", "--seeds", "1") == 1
    said = capsys.readouterr().out
    assert "local-seed0: RuntimeError: out of memory" in said
    assert "1 of 2 runs failed" in said
    assert "RuntimeError: out of memory" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (failed,) = read_json(tmp_path / "out" / "comparison.json")["failures"]
    assert failed == {"run": "local-seed0", "reason": "RuntimeError: out of memory"}
    monkeypatch.setattr(module, "execute", own)
    plans.clear()
    assert compare("--methods", "fedit,local", "--seeds", "1") == 0
    assert list(plans) == ["local-seed0"]


def test_every_method_runs_once_for_every_part_of_the_cases(
    compare: Command, plans: dict[str, Any], capsys: Any
) -> None:
    assert compare("--methods", "fedit", "--seeds", "1", "--splits", "2", "--repeats", "2") == 0
    assert list(plans) == [f"fedit-seed0-split{repeat}.{fold}" for repeat in range(2) for fold in range(2)]
    assert compare("--methods", "fedit", "--splits", "5") == 2
    assert "site-1 has 4 patients of NOR, and every one of the 5 parts needs one" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["statsmodels", "scipy"])
def test_what_the_report_lacks_is_said_before_the_first_run(
    compare: Command, plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, missing: str
) -> None:
    for name in [name for name in sys.modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert compare("--methods", "fedit", "--seeds", "1") == 2
    said = capsys.readouterr().err
    assert missing in said
    assert "[compare]" in said
    assert plans == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["an image", "the code"])
def test_a_result_of_other_images_or_code_is_not_mixed_in(
    prepared: Prepared,
    plans: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Any,
    change: str,
) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    for site in ("site-1", "site-2"):
        datalist = load_datalist(prepared.data / site / "datalist.json")
        for _, case in datalist.all_cases():
            for file in case.files():
                (data / site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(datalist.image_root / file, data / site / file)
        write_json(data / site / "datalist.json", datalist.to_json(image_root="."))
    places = ["--data", str(data), "--backbone", str(prepared.backbone), "--output", str(output), "--seeds", "1"]
    assert main(["compare", *places, "--methods", "fedit"]) == 0
    before = (output / "runs" / "fedit-seed0.json").read_bytes()
    if change == "an image":
        image = data / "site-2" / datalist.test[0].files()[0]
        image.write_bytes(image.read_bytes() + b"x")
    else:
        monkeypatch.setattr("monai_fedlora.comparison.comparison_settings.source_digest", lambda places: "other")
    assert main(["compare", *places, "--methods", "fedit,local"]) == 2
    assert ("data.site-2" if change == "an image" else "code: ") in capsys.readouterr().err
    assert list(plans) == ["fedit-seed0"]
    assert (output / "runs" / "fedit-seed0.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--methods", "dual_lorra"], "did you mean 'dual_lora'"),
        (["--methods", "fedit,fedit"], "stands there twice"),
        (["--methods", "fedit", "--seeds", "0"], "seeds"),
        (["--methods", "fedit", "--seeds", "1,x"], "--seeds"),
        (["--methods", "fedit", "--seeds", ""], "seeds"),
        (["--methods", "fedit", "--set", "rank"], "NAME=VALUE"),
        (["--methods", "fedit", "--set", "ranks=2"], "ranks"),
        (["--methods", "fedit", "--set", "local.rank=2"], "local"),
        (["--methods", "fedit", "--unseen", "site-9"], "site-9"),
        (["--methods", "fedit", "--sites", "site-9"], "site-9"),
        (["--methods", "fedit", "--cases-for-new", "20,5"], "growing"),
        (["--methods", "fedit,local", "--cases", "4,3"], "growing"),
        (["--methods", "fedit,ditto", "--cases", "4"], "--methods needs local"),
        (["--methods", "fedit,local", "--cases", "500"], "site-1 trains on"),
        (["--methods", "fedit,local", "--cases-at", "site-1"], "by --cases 4,8,16"),
        (["--methods", "fedit", "--workers", "0"], "--workers"),
        (["--methods", "fedit", "--size", "huge"], "huge"),
        (["--methods", "fedit", "--bundle", "unheard-of"], "unheard-of"),
        (["--methods", "fedit", "--backbone", "absent.safetensors"], "absent"),
        (["--methods", "fedit", "--data", "absent"], "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(
    compare: Command, plans: dict[str, Any], tmp_path: Path, capsys: Any, arguments: list[str], hint: str
) -> None:
    assert compare(*arguments) == 2
    said = capsys.readouterr().err
    assert hint in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert plans == {}


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("7,") == (7,)
    assert parse_seeds("2,0") == (2, 0)
    with pytest.raises(ConfigError):
        parse_seeds("three")


def test_rows_are_methods_or_names_of_ones_own() -> None:
    assert parse_methods("dual_lora,tuned=fedit") == {"dual_lora": "dual_lora", "tuned": "fedit"}
    with pytest.raises(ConfigError, match="'fedit' stands there twice"):
        parse_methods("fedit,fedit")


def test_a_dot_gives_a_setting_to_one_method() -> None:
    assert split_settings({"rank": 1, "a.rank": 2, "a.head": "private", "b.rank": 3}) == (
        {"rank": 1},
        {"a": {"rank": 2, "head": "private"}, "b": {"rank": 3}},
    )


@pytest.mark.slow
def test_phantoms_are_compared_by_the_real_command(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    arguments = "--methods dual_lora,local,centralised --sites site-1,site-2 --seeds 1 --rounds 1 --unseen site-2"
    arguments += " --cases-for-new 5 --set batch_size=8"
    assert main(["compare", *arguments.split(), "--output", str(output), "--workers", "2"]) == 0
    with (output / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert all(0 <= float(row["balanced_accuracy"]) <= 1 for row in rows.values())
    assert float(rows["dual_lora"]["seconds_per_run"]) > 0
    value = read_json(output / "comparison.json")
    unseen = {summary["method"]: set(summary["unseen"]) for summary in value["summaries"]}
    assert unseen == {"dual_lora": {"0", "5"}, "local": {"5"}, "centralised": {"0"}}
    capsys.readouterr()
    before = (output / "report.html").read_bytes()
    assert main(["compare", *arguments.split(), "--output", str(output)]) == 0
    assert "6 of 6 runs are there already" in capsys.readouterr().out
    assert (output / "report.html").read_bytes() == before


def test_grids_are_names_with_or_without_values() -> None:
    assert parse_grids("") == {}
    assert parse_grids("learning_rate,rank=4:16,head=private") == {
        "learning_rate": None,
        "rank": [4, 16],
        "head": ["private"],
    }
    for wrong in ("=4", "rank,rank=2:4"):
        with pytest.raises(ConfigError, match="each once"):
            parse_grids(wrong)


def test_what_was_tuned_is_said_and_a_single_value_refused(
    compare: Command, plans: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    assert compare("--methods", "fedit", "--seeds", "1", "--tune", "learning_rate=0.1:0.2") == 0
    tuning = read_json(tmp_path / "out" / "comparison.json")["tuning"]
    assert tuning["chosen"] == {"fedit": {"learning_rate": 0.2}}
    assert [each["validation"] for each in tuning["tried"]] == [0.1, 0.2]
    assert plans["fedit-seed0"].training["learning_rate"] == 0.2
    assert "to choose its settings by the validation cases" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert compare("--methods", "fedit", "--tune", "learning_rate=0.1") == 2
    assert "one value" in capsys.readouterr().err
