"""Arguments of timm's vision transformers: every one that changes what is computed is compared, or refused by its name.

An argument that is missing here is one that nobody looked at, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.errors import WeightsError

_SAME = {
    "embed_dim": "dim",
    "depth": "depth",
    "num_heads": "n_heads",
    "patch_size": "patch",
    "reg_tokens": "registers",
    "qkv_bias": "qkv_bias",
    "class_token": "class_token",
    "pre_norm": "pre_norm",
}
# Told by shapes; of other image sizes; of training; of new weights.
_WITHOUT_EFFECT = {
    *("num_classes", "in_chans", "mlp_ratio", "no_embed_class", "img_size", "dynamic_img_size", "dynamic_img_pad"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    *("weight_init", "fix_init"),
}
_ONLY: Mapping[str, Any] = {
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "final_norm": True,
    "pool_include_prefix": False,
    "pos_embed": "learn",
    "embed_norm_layer": None,
}
_READ_APART = {"init_values", "act_layer", "mlp_layer", "norm_layer", "global_pool", "fc_norm"}
# What is pooled, and whether the norm comes afterwards.
_READOUTS = {("token", False): "cls", ("avg", True): "mean", ("avg", False): "mean_of_norm", ("map", False): "map"}
_GATED = ("swiglu", "swiglupacked")
_NORMS = ("", "layernorm", "layernormfp32")
_EPS = 1e-6  # of a norm that is named, whatever the architecture's own has


def said_by_arguments(given: Mapping[str, Any], path: Path, *, pool: str) -> dict[str, Any]:
    """What arguments say, by the names of :class:`~monai_fedlora.networks.vit.ViTSettings`.

    The activation is also the ``gate``'s, which counts where an MLP has one.

    Args:
        given: ``model_args``.
        path: of the file, for messages.
        pool: ``global_pool`` of the architecture.

    Raises:
        WeightsError: an argument asks for what is not computed here, or is unknown; it is named.
    """
    if unknown := sorted(given.keys() - _SAME.keys() - _ONLY.keys() - _WITHOUT_EFFECT - _READ_APART):
        raise _refused(path, unknown[0], given[unknown[0]])
    for name, own in _ONLY.items():
        if given.get(name, own) != own:
            raise _refused(path, name, given[name])
    said = {ours: _side(given[theirs]) for theirs, ours in _SAME.items() if theirs in given}
    if "init_values" in given:
        said["layer_scale"] = given["init_values"] is not None
    if "norm_layer" in given:
        if _plain(given["norm_layer"]) not in _NORMS:
            raise _refused(path, "norm_layer", given["norm_layer"])
        said["norm_eps"] = _EPS
    if "act_layer" in given:
        act = str(given["act_layer"] or "gelu").lower()
        said["activation"] = said["gate"] = "silu" if act == "swish" else act
    return said | _mlp(given, path) | _readout(given, path, pool)


def _mlp(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    layer = _plain(given.get("mlp_layer", ""))
    if not layer:
        return {}
    if layer not in ("mlp", *_GATED):
        raise _refused(path, "mlp_layer", given["mlp_layer"])
    if layer in _GATED and "act_layer" not in given:
        raise WeightsError(
            f"{path} says mlp_layer {given['mlp_layer']!r} and no act_layer, with which timm's code gates by a GELU "
            'instead of a SiLU; say "act_layer": "silu" in its model_args if the network was trained with that'
        )
    return {"gated": layer in _GATED}


def _readout(given: Mapping[str, Any], path: Path, pool: str) -> dict[str, Any]:
    """How tokens are read, where an argument says it."""
    if not {"global_pool", "fc_norm"} & given.keys():
        return {}
    pool, after = given.get("global_pool", pool), given.get("fc_norm")
    after = pool in ("avg", "avgmax", "max") if after is None else bool(after)
    if pool == "" and not after:
        return {}
    if (pool, after) not in _READOUTS:
        name = "fc_norm" if given.get("fc_norm") else "global_pool"
        raise _refused(path, name, given.get(name))
    return {"readout": _READOUTS[pool, after]}


def _refused(path: Path, name: str, value: Any) -> WeightsError:
    return WeightsError(
        f"{path} describes timm's network with {name} {value!r:.80}, which is not computed here; bring the network "
        "itself by a plug-in or by monai_fedlora.attach, or take the argument out of its model_args if the network "
        "was trained without it"
    )


def _plain(layer: Any) -> str:
    """A layer's name as timm compares it."""
    return "" if layer is None else str(layer).replace("_", "").lower()


def _side(value: Any) -> Any:
    """A square's side, which may be written twice."""
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value
