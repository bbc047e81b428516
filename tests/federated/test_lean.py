import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from monai_fedlora.federated import lean

START = """
import sys
import torch
from monai_fedlora.federated.lean import import_libraries
import_libraries()
"""
LEAN = """
assert "monai.engines" in sys.modules
assert "peft" in sys.modules
for name in ("matplotlib", "pandas", "scipy.signal", "scipy.stats", "sklearn", "tensorboard"):
    assert name not in sys.modules, f"{name} was imported"
"""
LATER = """
import scipy.signal
import torch.distributed.optim
import transformers
assert issubclass(torch.distributed.optim.ZeroRedundancyOptimizer, torch.optim.Optimizer)
assert issubclass(transformers.PreTrainedModel, torch.nn.Module)
from monai_fedlora.federated import federated_site
libraries = sys.modules["peft"]
import_libraries()
assert sys.modules["peft"] is libraries
"""
TRAINED = """
weight = torch.nn.Parameter(torch.ones(3))
optimiser = torch.optim.AdamW([weight], lr=0.1)
for _ in range(3):
    optimiser.zero_grad()
    (weight**2).sum().backward()
    optimiser.step()
print(weight.tolist())
"""
ADAPTED = """
from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.methods.build import build_network
network = build_network(size="vit_demo", out_chans=3, method="dual_lora", seed=1)
with torch.no_grad():
    for name, parameter in network.named_parameters():
        if ".lora_B." in name:
            parameter.fill_(0.01)
image = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
with torch.no_grad():
    print(network(image).tolist(), sorted(network.state_dict()), merge_lora(network)(image).tolist())
"""


def run(program: str) -> str:
    arguments = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(arguments, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout


MOVES = """
from {package} import parts
import unused_by_sites
KIND = unused_by_sites.KIND
"""


@pytest.mark.parametrize("source", ["KIND = None\n", MOVES], ids=["does without", "needs it"])
def test_a_next_version_that_needs_a_hidden_package_is_imported_with_it(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"like_peft_{len(source)}"
    for path, text in {
        f"{package}/__init__.py": source.format(package=package),
        f"{package}/parts.py": "",
        "unused_by_sites.py": "KIND = 'real'\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(lean, "_UNUSED", ("unused_by_sites",))
    try:
        lean._import(package, f"{package}.parts")
        assert (None if source.startswith("KIND") else "real") == sys.modules[package].KIND
        assert f"{package}.parts" in sys.modules
        assert importlib.import_module("unused_by_sites").KIND == "real"
    finally:
        for name in [name for name in sys.modules if name.startswith((package, "unused_by_sites"))]:
            del sys.modules[name]


@pytest.mark.slow
def test_libraries_come_without_what_a_site_does_not_use() -> None:
    run(START + LEAN)


@pytest.mark.slow
def test_others_still_find_what_a_site_does_not_use() -> None:
    run(START + LATER)


@pytest.mark.slow
def test_optimisers_step_as_after_a_full_import() -> None:
    assert run(START + TRAINED) == run("import torch\n" + TRAINED)


@pytest.mark.slow
def test_adapters_compute_and_merge_as_after_a_full_import() -> None:
    lean = run(START + ADAPTED)
    full = run("import torch, peft, monai.bundle\n" + ADAPTED)
    assert lean == full
    assert "lora_B.private" in lean
