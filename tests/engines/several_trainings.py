"""What the processes of :mod:`tests.engines.several` do, and one alone."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch._dynamo.utils import counters

from monai_fedlora.engines import distributed
from monai_fedlora.engines.dataset import CaseDataset, case_loader
from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.frozen import FrozenPrefix
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.method import MethodHandler
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.engines.store import Store
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.methods import get_method
from tests.helpers import randomise
from tests.methods.federation import BACKBONES, attached

RATE = 0.1


def network_of(method: str, family: str) -> Any:
    """A small network of which nothing that trains is zero, so that every gradient counts."""
    network = attached(get_method(method), family)
    randomise(network, *(name for name, parameter in network.named_parameters() if parameter.requires_grad), scale=0.1)
    return network


def wrapped(network: nn.Module, compiler: str = "off") -> nn.Module:
    """The network for this process."""
    if not dist.is_initialized():
        return network
    return distributed.data_parallel(network, device=torch.device("cpu"), compiler=compiler)


def train(
    method: str,
    family: str,
    *,
    together: int,
    cases: int,
    epochs: int = 2,
    store: Path | None = None,
    optimiser: str = "sgd",
    state: dict[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a network in batches of ``together`` cases over all processes.

    Args:
        method, family: of the network.
        together: cases of a step of all processes.
        cases: of the site, of two classes which weigh 1 and 3.
        epochs: to train.
        store: where features are kept; None to compute them anew.
        optimiser: "sgd", whose steps are as exact as the gradients, or "adamw".
        state: what an earlier call left.
        settings: of the trainer.

    Returns:
        What trains, the optimiser's state, the epoch and its mean loss.
    """
    network = network_of(method, family)
    parallel = wrapped(network)
    images = BACKBONES[family].images(cases, seed=7)
    data = CaseDataset([{"image": image, "label": number % 2} for number, image in enumerate(images)], [])
    kept = FrozenInferer(dtype="float32", store=Store(store, limit=10**9)) if store else None
    trained = [parameter for parameter in parallel.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, RATE) if optimiser == "sgd" else adamw(network=parallel, learning_rate=0.01)
    if state is not None:
        network.load_state_dict(state["trained"], strict=False)
        optimizer.load_state_dict(state["optimiser"])
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=case_loader(data, batch_size=together // distributed.world_size(), shuffle=True, seed=3),
        network=parallel,
        optimizer=optimizer,
        loss_function=cross_entropy(num_classes=2, class_weights=[1.0, 3.0]),
        inferer=kept,
        seed=3,
        train_handlers=[
            MethodHandler(network=parallel, method=method, method_args=dataclasses.asdict(get_method(method)))
        ],
        **settings,
    )
    trainer.set_epoch(state["epoch"] if state else 0)
    trainer.run_epochs(epochs)
    return {
        "trained": {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad},
        "optimiser": copy.deepcopy(optimizer.state_dict()),
        "epoch": trainer.state.epoch,
        "loss": trainer.state.metrics["train_loss"],
    }


def train_all(runs: list[tuple[str, str, dict[str, Any]]], folder: str) -> list[dict[str, Any]]:
    """Train several networks one after the other; ``kept`` among the settings keeps their features in the folder."""
    found = []
    for number, (method, family, settings) in enumerate(runs):
        given = dict(settings)
        store = Path(folder) / f"{number}-{distributed.world_size()}" / "site" if given.pop("kept", False) else None
        found.append(train(method, family, store=store, **given))
    return found


def train_epochs(settings: dict[str, Any], epochs: int, states: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Train from what each process had left before, if anything."""
    return train("dual_lora", "vit", epochs=epochs, state=states[distributed.rank()] if states else None, **settings)


def metrics_and_gradients() -> dict[str, Any]:
    """Metrics of five cases in unequal shares, and the gradient of what two processes computed from other values."""
    scores = torch.softmax(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = [0, 1, 1, 0, 1]
    engine = Engine(lambda _, i: [{"pred": scores[i], "label": labels[i]}])
    ClassificationMetrics().attach(engine, "key")
    engine.run(list(CaseSampler(labels, shuffle=False)))
    torch.manual_seed(distributed.rank())
    trains = nn.Linear(3, 1, bias=False)
    trains.register_buffer("table", torch.full((2,), float(distributed.rank())))
    network = wrapped(trains)
    network(torch.full((1, 3), float(distributed.rank() + 1))).sum().backward()
    state: Any = engine.state
    return {
        "metrics": state.metric_details,
        "gradient": trains.weight.grad,
        "weight": trains.weight.detach(),
        "table": trains.table,
        "is_main": distributed.is_main(),
        "unwrapped": distributed.unwrap(network) is trains,
        "exchanged": network._get_ddp_logging_data()["bucket_sizes"],
    }


def other_backbone() -> str:
    """What is said where one process has read another file."""
    network = network_of("dual_lora", "vit")
    if distributed.rank() == 1:
        with torch.no_grad():
            network.blocks[0].norm1.weight.mul_(2)
    try:
        wrapped(network)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def lose_one(how: str) -> None:
    """Train until the second process raises, dies without a word, or stands still."""
    settings: dict[str, Any] = {"device": "cpu", "max_epochs": 2, "loss_function": cross_entropy(num_classes=2)}
    network = wrapped(network_of("linear_probe", "vit"))
    data = CaseDataset([{"image": image, "label": 0} for image in BACKBONES["vit"].images(4)], [])
    trainer = CaseTrainer(
        train_data_loader=case_loader(data, batch_size=1, shuffle=True),
        network=network,
        optimizer=adamw(network=network),
        **settings,
    )

    @trainer.on(Events.ITERATION_COMPLETED(once=2))
    def _lost() -> None:
        if distributed.rank() == 1:
            if how == "raises":
                raise ValueError("a file of this process cannot be read")
            os._exit(9) if how == "dies" else time.sleep(30)

    trainer.run()


def fill(folder: str, limit: int, rounds: int) -> tuple[int, int]:
    """Keep and read entries that another process keeps, reads and removes at the same time.

    Returns:
        How many came back with another content, and whether the store still keeps.
    """
    store = Store(Path(folder), limit=limit)
    wrong = 0
    for number in range(rounds):
        which = (number * (3 + 4 * distributed.rank())) % 31
        key = f"{which:02d}" * 20
        content = {"a": torch.full((500,), float(which))}
        wrong += not torch.equal(store.recall(key, lambda kept=content: kept)["a"], content["a"])  # type: ignore[misc]
    return wrong, int(store._writable)


class Slow:
    """A transform that takes a while, and counts."""

    read = 0

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        Slow.read += 1
        time.sleep(0.05)
        return {**item, "image": torch.as_tensor(item["image"]) * 2}


def read_together(folder: str, cases: int) -> tuple[int, int, Tensor]:
    """Read a site's cases and train on them: how many were preprocessed and how many passed the frozen blocks."""
    Slow.__module__ = "monai_fedlora.tests"  # the code of whose transforms is known by the package's version
    passed = []
    compute = FrozenPrefix.compute
    FrozenPrefix.compute = lambda self, images: passed.append(1) or compute(self, images)  # type: ignore
    images = BACKBONES["vit"].images(cases)
    store = Store(Path(folder), limit=10**9)
    data = CaseDataset(
        [{"image": image.numpy(), "label": number % 2} for number, image in enumerate(images)], Slow(), store=store
    )
    network = wrapped(network_of("dual_lora", "vit"))
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=4,
        train_data_loader=case_loader(data, batch_size=2, shuffle=True),
        network=network,
        optimizer=adamw(network=network),
        loss_function=cross_entropy(num_classes=2),
        inferer=FrozenInferer(store=store),
    )
    trainer.run()
    return Slow.read, len(passed), torch.stack([data.plain(index)["image"] for index in range(cases)])


def compiled_gradients() -> dict[str, Any]:
    """Gradients of this process's images, averaged over the processes, of a network as it is and of a compiled one."""
    compile_with = torch.compile
    torch.compile = lambda call, mode: compile_with(call, backend="eager")  # type: ignore[assignment]
    images = BACKBONES["vit"].images(5)[distributed.rank() :: distributed.world_size()]
    found: dict[str, Any] = {}
    for name, compiler in (("plain", "off"), ("compiled", "default")):
        network = network_of("dual_lora", "vit")
        parallel = wrapped(network, compiler)
        FrozenInferer(dtype="float32")(images, parallel).square().mean().backward()
        found[name] = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    return {**found, "graphs": counters["stats"]["unique_graphs"]}
