"""A model that crashes, hangs, fills the memory or says nonsense costs one study, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from monai_fedlora.clinic import helper as helpers
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.helper import Helper, Stopped, isolated
from monai_fedlora.clinic.many import predict_all
from monai_fedlora.clinic.messages import describe_tensors, read_tensors, tensor_bytes
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.errors import DataError
from monai_fedlora.studies.study import DicomFiles, Study

ANSWERS = """
import json, os, signal, sys, time
for line in sys.stdin.buffer:
    request = json.loads(line)
    sys.stdin.buffer.read(sum(4 * t["shape"][0] for t in request["tensors"]))
    exec(request["method"])
"""
"""A helper that does what it is told in place of a model: its methods are programs."""
TEN = "t = {'dtype': 'float32', 'shape': [3]}; sys.stdout.buffer.write(json.dumps({'tensors': [t]}).encode() + b'\\n'"
TEN += " + bytes(12)); sys.stdout.flush()"


@pytest.fixture
def obedient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Helper]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Helper(Path("bundle"), seconds=60) as made:
        monkeypatch.setattr(made, "_command", [sys.executable, "-c", ANSWERS])
        yield made
    assert list(tmp_path.iterdir()) == []


def call(helper: Helper, program: str) -> tuple[torch.Tensor, ...]:
    return helper.call(program, [torch.rand(5)], model="m")


@pytest.mark.slow
def test_a_process_whose_gpu_has_failed_is_replaced(obedient: Helper) -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        call(obedient, """print('{"raised": "shapes cannot be multiplied"}', flush=True)""")
    assert obedient._process is not None
    with pytest.raises(RuntimeError, match="device-side assert"):
        call(obedient, """print('{"raised": "CUDA error: device-side assert triggered"}', flush=True)""")
    assert obedient._process is None
    assert call(obedient, TEN)[0].tolist() == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGFPE)", r"crashed at this study \(SIGFPE\)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "took all memory"),
        ("os._exit(3)", "status 3"),
        ("time.sleep(60)", "did not answer within 1 seconds"),
        ("sys.stdout.write('{' * 100 + chr(10)); sys.stdout.flush()", "cannot be understood"),
        ("sys.stdout.write('[]' + chr(10)); sys.stdout.flush()", "cannot be understood"),
        ("sys.stdout.write('x' * (2 << 20)); sys.stdout.flush()", "cannot be understood"),
        ("""print('{"tensors": [{"dtype": "float32", "shape": [-1]}]}', flush=True)""", "cannot be understood"),
        ("""print('{"tensors": [{"dtype": "float32", "shape": [1000000000000]}]}', flush=True)""", "cannot be"),
        ("""print('{"tensors": [{"dtype": "object", "shape": [1]}]}', flush=True)""", "cannot be understood"),
        ("""print('{"tensors": [{"dtype": "float32", "shape": [9]}]}', flush=True)""", "did not answer"),
        ("""print('{"useless": "the bundle is bad"}', flush=True)""", "the bundle is bad"),
    ],
)
def test_whatever_the_process_does_the_next_call_works(
    obedient: Helper, program: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(obedient, TEN)[0].tolist() == [0, 0, 0]
    first = obedient._process.pid if obedient._process else 0
    if "did not answer" in message:
        monkeypatch.setattr(obedient, "_seconds", 1)
    with pytest.raises(Stopped, match=message):
        call(obedient, program)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    monkeypatch.setattr(obedient, "_seconds", 60)
    assert call(obedient, TEN)[0].tolist() == [0, 0, 0]


def test_errors_of_a_model_keep_the_process(obedient: Helper) -> None:
    with pytest.raises(RuntimeError, match="a frame is blank"):
        call(obedient, """print('{"raised": "a frame is blank"}', flush=True)""")
    process = obedient._process
    assert call(obedient, TEN) and obedient._process is process


def test_tensors_come_as_they_were_sent(tmp_path: Path) -> None:
    tensors = [torch.rand(2, 3).T, torch.zeros(0, 4), torch.tensor(7), torch.rand(3).half(), torch.ones(2, dtype=bool)]
    described = json.loads(json.dumps(describe_tensors(tensors)))
    (tmp_path / "bytes").write_bytes(b"".join(map(tensor_bytes, tensors)))
    with (tmp_path / "bytes").open("rb") as stream:
        for found, expected in zip(read_tensors(stream, described), tensors, strict=True):
            assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.fixture(scope="module")
def apart(classifier: Classifier) -> Iterator[Classifier]:
    with Helper(classifier.path) as helper:
        yield isolated(classifier, helper)


@pytest.mark.slow
def test_answers_are_the_same_as_in_this_process(apart: Classifier, classifier: Classifier, stored_study: Path) -> None:
    study = Study("heart", DicomFiles(stored_study))
    here, there = (predict_study(model, study) for model in (classifier, apart))
    assert there.probabilities == pytest.approx(here.probabilities, abs=1e-6)
    assert there.distance == pytest.approx(here.distance, rel=1e-4)
    torch.testing.assert_close(there.prepared, here.prepared)
    torch.testing.assert_close(there.relevance, here.relevance, atol=1e-5, rtol=0)
    for model in (apart, classifier):
        with pytest.raises(DataError, match="the model refuses this image: the image has voxels that are not finite"):
            model.prepare(torch.full((2, 40, 40, 4), torch.nan))


@pytest.mark.slow
def test_crash_costs_one_study(
    apart: Classifier, stored_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = apart.script._helper
    send = helper._send

    def fatal(message: dict, tensors: list) -> None:
        if crash := outcomes and len(outcomes) == 1:
            os.kill(helper._process.pid, signal.SIGFPE)
        send(message, tensors) if not crash else time.sleep(0.2)

    outcomes: list = []
    monkeypatch.setattr(helper, "_send", fatal)
    studies = [Study(name, DicomFiles(stored_study)) for name in ("a", "b", "c")]
    predict_all(apart, studies, tmp_path / "O", overlay=False, on_progress=outcomes.append)
    assert [bool(outcome.predicted) for outcome in outcomes] == [True, False, True]
    assert "crashed at this study (SIGFPE)" in outcomes[1].error
    assert json.loads((tmp_path / "O" / "studies" / "b.json").read_text())["error"] == outcomes[1].error


@pytest.mark.slow
def test_bundle_that_was_changed_meanwhile_is_not_used(apart: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(helpers, "fingerprint", lambda classifier: "another")
        other = isolated(apart, apart.script._helper)
    with pytest.raises(DataError, match="was changed meanwhile"):
        other.prepare(torch.rand(2, 40, 40, 4))


@pytest.mark.slow
def test_process_ends_with_the_one_that_started_it(classifier: Classifier) -> None:
    with Helper(classifier.path) as helper:
        helper.start()
        process = helper._process
        assert process is not None and process.stdin is not None
        process.stdin.close()  # as the system does for a process that was killed
        assert process.wait(60) == 0
