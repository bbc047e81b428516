"""What one writes for a federation of a PEFT model: the whole of it in every client, and a filter for what travels.

The network is built once and the pictures are read once per process, which quickstarts of the frameworks do anew in
every task.
"""

from __future__ import annotations

from functools import cache

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from _frameworks.events import EPOCHS, noted
from _frameworks.work import STYLE, Work


@cache
def network(path: str) -> PeftModel:
    """The network with adapters on queries and values of every block and a head that trains.

    Args:
        path: of the file of the work.
    """
    from monai_fedlora.networks.catalogue import build_backbone
    from monai_fedlora.networks.weights import load_backbone

    work = Work.read(path)
    torch.manual_seed(work.seed)
    backbone = build_backbone(work.size, out_chans=len(work.classes))
    load_backbone(backbone, work.backbone)
    settings = LoraConfig(r=work.rank, lora_alpha=2 * work.rank, target_modules=["q", "v"], modules_to_save=["head"])
    return get_peft_model(backbone, settings)


@cache
def pictures(path: str, site: str) -> tuple[Tensor, Tensor]:
    """A site's preprocessed pictures (N, 3, H, W) and their labels (N,)."""
    from monai_fedlora.data.datalist import load_datalist
    from monai_fedlora.engines.config import preprocessing

    work = Work.read(path)
    prepare = preprocessing(size=work.size, style=STYLE)
    items = list(load_datalist(f"{work.data}/{site}/datalist.json").items("training"))
    images = torch.stack([torch.as_tensor(prepare(dict(item))["image"]) for item in items])
    return images, torch.tensor([item["label"] for item in items])


def travelling(model: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapters and the head."""
    return {key: value.detach().clone() for key, value in get_peft_model_state_dict(model).items()}


def train(path: str, site: str, tensors: dict[str, Tensor], round_number: int) -> tuple[dict[str, Tensor], int]:
    """Load the server's tensors, train on a site's pictures, and return the tensors and the number of pictures."""
    work, model = Work.read(path), network(path)
    set_peft_model_state_dict(model, tensors)
    images, labels = pictures(path, site)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-2)
    model.train()
    with noted(EPOCHS, site=site, round_number=round_number):
        for _ in range(work.epochs):
            for batch in torch.randperm(len(images)).split(work.batch_size):
                optimiser.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.1).backward()
                nn.utils.clip_grad_norm_(trained, 5.0)
                optimiser.step()
    return travelling(model), len(images)


class Travelling(nn.Module):
    """The same network with a state dict of what travels alone, for a server that starts from it.

    Args:
        path: of the file of the work.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.network = network(path)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """The adapters and the head."""
        return travelling(self.network)
