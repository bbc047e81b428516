"""`monai-fedlora run` shows what comes of a run, and `resume` writes the job that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.api import supervised_run
from monai_fedlora.cli import EXIT_ERROR, main
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.run_record import RunRecord
from monai_fedlora.federated.server_link import ServerLink
from monai_fedlora.files import read_json
from tests.helpers import make_manifest, make_plan


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_job(make_plan(experiment="hearts"), make_manifest(), tmp_path / "hearts")
    return tmp_path / "hearts"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    settings = tmp_path / "kit" / "startup" / "fed_admin.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"admin": {"username": "lead"}}')
    return tmp_path / "kit"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that end at once, and lack everything."""

    class Done:
        def __init__(self, *, job: Path, folder: Path, link: ServerLink, limits: Any, say: Any) -> None:
            assert limits.exclude_after in (None, 2) and isinstance(link, ServerLink)
            self._folder, self._say = folder, say

        def run(self) -> Any:
            self._say("round 1 of 2")
            record = RunRecord(folder=self._folder, plan=make_plan(), manifest=make_manifest())
            record.finish()
            return read_json(record.path)

    monkeypatch.setattr(supervised_run, "Supervisor", Done)


@pytest.mark.usefixtures("done")
def test_a_run_lies_beside_its_job_and_says_what_it_lacks(job: Path, kit: Path, capsys: Any) -> None:
    assert main(["run", str(job), "--startup-kit", str(kit), "--exclude-after", "2"]) == 1
    printed = capsys.readouterr().out
    assert "round 1 of 2" in printed and "this run is incomplete" in printed
    assert f"results: {job}-run/results.json" in printed.replace("\n", "")


@pytest.mark.usefixtures("done")
def test_a_run_whose_process_was_killed_was_interrupted_as_its_report_says(job: Path, kit: Path, capsys: Any) -> None:
    folder = Path(f"{job}-run")
    folder.mkdir()
    FolderLock(folder).release()
    (folder / "results.json").write_text('{"status": "running"}')
    assert main(["run", str(job), "--startup-kit", str(kit)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "was interrupted (stopped)" in printed and printed.index("it is gone on with") < printed.index("round 1")
    assert main(["run", str(job), "--startup-kit", str(kit)]) == 1  # it has come to its end now
    assert "was interrupted" not in capsys.readouterr().out


def test_what_is_no_kit_is_named(job: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["run", str(job), "--startup-kit", str(tmp_path)]) == EXIT_ERROR
    assert f"{tmp_path} is no startup kit of a person" in capsys.readouterr().err
    assert not Path(f"{job}-run").exists()


def test_limits_out_of_range_are_refused(job: Path, kit: Path, capsys: Any) -> None:
    assert main(["run", str(job), "--startup-kit", str(kit), "--tries", "0"]) == EXIT_ERROR
    assert "tries is 0; it must be at least 1" in capsys.readouterr().err
