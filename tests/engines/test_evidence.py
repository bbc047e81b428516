"""What an evaluation leaves behind: logits as the network gave them, and what its heads read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Activationsd, Compose
from torch.utils.data import DataLoader

from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.head_inputs import head_inputs, joined

CPU = torch.device("cpu")


def items(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(3, 64, 64, generator=generator), "label": index % 2} for index in range(count)]


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return build_backbone("vit_demo", out_chans=2).eval()


def evaluator(network: Any, data: list[dict[str, Any]], **options: Any) -> CaseEvaluator:
    return CaseEvaluator(
        device="cpu",
        val_data_loader=DataLoader(data, batch_size=3),  # type: ignore[arg-type]
        network=network,
        postprocessing=Compose([Activationsd(keys="pred", softmax=True)]),
        key_val_metric=ClassificationMetrics(),
        **options,
    )


def test_logits_are_kept_before_they_become_probabilities(network: Any) -> None:
    data = items(7)
    engine = evaluator(network, data)
    for _ in range(2):  # what an earlier run kept is not kept again
        found = run_and_keep(engine)
        with torch.no_grad():
            expected = network(torch.stack([item["image"] for item in data]))
        torch.testing.assert_close(found["logits"], expected)
        assert found["labels"].tolist() == [0, 1, 0, 1, 0, 1, 0]
        assert engine.state.metric_details["n"] == 7


def test_an_empty_split_leaves_nothing(network: Any) -> None:
    assert run_and_keep(evaluator(network, [])) == {}


def brighter(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": item["image"] + 1}


def test_features_are_of_the_cases_without_augmentation(network: Any) -> None:
    data = items(5)
    dataset = CaseDataset(data, Compose([]), augmentation=[brighter])
    assert torch.equal(dataset[0]["image"], dataset.plain(0)["image"] + 1)
    network.train()
    found = plain_outputs(network, dataset, inferer=SimpleInferer(), device=CPU, batch_size=2)
    assert network.training
    network.eval()
    with torch.no_grad(), head_inputs(network) as inputs:
        network(torch.stack([item["image"] for item in data]))
        torch.testing.assert_close(found["logits"], network(torch.stack([item["image"] for item in data])))
    torch.testing.assert_close(found["features"], joined(inputs))
    assert found["labels"].tolist() == [0, 1, 0, 1, 0]
    assert not found["features"].requires_grad


def test_without_cases_or_without_a_view_of_the_heads_there_are_no_features(network: Any) -> None:
    arguments: dict[str, Any] = {"inferer": SimpleInferer(), "device": CPU, "batch_size": 2}
    assert plain_outputs(network, CaseDataset([], Compose([])), **arguments) == {}

    def blind(images: torch.Tensor, network: Any) -> torch.Tensor:
        return torch.zeros(len(images), 2)

    dataset = CaseDataset(items(3), Compose([]))
    assert plain_outputs(network, dataset, **{**arguments, "inferer": blind}).keys() == {"logits", "labels"}


def test_what_a_run_leaves_is_of_its_own_precision(network: Any) -> None:
    """So that logits of training cases compare with those of an evaluation, and stored features are used again."""
    data = items(3)
    engine = evaluator(network, data, mixed_precision="bf16")
    arguments: dict[str, Any] = {"inferer": SimpleInferer(), "device": CPU, "batch_size": 3}
    half = plain_outputs(network, CaseDataset(data, Compose([])), mixed_precision="bf16", **arguments)
    full = plain_outputs(network, CaseDataset(data, Compose([])), **arguments)
    torch.testing.assert_close(half["logits"], run_and_keep(engine)["logits"], rtol=0, atol=0)
    for name in ("logits", "features"):
        assert half[name].dtype == torch.float32
        assert not torch.equal(half[name], full[name])
        torch.testing.assert_close(half[name], full[name], rtol=0.05, atol=0.05)
