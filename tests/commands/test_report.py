"""The report command writes one page, or says in one line why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.cli import main
from monai_fedlora.files import write_json
from tests.reporting.conftest import value


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_json(tmp_path / "run" / "results.json", value())
    return tmp_path / "run"


@pytest.mark.slow
def test_the_page_lies_in_the_run_unless_told_otherwise(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(workspace)]) == 0
    assert capsys.readouterr().out == f"report: {workspace / 'report.html'}\n"
    assert main(["report", str(workspace), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text() == (workspace / "report.html").read_text()
    assert "worst site is <b>south</b> with 0.625" in (workspace / "report.html").read_text()


@pytest.mark.parametrize(("content", "said"), [({"rounds": []}, "no record of a run"), (None, "holds neither")])
def test_what_is_no_run_is_one_line(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        write_json(tmp_path / "results.json", content)
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "report.html").exists()


def test_a_folder_is_no_page(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(workspace), "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
