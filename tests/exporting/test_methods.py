"""Every registered method: the plain weights that an export writes compute what the trained network did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.finished import read_finished, rebuild
from monai_fedlora.exporting.merged_weights import write_weights
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.verify import exported_view, logits
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.catalogue import build_backbone
from tests.helpers import fast_in_part
from tests.methods.federation import NEED_TEXTS

from .finished_runs import Run

LINEAR = [name for name in method_names() if name not in NEED_TEXTS]


@pytest.mark.parametrize("method", fast_in_part(LINEAR))
def test_plain_vision_transformer_computes_what_the_method_trained(
    make_image_run: Callable[..., Run], tmp_path: Path, method: str
) -> None:
    settings = {"classifier": "linear"} if get_method(method).reads_text else {}
    check(make_image_run(method=method, method_args=settings, sites=("site-1",)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), [("fedavg", {}), ("fedit", {"rank": 3}), ("local", {}), ("dual_lora", {"head": "private"})]
)
def test_plain_convvit_computes_what_the_method_trained(
    make_run: Callable[..., Run], tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    check(make_run(method=method, method_args=settings, sites=("site-1",)), tmp_path)


def check(run: Run, folder: Path) -> None:
    """Compare the written weights of both models of a run, or see that there is no shared one."""
    network, modality = run.networks["site-1"], modality_of(run.plan)
    has_shared_model = run.plan.build_method().shared_only(network) is not None
    for site in ("site-1", "shared") if has_shared_model else ("site-1",):
        model, path = read_finished(run.workspace, site), folder / f"{site}.pt"
        plain = write_weights(model, rebuild(model, str(run.backbone)), modality.probe(), path)
        stored = torch.load(path, weights_only=True)
        backbone = build_backbone(run.plan.size, out_chans=2).state_dict().keys()
        assert {key for key in stored.keys() ^ backbone if not key.startswith("side.")} == set()
        assert all(torch.equal(value, stored[key]) for key, value in plain.state_dict().items())
        with exported_view(model, network):
            expected = logits(network, modality.probe())
        torch.testing.assert_close(logits(plain, modality.probe()), expected, rtol=0, atol=1e-5)
    if not has_shared_model:
        with pytest.raises(ExportError, match=f"{run.plan.method} has no shared model"):
            rebuild(read_finished(run.workspace, "shared"), str(run.backbone))
