"""What runs have left at a site can be seen and removed; a personal model, and the count of messages, stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.cli import EXIT_ERROR, main
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import kept_runs as module
from monai_fedlora.federated.kept_runs import forget, kept_runs, nbytes, private_folder
from monai_fedlora.federated.lock import Busy, FolderLock

STATES = ("round-00001.safetensors", "answered-00002.safetensors", "answer.safetensors")
MODELS = ("final.safetensors", "evidence.safetensors", "test_scores.csv")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two experiments at two sites, one of them with an earlier run, and what is no run's."""
    folder = tmp_path / "private"
    for experiment, site, names in (
        ("hearts", "north", (*STATES, *MODELS)),
        ("hearts", "south", (*STATES, MODELS[0])),
        ("skins", "north", MODELS),
    ):
        for name in names:
            path = folder / experiment / site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")
    earlier = folder / "hearts" / "north" / "_earlier-1"
    earlier.mkdir()
    for name in ("round-00000.safetensors", "final.safetensors"):
        (earlier / name).write_bytes(b"12345")
    (folder / ".messages" / "hearts").mkdir(parents=True)
    (folder / ".messages" / "hearts" / "north.json").write_text("{}")
    (folder / "errors.log").write_text("an error")
    (folder / "hearts" / "south" / "notes of a person.txt").write_text("mine")
    return folder


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_all_that_runs_have_left_is_found_and_nothing_else(root: Path) -> None:
    found = kept_runs(root)
    assert [(run.experiment, run.site) for run in found] == [
        ("hearts", "north"),
        ("hearts", "south"),
        ("skins", "north"),
    ]
    assert [(nbytes(run.states), nbytes(run.models)) for run in found] == [(20, 20), (15, 5), (0, 15)]
    assert [run.experiment for run in kept_runs(root, site="south")] == ["hearts"]


def test_states_go_and_models_counts_and_other_files_stay(root: Path) -> None:
    before = names(root)
    gone = {str(path.relative_to(root)) for path in forget(root, "hearts")}
    assert names(root) == before - gone
    assert gone == {
        *(f"hearts/{site}/{name}" for site in ("north", "south") for name in STATES),
        "hearts/north/_earlier-1/round-00000.safetensors",
    }


def test_with_models_the_folders_go_too(root: Path) -> None:
    forget(root, "hearts", models=True)
    assert names(root) == {
        ".messages/hearts/north.json",
        "errors.log",
        "hearts/south/notes of a person.txt",
        *(f"skins/north/{name}" for name in MODELS),
    }
    assert not (root / "hearts" / "north").exists()
    forget(root, "skins", models=True, site="north")
    assert not (root / "skins").exists()


def test_states_that_hold_the_only_private_part_go_only_when_models_may_go_too(root: Path) -> None:
    (root / "hearts" / "south" / MODELS[0]).unlink()
    before = names(root)
    with pytest.raises(ConfigError, match=r"no personal model at south, .* --models"):
        forget(root, "hearts")
    assert names(root) == before
    assert len(forget(root, "hearts", site="south", models=True)) == len(STATES)


def test_a_run_that_goes_on_keeps_all(root: Path) -> None:
    before = names(root)
    with FolderLock(root / "hearts" / "south"), pytest.raises(Busy):
        forget(root, "hearts", models=True)
    assert names(root) - before <= {"hearts/north/.lock", "hearts/south/.lock"}


def test_a_run_that_ends_before_its_folder_is_held_is_removed_as_it_is_then(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(folder: Path) -> FolderLock:
        if folder.name == "south":
            (folder / STATES[1]).rename(folder / "round-00002.safetensors")
        return FolderLock(folder)

    monkeypatch.setattr(module, "FolderLock", ended)
    forget(root, "hearts", site="south")
    assert names(root) & {f"hearts/south/{name}" for name in (*STATES, "round-00002.safetensors", ".lock")} == set()


def test_a_link_out_of_the_folder_is_not_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "final.safetensors").write_bytes(b"1")
    (root / "hearts" / "west").symlink_to(elsewhere)
    assert "west" not in {run.site for run in kept_runs(root)}
    forget(root, "hearts", models=True)
    assert (elsewhere / "final.safetensors").exists()


def test_what_is_not_there_is_an_error_that_names_what_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'hearts'"):
        forget(root, "heart")
    with pytest.raises(ConfigError, match="is no folder"):
        private_folder(root / "nowhere")
    monkeypatch.delenv("MONAI_FEDLORA_PRIVATE_DIR", raising=False)
    with pytest.raises(ConfigError, match="--private DIR"):
        private_folder(None)
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(root))
    assert private_folder(None) == root


def test_the_command_shows_and_removes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", "--private", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "3 runs" in shown and "hearts" in shown and "skins" in shown
    assert main(["forget", "hearts", "--site", "south", "--private", str(root)]) == 0
    assert "removed 3 files of hearts" in capsys.readouterr().out
    assert main(["forget", "heart", "--private", str(root)]) == EXIT_ERROR
    assert "did you mean" in capsys.readouterr().err
