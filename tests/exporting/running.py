"""Run an exported bundle as its user does, here or where only MONAI is installed."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

BLOCKER = """
import runpy, sys
from importlib.machinery import ModuleSpec

class Blocker:
    blocked = ("peft", "transformers", "nvflare", "monai_fedlora", "safetensors", "sklearn", "rich", "SimpleITK")

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in self.blocked else None

    def create_module(self, spec):
        raise ImportError(f"{spec.name} is not installed here")

    def exec_module(self, module):
        raise ImportError

sys.meta_path.insert(0, Blocker())
"""
COMMAND = """
sys.argv = ["monai.bundle", *sys.argv[1:]]
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""
PROGRAM = """
from pathlib import Path
import monai.bundle, torch

bundle, studies, output = map(Path, sys.argv[1:])
network, metadata, _ = monai.bundle.load(bundle.name, bundle_dir=bundle.parent, load_ts_module=True, device="cpu")
workflow = monai.bundle.create_workflow(
    config_file=str(bundle / "configs" / "inference.json"),
    workflow_type="inference",
    logging_file=False,
    bundle_root=str(bundle),
    dataset_dir=str(studies),
    output_dir=str(output),
)
workflow.initialize()
assert workflow.check_properties() == []
with torch.no_grad():
    for item in workflow.dataset:
        image = item["image"]
        inputs = [image.as_tensor()[None], image.affine[None]] if hasattr(image, "affine") else [image[None]]
        logits, distance = network.assess(*inputs)
        assert torch.equal(logits, network(*inputs)) and distance.shape == (1,)
        print("found", item["study"], *logits.softmax(dim=1)[0].tolist(), sep=",")
workflow.run()
workflow.finalize()
assert metadata["provenance"]["not_for_clinical_use"] is True
assert not {name.partition(".")[0] for name in sys.modules} & set(Blocker.blocked)
"""


def read_table(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """The columns of a table without an error, and its rows by study."""
    with path.open(newline="", encoding="utf-8") as stream:
        (*header, last), *rows = csv.reader(stream)
    assert last == "error"
    assert not [row for row in rows if row[-1]]
    return header, {row[0]: [float(value) for value in row[1:-1]] for row in rows}


def read_errors(path: Path) -> dict[str, str]:
    """The errors of a table, by study, empty for one that was classified."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert bool(row["error"]) != bool("".join(text for name, text in row.items() if name not in ("study", "error")))
    return {row["study"]: row["error"] for row in rows}


def infer(bundle: Path, studies: Path, output: Path) -> Path:
    """Run a bundle's inference.json in this process and return the table's path."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(studies),
        output_dir=str(output),
    )
    path = sys.path.copy()
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        sys.path[:] = path
    return output / "predictions.csv"


@contextmanager
def failing_inference(bundle: Path, studies: Path, output: Path) -> Iterator[Callable[[], str]]:
    """Expect the inference to fail, without a table of before; gives the text of all causes."""
    output.mkdir()
    (output / "predictions.csv").write_text("study,NOR,ABN\nearlier,0.5,0.5\n")
    with pytest.raises(Exception) as error:
        infer(bundle, studies, output)
    if (output / "predictions.csv").exists():
        assert "earlier" not in (output / "predictions.csv").read_text()

    def causes() -> str:
        texts, link = [], error.value
        while link is not None:
            texts.append(str(link))
            link = link.__cause__ or link.__context__
        return "\n".join(texts)

    yield causes


def without_this_package(usage: str, studies: Path, output: Path, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that an export prints, in a process that can import neither this package nor what it needs."""
    words = shlex.split(usage)
    assert words[:3] == ["python", "-m", "monai.bundle"]
    places = {"STUDIES": str(studies), "PREDICTIONS": str(output)}
    arguments = [places.get(word, word) for word in words[3:]]
    program = BLOCKER + COMMAND
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True)


def loaded_without_this_package(bundle: Path, studies: Path, output: Path, *, cwd: Path) -> dict[str, list[float]]:
    """What a program of somebody else gets, in such a process: from the loaded network, by study."""
    command = [sys.executable, "-c", BLOCKER + PROGRAM, str(bundle), str(studies), str(output)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",")[1:] for line in done.stdout.splitlines() if line.startswith("found,")]
    return {study: [float(value) for value in values] for study, *values in rows}
