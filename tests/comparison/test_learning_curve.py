"""Each site in turn has fewer patients: who trains, on what, what is measured, and what the page says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.execute import execute
from monai_fedlora.comparison.method_page import page
from monai_fedlora.comparison.method_tables import learning_curve
from monai_fedlora.comparison.outcome import Outcome
from monai_fedlora.comparison.outcome_files import as_json
from monai_fedlora.comparison.runner import Task
from monai_fedlora.engines.memory import Memory
from monai_fedlora.errors import ConfigError
from tests.comparison.conftest import invented

CURVE = {"curve_cases": (2, 4), "curve_sites": ("site-1", "site-2")}


def test_runs_have_one_site_with_fewer_cases_and_the_others_with_all(
    make_task: Callable[..., Task], tmp_path: Path
) -> None:
    task = make_task(tmp_path, "fedit", "local", **CURVE)
    comparison = task.comparison
    names = [run.name for run in comparison.runs()]
    assert names[:4] == ["fedit-seed0", "local-seed0", "fedit-seed0-site-1-with-2", "local-seed0-site-1-with-2"]
    assert len(set(names)) == len(names) == 2 + 2 * 2 * 2
    joined, alone = (run for run in comparison.runs() if run.limited == "site-2" and run.cases == 4)
    assert comparison.members(joined) == comparison.sites
    assert comparison.plan(alone).sites == ("site-2",)
    for site, datalist in task.datalists.items():
        found = comparison.split(datalist, joined)
        assert len(found.training) == (4 if site == "site-2" else len(datalist.training))
        assert (found.validation, found.test) == (datalist.validation, datalist.test)
    assert comparison.identity(joined)["limited"] == {"site": "site-2", "cases": 4}
    assert "limited" not in comparison.identity(Run(method="fedit", seed=0))
    with pytest.raises(ConfigError, match="--cases-at site-9: there is no such site; did you mean"):
        make_task(tmp_path, "fedit", "local", curve_cases=(2,), curve_sites=("site-9",))
    with pytest.raises(ConfigError, match=r"cases of a learning curve are \[4, 2\]"):
        make_task(tmp_path, "fedit", "local", curve_cases=(4, 2), curve_sites=("site-1",))


@pytest.mark.usefixtures("no_figures")
def test_the_table_has_every_point_beside_training_alone(make_task: Callable[..., Task], tmp_path: Path) -> None:
    task = make_task(tmp_path, "fedit", "local", seeds=(0, 1), **CURVE)

    def score(run: Run, site: str, view: str, cases: int | None) -> float:
        return 0.5 + 0.1 * (run.method == "fedit") + 0.01 * (cases or 20) + 0.1 * (site == "site-2")

    outcome = Outcome(
        comparison=task.comparison,
        datalists=task.datalists,
        backbone="b",
        is_demo=False,
        results=invented(task.comparison, score),
    )
    rows = {(row[0], row[1]): row[2:] for row in learning_curve(outcome).rows}
    assert rows["site-1", "fedit"] == ["0.620 ± 0.000", "0.640 ± 0.000", "0.800 ± 0.000"]
    assert rows["mean over sites", "local"] == ["0.570 ± 0.000", "0.590 ± 0.000", "0.750 ± 0.000"]
    assert rows["site-2", "fedit minus local"] == ["n/a", "n/a", "n/a"]
    assert "Will joining help a site?" in page(outcome)
    assert outcome.summaries[1].sites.keys() == set(task.comparison.sites)
    points = as_json(outcome)["learning_curve"]
    assert {(point["method"], point["site"], point["cases"]) for point in points} == {
        (method, site, n) for method in ("fedit", "local") for site in CURVE["curve_sites"] for n in (2, 4, None)
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "local", "centralised"])
def test_a_run_measures_the_personal_model_of_the_site_with_fewer_cases(
    make_task: Callable[..., Task], memory: Memory, tmp_path: Path, method: str
) -> None:
    task = make_task(tmp_path, method, **CURVE)
    run = Run(method=method, seed=0, limited="site-1", cases=2)
    result, scores = execute(
        task.comparison, run, datalists=task.datalists, backbone=task.backbone, folder=tmp_path / "run", memory=memory
    )
    (entry,) = result["metrics"]
    assert (entry["site"], entry["view"], entry["cases"]) == ("site-1", "limited", 2)
    assert entry["n"] == len(task.datalists["site-1"].test)
    assert {(each.case, each.view, each.cases) for each in scores} == {
        (case.subject, "limited", 2) for case in task.datalists["site-1"].test
    }
