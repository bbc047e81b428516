"""Cases of unknown orientation are trained in every order, and evaluated in all of them."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_fedlora.engines.dataset import FEATURES, CaseDataset, case_loader
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep
from monai_fedlora.engines.orders import in_order_of_epoch, mean_maps, order_of_epoch, targets_in_order_of_epoch
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.transforms.cine import PLACEHOLDER
from monai_fedlora.transforms.orientation import (
    N_ORDERS,
    all_orders,
    filled_slices,
    one_order,
    turned,
    turned_back,
)

SHAPE = (2, 6, 6, 3)


class Places(nn.Module):
    """Logits that change with the order of the axes."""

    head_prefixes = ("head.",)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(216, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(2, 216, generator=torch.Generator().manual_seed(0)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
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


def test_evaluation_and_what_is_kept_of_it_are_means_of_the_logits() -> None:
    network, items = Places().eval(), cases(True, False, True)
    with torch.no_grad():
        shown = [all_orders(item["image"]) if item["placeholder"] else item["image"][None] for item in items]
        expected = torch.stack([network(images).mean(dim=0) for images in shown])
    dataset = CaseDataset(items, [])
    evaluator = CaseEvaluator(
        device="cpu", val_data_loader=case_loader(dataset, batch_size=2), network=network, inferer=SimpleInferer()
    )
    torch.testing.assert_close(run_and_keep(evaluator)["logits"], expected)
    found = plain_outputs(network, dataset, inferer=SimpleInferer(), device=torch.device("cpu"), batch_size=2)
    torch.testing.assert_close(found["logits"], expected)
    torch.testing.assert_close(found["features"], torch.stack([images.flatten(1).mean(dim=0) for images in shown]))
    assert found["labels"].tolist() == [0, 1, 0]


def test_training_shows_another_order_in_every_epoch() -> None:
    items, seen = cases(True, False), []

    class Watching(SimpleInferer):
        def __call__(self, inputs, network, *args, **kwargs):
            seen.append(inputs.clone())
            return super().__call__(inputs, network, *args, **kwargs)

    network = Places()
    CaseTrainer(
        device="cpu",
        max_epochs=N_ORDERS,
        train_data_loader=case_loader(CaseDataset(items, [], views=4), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=nn.CrossEntropyLoss(),
        inferer=Watching(),
    ).run()
    assert len({images[0].numpy().tobytes() for images in seen}) == N_ORDERS
    assert {images[1].numpy().tobytes() for images in seen} == {items[1]["image"].numpy().tobytes()}


@pytest.mark.parametrize("number", range(N_ORDERS))
def test_what_lies_on_the_grid_of_an_image_turns_with_it_and_back(number: int) -> None:
    image = torch.rand(2, 4, 4, 5, generator=torch.Generator().manual_seed(number)) + 0.1
    image[..., 3:] = 0
    filled = filled_slices(image)
    assert filled == 3
    assert torch.equal(turned(image, number, filled=filled), one_order(image, number))
    maps = torch.rand(2, 3, 4, 4, 5)
    assert torch.equal(turned_back(turned(maps, number, filled=filled), number, filled=filled), maps)


def test_the_mean_of_maps_over_all_orders_lies_as_the_image_does() -> None:
    """A network that gives every voxel its own value gives the image back, whatever the order it was shown in."""
    images = torch.rand(3, 1, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    images[..., 4:] = 0
    batch = {PLACEHOLDER: torch.tensor([True, False, True])}
    shown: list[int] = []

    def run(some: torch.Tensor) -> torch.Tensor:
        shown.append(len(some))
        return torch.stack([some, -some], dim=2)

    torch.testing.assert_close(mean_maps(images, batch, run), torch.stack([images, -images], dim=2))
    assert shown == [N_ORDERS, 1, N_ORDERS]
    targets = targets_in_order_of_epoch(images, images, {**batch, "subject": ["a", "b", "c"]}, 3)
    assert torch.equal(targets, in_order_of_epoch(images, {**batch, "subject": ["a", "b", "c"]}, 3))


def test_maps_of_views_that_stand_for_closed_images_are_turned_back_too() -> None:
    """Beside views of a split without augmentation nothing says how many slices are filled."""
    items = cases(True, False)
    items[0]["image"][..., 2:] = 0
    data = CaseDataset(items, [])
    images = torch.stack([item["image"] for item in items])
    with data.unopened():
        batch = next(iter(case_loader(data, batch_size=2)))
    views = batch.pop(FEATURES)
    found = mean_maps(views, batch, lambda some: torch.stack([view.image() for view in some]))
    torch.testing.assert_close(found, images)
