"""Cases of unknown orientation are trained in every order, and evaluated in all of them."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_fedlora.engines.dataset import CaseDataset, case_loader
from monai_fedlora.engines.evaluator import ClassificationEvaluator
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.orders import in_order_of_epoch, order_of_epoch
from monai_fedlora.transforms.orientation import N_ORDERS, all_orders

SHAPE = (2, 6, 6, 3)


class Places(nn.Module):
    """Logits that change with the order of the axes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.head = nn.Linear(216, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(2, 216, generator=torch.Generator().manual_seed(0)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.detach())
        return self.head(image.flatten(1))


def cases(*lost: bool) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.rand(SHAPE, generator=generator),
            "label": number % 2,
            "subject": f"patient{number:03d}",
            "placeholder": torch.tensor(unknown),
        }
        for number, unknown in enumerate(lost)
    ]


def batch_of(items: list[dict]) -> dict:
    return next(iter(case_loader(CaseDataset(items, []), batch_size=len(items))))


def test_sixteen_epochs_show_every_order_once_and_others_never_change() -> None:
    batch = batch_of(cases(True, False))
    shown = [in_order_of_epoch(batch["image"], batch, epoch) for epoch in range(1, N_ORDERS + 1)]
    assert len({images[0].numpy().tobytes() for images in shown}) == N_ORDERS
    assert all(torch.equal(images[1], batch["image"][1]) for images in shown)
    again = in_order_of_epoch(batch["image"], batch, 3)
    assert torch.equal(again, shown[2])


def test_the_order_depends_on_the_case_not_on_its_place() -> None:
    assert len({order_of_epoch(f"patient{number:03d}", 1) for number in range(60)}) > 8
    batch = batch_of(cases(True, True))
    turned = {"placeholder": batch["placeholder"].flip(0), "subject": batch["subject"][::-1]}
    assert torch.equal(
        in_order_of_epoch(batch["image"].flip(0), turned, 5).flip(0), in_order_of_epoch(batch["image"], batch, 5)
    )


def test_photographs_and_older_batches_stay_as_they_are() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert in_order_of_epoch(images, {"subject": ["a", "b"]}, 1) is images


@pytest.mark.parametrize("inferer", [SimpleInferer(), FrozenInferer()])
def test_evaluation_and_what_is_kept_of_it_are_means_of_the_logits(inferer) -> None:
    network, items = Places().eval(), cases(True, False, True)
    with torch.no_grad():
        expected = torch.stack(
            [
                network(all_orders(item["image"])).mean(dim=0)
                if item["placeholder"]
                else network(item["image"][None])[0]
                for item in items
            ]
        )
    dataset = CaseDataset(items, [])
    evaluator = ClassificationEvaluator(
        device="cpu", val_data_loader=case_loader(dataset, batch_size=2), network=network, inferer=inferer
    )
    torch.testing.assert_close(run_and_keep(evaluator)["logits"], expected)
    found = plain_outputs(network, dataset, inferer=inferer, device=torch.device("cpu"), batch_size=2)
    torch.testing.assert_close(found["logits"], expected)
    assert found["labels"].tolist() == [0, 1, 0]
