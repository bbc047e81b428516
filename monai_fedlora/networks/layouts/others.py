"""Networks that are none of ours, by what shows them: transformers' name of the model, or names of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_OWN = "build it with its owner's library and put a method into it with monai_fedlora.attach, or name it by a plug-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherNetwork:
    """A family that is not computed here.

    Attributes:
        title: of the family.
        types: transformers' ``model_type`` of its models.
        names: pattern of a tensor's name that only it has.
        why: what it computes that ours do not.
        instead: what to do.
    """

    title: str
    types: tuple[str, ...] = ()
    names: str
    why: str
    instead: str = _OWN

    @property
    def sentence(self) -> str:
        """What it is and what to do."""
        return f"{self.title}, which {self.why}: {self.instead}"


OTHERS = (
    OtherNetwork(
        title="BEiT, BEiT v2, data2vec and EVA",
        types=("beit", "data2vec-vision"),
        names=r"relative_position_(bias_)?(table|index)|(^|\.)lambda_1$|\.attn\.q_bias$",
        why="bias attention by learned relative positions, or queries and values apart",
    ),
    OtherNetwork(
        title="SAM, MedSAM and ViTDet",
        types=("sam", "sam_vision_model", "sam_hq", "sam_hq_vision_model", "vitdet"),
        names=r"\.rel_pos_h$",
        why="attend within windows and add relative positions",
    ),
    OtherNetwork(
        title="EVA-02",
        names=r"\.attn\.inner_attn_ln\.|blocks\.\d+\.attn\.q_proj\.|\.mlp\.ffn_ln\.",
        why="turns queries and keys in an order of its own and normalises inside attention or MLP",
    ),
    OtherNetwork(
        title="AIMv2",
        types=("aimv2", "aimv2_vision_model"),
        names=r"(^|\.)rms_norm1?\.|(^|\.)patchifier\.",
        why="normalises by the root of the mean square",
    ),
    OtherNetwork(
        title="C-RADIO",
        types=("radio",),
        names=r"(^|\.)patch_generator\.",
        why="has several class tokens and crops its positions",
    ),
    OtherNetwork(
        title="Perception Encoder",
        names=r"(^|\.)attn_pool\.layernorm\.",
        why="turns queries and keys by positions that no tensor holds",
    ),
    OtherNetwork(
        title="SigLIP 2 of variable shapes (NaFlex)",
        types=("siglip2", "siglip2_vision_model"),
        names=r"$^",
        why="takes images of any shape",
        instead="take the release of a fixed size, such as google/siglip2-base-patch16-224",
    ),
    OtherNetwork(
        title="Swin",
        types=("swin", "swinv2", "donut-swin"),
        names=r"layers\.\d+\.blocks\.\d+\.|layers\.\d+\.downsample\.",
        why="shifts windows over stages of several resolutions",
    ),
)


_ADAPTERS = re.compile(r"\.(base_layer|lora_[AB]|lora_magnitude_vector|ia3_l|modules_to_save)(\.|$)")


def of_adapters(names: Iterable[str]) -> str | None:
    """What to do with adapters of PEFT, alone or inside of a network; None where there are none."""
    if not any(map(_ADAPTERS.search, names)):
        return None
    return (
        "it holds adapters of PEFT: load them onto the network that they were trained on, merge them with "
        "merge_and_unload(), and save what that returns"
    )


def other_type(model_type: str) -> OtherNetwork | None:
    """The family of a model of transformers; None of one that is not listed."""
    return next((other for other in OTHERS if model_type in other.types), None)


def other_names(names: Iterable[str]) -> OtherNetwork | None:
    """The family that names of tensors show; None where they show none."""
    names = list(names)
    return next((other for other in OTHERS if any(re.search(other.names, name) for name in names)), None)
