"""FedCLIP and CLIP-Adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.image_adapter import PREFIX, ImageAdapterSettings, attach_image_adapter
from monai_fedlora.methods.base import Method, register


@register
@dataclass(frozen=True, kw_only=True)
class ClipAdapter(Method):
    """A small adapter on CLIP's image features trains and is averaged (Lu et al., FedCLIP, arXiv 2302.13485).

    The equations are in :mod:`monai_fedlora.adapters.image_adapter`. FedCLIP trains on the similarity of the images and
    texts of a batch; here the loss is that of all methods, the cross-entropy over the classes. CLIP-Adapter (Gao et
    al., arXiv 2110.04544) is no federated method; of its two adapters the one on images is here.

    Args:
        form, reduction, ratio: see :class:`monai_fedlora.adapters.image_adapter.ImageAdapterSettings`; "attention" is
            FedCLIP's adapter, "residual" CLIP-Adapter's.
    """

    name = "clip_adapter"
    summary = "an adapter on CLIP's image features, averaged"
    source = "FedCLIP, Lu et al., arXiv 2302.13485; CLIP-Adapter, Gao et al., arXiv 2110.04544"

    form: Literal["attention", "residual"] = "attention"
    reduction: int = 4
    ratio: float = 0.2

    def __post_init__(self) -> None:
        self.adapter  # noqa: B018  (validates the values)

    @property
    def adapter(self) -> ImageAdapterSettings:
        """The adapter's form."""
        return ImageAdapterSettings(form=self.form, reduction=self.reduction, ratio=self.ratio)

    @property
    def reads_text(self) -> bool:
        """Texts about the classes take the place of a linear head."""
        return True

    @property
    def why_not_noised(self) -> None:
        """Nothing is private."""

    def attach(self, network: Any) -> None:
        """Freeze CLIP and add the adapter."""
        attach_image_adapter(network, self.adapter)

    def is_shared(self, key: str, network: Any) -> bool:
        """The adapter travels."""
        return key.startswith(PREFIX)
