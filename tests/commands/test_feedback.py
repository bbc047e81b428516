"""Saying whether one agrees, and counting it, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_fedlora import cli
from monai_fedlora.clinic.many import file_name
from tests.clinic.test_reader_feedback import RESULT


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What predict leaves of three studies."""
    folder = tmp_path / "predictions"
    (folder / "studies").mkdir(parents=True)
    for study, prediction in (("P1", "ABN"), ("Fall 2", "NOR"), ("P3", "ABN")):
        content = RESULT | {"study": study, "prediction": prediction}
        (folder / "studies" / f"{file_name(study)}.json").write_text(json.dumps(content))
    (folder / "studies" / "bad.json").write_text(json.dumps({"study": "bad", "error": "damaged"}))
    return folder


def test_opinions_lie_beside_the_results_and_are_counted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(results)
    assert cli.main(["feedback", "agree", place, "P1"]) == 0
    assert cli.main(["feedback", "disagree", place, "Fall 2", "--because", "thin wall", "--instead", "ABN"]) == 0
    assert cli.main(["feedback", "disagree", place, "P3", "--because", "an artefact"]) == 0
    assert cli.main(["feedback", "agree", place, "P3", "--because", "seen again"]) == 0
    assert str(results / "feedback.csv") in capsys.readouterr().out
    assert cli.main(["feedback", "summarise", place]) == 0
    said = capsys.readouterr().out
    lines = {line.strip().split("  ")[0]: line.split() for line in said.splitlines()}
    assert lines["all"][-6:] == ["3", "2", "67%", "21%", "to", "94%"]
    assert lines["answer ABN"][2:5] == ["2", "2", "100%"]
    assert "Fall 2: NOR, ABN instead, because thin wall" in said
    assert "artefact" not in said
    assert "it is no accuracy" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agree", "{}", "P9"], "holds no result of 'P9'"),
        (["agree", "{}/nowhere", "P1"], "holds no result"),
        (["agree", "{}", "bad"], "bad has no answer"),
        (["disagree", "{}", "P1", "--because", " "], "why you disagree"),
        (["summarise", "{}"], "does not exist"),
    ],
)
def test_what_cannot_be_kept_or_counted_is_said(
    arguments: list[str], message: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["feedback", *(argument.format(results) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (results / "feedback.csv").exists()
    assert not (results / "nowhere").exists()


def test_whoever_disagrees_says_why(results: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["feedback", "disagree", str(results), "P1"])
