"""Compiled networks: how often each is compiled, and that nothing is lost where CUDA graphs overwrite their outputs.

No test needs a C++ compiler: PyTorch's own tracing runs with backends that compute what was traced in Python. What CUDA
graphs do to memory is played on the CPU by :class:`Replays`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func

import monai_fedlora as fl
from monai_fedlora.engines import compiling
from monai_fedlora.engines.compiling import compiled
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.blocked import BlockedNetwork
from tests.engines import several_trainings as work
from tests.engines.several import together
from tests.methods.federation import BACKBONES
from tests.own_networks import OWN, OwnCnn

CPU = torch.device("cpu")


class Replays:
    """A backend whose graphs write into the same memory at every call, as recorded CUDA graphs do.

    A forward pass begins a new generation: it first spoils what all graphs have given before.
    """

    def __init__(self) -> None:
        self.memory: list[Tensor] = []
        self.compile = aot_autograd(fw_compiler=self._forward, bw_compiler=self._backward)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        return self.compile(graph, inputs)

    def _forward(self, graph: Any, inputs: Any) -> Any:
        return self._recorded(graph, begins=True)

    def _backward(self, graph: Any, inputs: Any) -> Any:
        return self._recorded(graph, begins=False)

    def _recorded(self, graph: Any, *, begins: bool) -> Any:
        held: dict[tuple[int, Any], Tensor] = {}

        def replay(*inputs: Any) -> list[Any]:
            if begins:
                for tensor in self.memory:
                    tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
            outputs = []
            for place, value in enumerate(graph(*inputs)):
                if not isinstance(value, Tensor):
                    outputs.append(value)
                    continue
                if (place, value.shape) not in held:
                    held[place, value.shape] = torch.empty_like(value)
                    self.memory.append(held[place, value.shape])
                outputs.append(held[place, value.shape].copy_(value).detach())
            return outputs

        return make_boxed_func(replay)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Choose what ``torch.compile`` compiles with; what it had compiled before is forgotten."""
    compile_with = torch.compile

    def choose(chosen: Any) -> None:
        monkeypatch.setattr(torch, "compile", lambda call, mode: compile_with(call, backend=chosen))
        torch._dynamo.reset()
        counters.clear()

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    yield choose
    torch._dynamo.reset()


def graphs() -> int:
    """How many were compiled; a call that could not be traced as one would be more than one, and is refused."""
    assert not counters["graph_break"]
    return int(counters["stats"].get("unique_graphs", 0))


def gradients(network: nn.Module, *, steps: int) -> list[Tensor]:
    """What an optimiser step gets from batches of 3, 3 and 2 cases."""
    data = CaseDataset([{"image": image, "label": number % 2} for number, image in enumerate(IMAGES)], [])
    found: list[Tensor] = []
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    optimizer.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in trained if p.grad is not None))
    CaseTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=torch.utils.data.DataLoader(data, batch_size=3),
        network=network,
        optimizer=optimizer,
        loss_function=cross_entropy(num_classes=2),
        inferer=FrozenInferer(dtype="float32"),
        accumulation_steps=steps,
    ).run()
    return found


IMAGES = BACKBONES["vit"].images(8)


@pytest.mark.slow
def test_gradients_of_several_batches_survive_the_replay_of_cuda_graphs(
    backend: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(work.network_of("dual_lora", "vit"), steps=3)
    backend(Replays())
    recorded = compiled(work.network_of("dual_lora", "vit"), device=CPU, mode="reduce-overhead")
    torch.testing.assert_close(gradients(recorded, steps=3), expected)
    recorded.eval()
    with torch.no_grad():
        inferer, plain = FrozenInferer(dtype="float32"), work.network_of("dual_lora", "vit").eval()
        first = inferer(IMAGES[:3], recorded)
        inferer(IMAGES[3:6], recorded)
        plain.load_state_dict(recorded.state_dict())
        torch.testing.assert_close(first, plain(IMAGES[:3]))
    monkeypatch.setattr("monai_fedlora.engines.trainer.keep_gradients", lambda network: None)
    recorded.load_state_dict(work.network_of("dual_lora", "vit").state_dict())
    overwritten = gradients(recorded, steps=3)
    assert not any(torch.allclose(one, other) for one, other in zip(overwritten, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "family", "counts"),
    [
        ("dual_lora", "convvit", (4, 3, 2)),
        ("pfedst", "vit", (4, 3, 2)),
        ("clip_adapter", "clip", (4, 3, 2, 1)),
    ],
)
def test_every_kind_of_network_is_compiled_behind_its_frozen_part_as_one_graph(
    backend: Callable[[Any], None], method: str, family: str, counts: Sequence[int]
) -> None:
    """One graph for training with batches of two cases or more, one for a single case, one for evaluation."""
    plain, images = work.network_of(method, family), BACKBONES[family].images(4)
    backend("eager")
    network, inferer = compiled(work.network_of(method, family), device=CPU, mode="default"), FrozenInferer()
    expected = FrozenInferer()(images, plain)
    for count in counts:
        torch.testing.assert_close(inferer(images[:count], network), expected[:count], rtol=1e-4, atol=1e-5)
        assert graphs() == 1 + (count == 1)
    trained = graphs()
    with torch.no_grad():
        for count in (3, 2, 4):
            torch.testing.assert_close(inferer(images[:count], network), expected[:count], rtol=1e-4, atol=1e-5)
    assert graphs() == trained + 1


@pytest.mark.slow
def test_a_federation_compiles_three_graphs_for_all_rounds_and_sites_and_a_second_one_none(
    backend: Callable[[Any], None],
) -> None:
    """Training, the personal and the shared model; each site ends an epoch with a smaller batch."""
    backend("eager")
    images, labels = torch.rand(13, 3, 16, 16), [0, 1] * 6 + [0]
    sites = {
        "north": fl.SiteData(train=(images[:7], labels[:7]), test=(images[7:], labels[7:])),
        "south": fl.SiteData(train=(images[2:9], labels[2:9]), test=(images[:3], labels[:3])),
    }
    method = fl.method("dual_lora", rank=2, targets="hidden", head="classifier")
    settings: dict[str, Any] = {"rounds": 2, "batch_size": 4, "learning_rate": 0.01, "compiler": "default"}
    first = fl.federate(OwnCnn, method, sites, **settings)
    assert graphs() == 3
    second = fl.federate(OwnCnn, method, sites, **settings)
    assert graphs() == 3
    plain = fl.federate(OwnCnn, method, sites, **{**settings, "compiler": "off"})
    for run in (first, second):
        torch.testing.assert_close(run.personal("north")(images), plain.personal("north")(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_a_compiled_network(backend: Callable[[Any], None]) -> None:
    first, second = together(work.compiled_gradients)
    assert first["graphs"] == second["graphs"] == 1
    for name, gradient in first["plain"].items():
        torch.testing.assert_close(first["compiled"][name], gradient)
        assert torch.equal(first["compiled"][name], second["compiled"][name])


def test_a_network_that_is_cut_between_its_own_blocks_is_refused() -> None:
    own = OWN["timm-vit"]
    network = BlockedNetwork(own.network(), head=(own.head,), blocks=str(own.blocks))
    with pytest.raises(ConfigError, match=r"leave blocks=\.\.\. out, .* or set compiler to off"):
        compiled(network, device=CPU, mode="default")


@pytest.mark.parametrize(("device", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_a_machine_without_a_c_compiler_is_told_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, device: str, variable: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"g.. or clang.* is not on this machine; .* name it in {variable}"):
        compiled(nn.Linear(2, 2), device=torch.device(device), mode="default")
    monkeypatch.setenv(variable, "our-compiler")
    with pytest.raises(ConfigError, match="our-compiler is not on this machine"):
        compiled(nn.Linear(2, 2), device=torch.device(device), mode="max-autotune")
    assert compiled(nn.Linear(2, 2), device=torch.device(device), mode="off")._compiled_call_impl is None


def test_what_a_network_is_called_with_may_have_any_number_of_cases() -> None:
    seen: list[Any] = []
    call = compiling._Compiled(lambda *inputs: seen.append(inputs) or torch.ones(1), replays=False)
    tokens, one = torch.rand(3, 4), torch.rand(1, 4)
    call((tokens, (one,)), 2)
    assert tokens._dynamo_weak_dynamic_indices == {0}  # type: ignore[attr-defined]
    assert not hasattr(one, "_dynamo_weak_dynamic_indices")
    assert seen == [((tokens, (one,)), 2)]


@pytest.mark.slow
def test_compiled_code_lies_in_a_folder_of_the_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "elsewhere"))
    compiled(nn.Linear(2, 2), device=CPU, mode="default")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "elsewhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiled(nn.Linear(2, 2), device=CPU, mode="default")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    assert stat.S_IMODE((tmp_path / "compiled").stat().st_mode) == 0o700
