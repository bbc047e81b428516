"""The systems that are measured: how each is started, what trains in it, and what it can do with a private part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALL_BLOCKS = {"blocks": 0}
NONE = "none: every trained tensor is averaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A way to run the work.

    Attributes:
        title: what it is.
        command: module in this package and its arguments before the file of the work.
        method, method_args: registered name of what trains; a peer's script trains the same without the toolkit.
        cached: whether what the frozen blocks compute is kept.
        wire_bytes: of a value that travels.
        private: what becomes of tensors that must stay in a site.
        most_sites: above which it is not run.
        one_at_a_time: whether sites take turns in one process.
        in_flower: whether it needs Flower's own environment.
    """

    title: str
    command: tuple[str, ...]
    method: str
    method_args: dict[str, Any] = field(default_factory=dict)
    cached: bool = True
    wire_bytes: int = 2
    private: str
    most_sites: int = 64
    one_at_a_time: bool = False
    in_flower: bool = False


_KEPT = "an adapter per site, kept by the site on its own disk; three gates refuse it on its way out"
_NVFLARE = ("ours", "nvflare")
_ONE_PROCESS = ("ours", "in_process")

SYSTEMS = {
    "ours": System(
        title="dual_lora as an NVFlare job", command=_NVFLARE, method="dual_lora", private=_KEPT, most_sites=16
    ),
    "ours_all_blocks": System(
        title="LoRA in every block as our NVFlare job",
        command=_NVFLARE,
        method="fedit",
        method_args=ALL_BLOCKS,
        private=NONE,
        most_sites=16,
    ),
    "in_process": System(
        title="dual_lora in one process",
        command=_ONE_PROCESS,
        method="dual_lora",
        private=_KEPT,
        one_at_a_time=True,
    ),
    "in_process_all_blocks": System(
        title="LoRA in every block, ours in one process",
        command=_ONE_PROCESS,
        method="fedit",
        method_args=ALL_BLOCKS,
        private=NONE,
        one_at_a_time=True,
    ),
    "client_api": System(
        title="LoRA in every block, NVFlare Client API and FedAvg recipe",
        command=("client_api",),
        method="fedit",
        method_args=ALL_BLOCKS,
        cached=False,
        wire_bytes=4,
        private=f"{NONE}; a private one the script would have to filter out and keep on disk by itself",
        most_sites=16,
    ),
    "flower": System(
        title="LoRA in every block, Flower simulation",
        command=("flower",),
        method="fedit",
        method_args=ALL_BLOCKS,
        cached=False,
        wire_bytes=4,
        private=f"{NONE}; a private one the app would have to filter out and keep in its context by itself",
        in_flower=True,
    ),
    "full": System(
        title="full fine-tuning (fedavg) as our NVFlare job",
        command=_NVFLARE,
        method="fedavg",
        cached=False,
        private=NONE,
        most_sites=16,
    ),
    "full_in_process": System(
        title="full fine-tuning (fedavg), ours in one process",
        command=_ONE_PROCESS,
        method="fedavg",
        cached=False,
        private=NONE,
        one_at_a_time=True,
    ),
}
