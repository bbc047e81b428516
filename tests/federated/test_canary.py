"""Private tensors that could be recognised anywhere are nowhere but in their site.

Every private tensor of every site is filled with one number and every shared one with another, before anything is
stored or sent. The server keeps all bytes that arrive. The shared number has to be found there by the same search
that must not find the private one. Of updates that are sent encoded, it must not find what they left out either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import load_tensors
from tests.federated.conftest import Prepared, written_job
from tests.federated.custom.canary import PRIVATE_MARK, SHARED_MARK

_RUN = 4
"""So many values in a row cannot be there by chance."""


def arrays(values: Any) -> Iterator[tuple[str, bytes]]:
    """Every way in which an array of these values could be written, by name."""
    for kind in ("f2", "f4", "f8"):
        for order in "<>":
            raw = np.array(values, order + kind).tobytes()
            yield order + kind, raw
            yield f"{order}{kind} in hexadecimal", raw.hex().encode()


def spellings(mark: float) -> Iterator[tuple[str, bytes]]:
    """Every way in which tensors full of ``mark`` could be written, by name."""
    yield from arrays(np.full(_RUN, mark))
    yield "one double of a message", np.array(mark, ">f8").tobytes()
    yield "decimal", repr(mark).encode()


def found_in(blob: bytes, mark: float) -> list[str]:
    """Names of the spellings of ``mark`` in ``blob``."""
    return [name for name, spelling in spellings(mark) if spelling in blob]


@pytest.mark.parametrize("mark", [PRIVATE_MARK, SHARED_MARK])
def test_the_marks_survive_every_cast(mark: float) -> None:
    assert float(np.float16(mark)) == float(np.float32(mark)) == mark


@pytest.mark.parametrize(
    "encode",
    [
        lambda values: values.astype(np.float16).tobytes(),
        lambda values: values.astype(np.float32).tobytes(),
        lambda values: values.astype(">f4").tobytes(),
        lambda values: values.astype(np.float64).tobytes(),
        lambda values: msgpack.packb([float(values[0])]),
        lambda values: json.dumps([float(value) for value in values]).encode(),
        lambda values: str(values.tolist()).encode(),
        lambda values: values.astype(np.float32).tobytes().hex().encode(),
    ],
)
def test_the_search_finds_a_mark_however_it_is_written(encode: Any) -> None:
    noise = np.random.default_rng(0).bytes(1001)
    blob = noise + encode(np.full(9, PRIVATE_MARK)) + noise
    assert found_in(blob, PRIVATE_MARK)
    assert not found_in(blob, SHARED_MARK)


@dataclass(frozen=True)
class Run:
    plan: Plan
    workspace: Path
    wire: bytes

    @property
    def site_files(self) -> dict[Path, bytes]:
        """What the sites keep to themselves."""
        return {path: path.read_bytes() for path in (self.workspace / "private").rglob("*") if path.is_file()}

    @property
    def other_files(self) -> dict[Path, bytes]:
        """All the rest: the server's folder, every log, the results."""
        private = self.workspace / "private"
        paths = [path for path in self.workspace.rglob("*") if path.is_file() and private not in path.parents]
        return {path: path.read_bytes() for path in paths if path.suffix not in (".py", ".pyc")}


@pytest.fixture(
    scope="module",
    params=[
        {"wire_dtype": "float16"},
        {"wire_dtype": "float32", "method_args": {"head": "private"}},
        {"wire_dtype": "int8", "top_k": 0.3},
    ],
    ids=["shared head", "private head", "encoded"],
)
def run(request: pytest.FixtureRequest, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("canary")
    plan = prepared.plan(**request.param)
    tap = {"id": "tap", "path": "wiretap.WireTap", "args": {"path": str(folder / "wire.bin")}}
    job = written_job(plan, folder, executor="canary.CanaryExecutor", components=[tap])
    data, backbone = str(prepared.data), str(prepared.backbone)
    simulate(job, workspace=folder / "workspace", data=data, backbone=backbone, threads=2)
    return Run(plan, folder / "workspace", (folder / "wire.bin").read_bytes())


def private_keys(run: Run) -> set[str]:
    state = load_tensors(run.workspace / "private" / run.plan.experiment / "site-1" / "final.safetensors")[0]
    return {key.removeprefix("private/") for key in state if key.startswith("private/")}


@pytest.mark.slow
def test_the_sites_really_held_the_marks(run: Run) -> None:
    heads = {key for key in private_keys(run) if "head" in key}
    assert bool(heads) == ("head" in run.plan.method_args)
    assert any(".lora_A.private." in key for key in private_keys(run))
    for site in run.plan.sites:
        folder = run.workspace / "private" / run.plan.experiment / site
        for name in ("round-00001", "final"):
            tensors = load_tensors(folder / f"{name}.safetensors")[0]
            values = [value for key, value in tensors.items() if key.startswith("private/")]
            assert values and all(bool((value == PRIVATE_MARK).all()) for value in values)


@pytest.mark.slow
def test_what_is_shared_is_found_on_the_wire_and_on_the_server(run: Run) -> None:
    declared, sent = build_shared(run.plan)
    assert len(run.wire) > 2 * 2 * declared.up.nbytes  # two rounds of two sites
    if run.plan.encoding:
        for key, entry in declared.entries.items():
            marked = np.full(entry.shape, SHARED_MARK, np.float32)
            change = marked - sent[key].astype(np.float64)
            first = entry.encoding.encode(change) if entry.encoding else marked.astype(np.float16)
            assert first.tobytes() in run.wire
        return
    kind = "<f2" if run.plan.wire_dtype == "float16" else "<f4"
    assert kind in found_in(run.wire, SHARED_MARK)
    holders = {path.name for path, blob in run.other_files.items() if kind in found_in(blob, SHARED_MARK)}
    assert "shared.safetensors" in holders


def manifest(run: Run) -> dict[str, Any]:
    (path,) = {path for path in run.other_files if path.name == "manifest.json" and "app_server" in path.parts}
    return json.loads(path.read_text())


@pytest.mark.slow
def test_nothing_private_arrives_at_the_server(run: Run) -> None:
    assert found_in(run.wire, PRIVATE_MARK) == []


@pytest.mark.slow
def test_nothing_private_is_in_any_file_but_the_sites_own(run: Run) -> None:
    assert any(found_in(blob, PRIVATE_MARK) for blob in run.site_files.values())
    names = {path.name for path in run.other_files}
    assert {"results.json", "log.txt", "simulator.log", "shared.safetensors", "best_shared.safetensors"} <= names
    assert {str(path): found for path, blob in run.other_files.items() if (found := found_in(blob, PRIVATE_MARK))} == {}


def residual(run: Run) -> Iterator[np.ndarray]:
    """Values in a row of what updates left out, as the sites have stored it; none could be taken for others."""
    for path in sorted((run.workspace / "private").rglob("round-*.safetensors")):
        tensors = load_tensors(path)[0]
        for key in sorted(key for key in tensors if key.startswith("residual/")):
            flat = tensors[key].numpy().ravel()
            rows = flat[: flat.size // _RUN * _RUN].reshape(-1, _RUN)
            yield from [row for row in rows if len({*np.abs(row), 0.0}) == _RUN + 1][:3]


@pytest.mark.slow
def test_what_an_update_left_out_stays_in_the_site(run: Run) -> None:
    rows = list(residual(run))
    assert bool(rows) == bool(run.plan.encoding)
    other, own = b"".join(run.other_files.values()), b"".join(run.site_files.values())
    for row in rows:
        assert row.astype("<f4").tobytes() in own
        for name, spelling in arrays(row):
            assert spelling not in run.wire and spelling not in other, name
    assert b"residual" not in run.wire and b"residual/" not in other


@pytest.mark.slow
def test_no_private_key_is_named_on_the_wire(run: Run) -> None:
    for key in private_keys(run):
        assert key.encode() not in run.wire
    assert any(key.encode() in run.wire for key in manifest(run))
