"""Whatever the umask: runs, exports, predictions, prepared data and jobs are their owner's alone from the start."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from monai_fedlora import cli
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.many import DicomOutput, predict_all
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.bundle_zip import pack
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import make_folder, open_new, private_umask, save_tensors, write_bytes, write_json
from monai_fedlora.studies.finding import find_studies
from tests.exporting.finished_runs import Run
from tests.federated.conftest import Prepared, prepared  # noqa: F401


@pytest.fixture
def careless() -> Iterator[int]:
    """The umask that keeps nothing from anybody."""
    before = os.umask(0)
    yield 0
    os.umask(before)


@pytest.fixture(params=[0o000, 0o022], ids=["umask 000", "umask 022"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What a careless and an ordinary user's files would be readable with."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def readable(root: Path) -> set[str]:
    """What others of this machine reach: not below a folder that they cannot enter."""
    found: set[str] = set()
    for entry in os.scandir(root):
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
            if mode & 0o077:
                found.add(f"{Path(entry.path).name} {stat.S_IMODE(mode):o}")
            if entry.is_dir(follow_symlinks=False) and mode & 0o077:
                found |= readable(Path(entry.path))
        except FileNotFoundError:
            continue
    return found


def open_to_others(root: Path) -> list[str]:
    """Everything below a folder that has a permission for anybody but its owner."""
    paths = [path for path in root.rglob("*") if not path.is_symlink()]
    return [str(path.relative_to(root)) for path in paths if path.stat().st_mode & 0o077]


@contextmanager
def watched(root: Path) -> Iterator[set[str]]:
    """What others could have read at some moment while the block ran."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            found.update(readable(root))
            time.sleep(0.002)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def check(root: Path, work: Callable[[Path], object]) -> None:
    root.mkdir(mode=0o755)
    with watched(root) as seen:
        work(root / "new" / "out")
    assert any((root / "new").rglob("*"))
    assert open_to_others(root) == []
    assert seen == set()


@pytest.mark.slow
def test_run_is_its_owners_alone(careless: int, prepared: Prepared, tmp_path: Path) -> None:  # noqa: F811
    plan = prepared.plan(rounds=1)
    check(tmp_path / "run", lambda folder: run_in_process(plan, folder=folder, **prepared.places))


def test_job_is_its_owners_alone(umask: int, prepared: Prepared, tmp_path: Path) -> None:  # noqa: F811
    plan = prepared.plan()
    manifest, shared = build_shared(plan)
    initial = tmp_path / "initial.safetensors"
    save_shared(initial, shared, plan=plan, round_number=0)
    check(tmp_path / "job", lambda folder: write_job(plan, manifest, folder, initial=initial))


@pytest.mark.slow
def test_export_and_prediction_are_their_owners_alone(
    careless: int,
    stored_run: Run,
    stored_study: Path,
    tmp_path: Path,
) -> None:
    def export_and_predict(folder: Path) -> None:
        export_bundle(**stored_run.options(folder / "bundle"), program=False)
        pack(folder / "bundle", folder / "packed" / "bundle.zip")
        studies = find_studies([stored_study], modality="cine").studies
        dicom = DicomOutput(deidentifier=Deidentifier())
        predict_all(open_bundle(folder / "bundle"), studies, folder / "P", dicom=dicom)

    check(tmp_path / "E", export_and_predict)


@pytest.mark.slow
def test_data_are_their_owners_alone(careless: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(folder: Path) -> None:
        for layout, *few in (["fed_isic2019", "--patients", "12", "--size", "48"], ["acdc", "--patients", "6"]):
            made = folder / layout
            assert cli.main(["data", "phantom", "--layout", layout, "--output", str(made), *few]) == 0
        assert cli.main(["data", "acdc", "--source", str(made), "--output", str(folder / "data")]) == 0

    check(tmp_path / "D", prepare)
    assert os.umask(careless) == careless  # the command changed it for itself alone


def test_every_writer_is_private(umask: int, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        make_folder(folder / "a" / "b")
        make_folder(folder / "a" / "b")
        write_json(folder / "c" / "d" / "e.json", {})
        save_tensors(folder / "f" / "g.safetensors", {"a": torch.zeros(1 << 16)}, {"x": "1", "y": "2"})
        with open_new(folder / "h") as stream:
            stream.write(b"x")
        with pytest.raises(FileExistsError):
            open_new(folder / "h")
        write_bytes(folder / "i", b"x")

    check(tmp_path / "W", write)
    assert [path.name for path in (tmp_path / "W/new/out/f").iterdir()] == ["g.safetensors"]


def test_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    make_folder(shared / "own")
    make_folder(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    (tmp_path / "file").write_text("x")
    for blocked in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match="file"):
            make_folder(blocked)


def test_what_libraries_write_in_a_command_is_private(umask: int, tmp_path: Path) -> None:
    with private_umask():
        (tmp_path / "x").write_text("x")
        program = "import sys; open(sys.argv[1], 'w')"
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "y")], check=True)
    assert open_to_others(tmp_path) == []
    (tmp_path / "z").write_text("z")
    assert open_to_others(tmp_path) == ["z"]
