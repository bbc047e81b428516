"""A training step whose features are kept leaves a GPU nothing to wait for; the GPU is pretended."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from monai_fedlora.engines.dataset import CaseDataset, CaseView, case_loader
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.handlers import EpochLog, Validation
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.method import MethodHandler
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.schedule import WarmupCosine
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.methods import get_method
from tests.helpers import tiny_photographs, tiny_vit
from tests.pretended_gpu import PretendedGPU, Steps

EPOCHS = 3
LABELS = "engines/dataset.py"
"""What moves the labels of a batch."""


def trainer_of(name: str, **settings: Any) -> CaseTrainer:
    """A trainer of the parts that bundles have, with a validation after every epoch."""
    method = get_method(name)
    network: Any = tiny_vit()
    torch.manual_seed(0)
    method.attach(network)
    network.to("cuda")
    cases = [
        {"image": image, "label": number % 2, "subject": str(number)}
        for number, image in enumerate(tiny_photographs(7))
    ]
    evaluator = CaseEvaluator(
        device="cuda",
        val_data_loader=case_loader(CaseDataset(cases[:4], []), batch_size=2),
        network=network,
        inferer=FrozenInferer(),
    )
    optimiser = adamw(network=network)
    return CaseTrainer(
        **{
            "device": "cuda",
            "max_epochs": EPOCHS,
            "train_data_loader": case_loader(CaseDataset(cases, []), batch_size=2, shuffle=True),
            "network": network,
            "optimizer": optimiser,
            "loss_function": cross_entropy(num_classes=2, class_weights=[1.0, 2.0], device="cuda"),
            "inferer": FrozenInferer(),
            "train_handlers": [
                MethodHandler(network=network, method=name, method_args=dataclasses.asdict(method)),
                WarmupCosine(optimizer=optimiser, learning_rate=1e-3, epochs=EPOCHS, warmup_epochs=1),
                EpochLog(phase="train"),
                Validation(evaluator=evaluator),
            ],
            **settings,
        }
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dual_lora", {"max_grad_norm": 1.0, "mixed_precision": "bf16"}),
        pytest.param("fedprox", {"max_grad_norm": 1.0}, marks=pytest.mark.slow),
        pytest.param("fedopal", {"accumulation_steps": 2}, marks=pytest.mark.slow),
    ],
    ids=["clipping in bfloat16", "a proximal term and clipping", "a penalty and accumulation"],
)
def test_a_step_with_kept_features_waits_once_and_opens_no_image(
    gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any]
) -> None:
    opened: list[int] = []
    image = CaseDataset.image
    trainer = trainer_of(name, **settings)
    steps = Steps(gpu)
    steps.attach(trainer)

    def note(self: CaseDataset, view: CaseView) -> torch.Tensor:
        opened.append(trainer.state.epoch)
        return image(self, view)

    monkeypatch.setattr(CaseDataset, "image", note)
    trainer.run()
    assert set(opened) == {1}
    kept = [step for epoch, step in steps.found if epoch > 1]
    assert len(kept) == 2 * 4
    for step in kept:
        assert sum(step.waits.values()) == sum(step.to_host.values()) == 1, step.events
        assert [event.where.partition(":")[0] for event in step.events if event.kind == "to device"] == [LABELS]
