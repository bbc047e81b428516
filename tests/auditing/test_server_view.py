"""A server that adds answers up can compute how much of each candidate one of them is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_fedlora.auditing.server_view import Server, scores, shares
from monai_fedlora.errors import ExportError
from monai_fedlora.federated.seen_rounds import SeenRound
from monai_fedlora.methods import get_method
from monai_fedlora.networks.catalogue import build_backbone
from tests.helpers import make_plan

IMAGES = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 2


def attacker(method: str = "dual_lora") -> tuple[Server, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    plan = make_plan(method=method, size="micro_vit", classes=("NV", "MEL"))
    network = build_backbone("micro_vit", out_chans=2)
    get_method(method).attach(network)
    return Server(plan, network, IMAGES, LABELS), plan.scope(network).initial_payload(network)


def test_a_sum_of_the_members_steps_is_told_apart_where_alignment_alone_is_misled() -> None:
    """All gradients have much in common, as those of one class do."""
    random = torch.Generator().manual_seed(0)
    gradients = torch.randn(64, 400, generator=random) + 3 * torch.randn(400, generator=random)
    member = torch.arange(64) < 32
    scale = torch.stack([part.mean(0) for part in gradients.split(16)]).square().mean(0).sqrt()
    update = -gradients[member].sum(0) / scale
    found = shares(update, gradients)
    assert roc_auc_score(member, found) == 1
    assert roc_auc_score(member, -(gradients / gradients.norm(dim=1, keepdim=True)) @ update) < 0.95


def test_gradients_of_candidates_are_those_of_the_whole_network_at_what_was_sent() -> None:
    server, sent = attacker()
    found = server.gradients(sent)
    assert found.shape == (12, server.numbers)
    mean = server.gradient_of(sent, LABELS[:4])(IMAGES[:4])
    torch.testing.assert_close(found[:4].mean(0), mean.detach(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(server.gradients(sent, torch.tensor([5, 2])), found[[5, 2]])


def test_a_step_on_the_members_gradients_scores_them_above_the_others_and_the_other_sites_do_not() -> None:
    server, sent = attacker()
    member = torch.arange(12) < 6
    found = server.gradients(sent)
    adam = found.mean(0).abs().clamp(min=1e-8)
    step = -0.05 * found[member].sum(0) / adam
    answer, start = dict(sent), 0
    for name in server.trained:
        size = sent[name].size
        moved = sent[name].astype(np.float32) + step[start : start + size].numpy().reshape(sent[name].shape)
        answer[name], start = moved, start + size
    rounds = [SeenRound(sent, {"site-1": answer, "site-2": sent}), SeenRound(sent, {"site-2": sent})]
    told = scores(server, rounds, "site-1")
    assert roc_auc_score(member, told["share"]) > 0.75
    assert set(told) == {f"{one}{how}" for one in ("loss", "confidence", "gradient", "share")
                         for how in ("", ", calibrated", ", others alone")}  # fmt: skip
    assert float(told["loss, others alone"].abs().max()) == 0
    assert "loss, calibrated" not in scores(server, [SeenRound(sent, {"site-1": answer})], "site-1")


@pytest.mark.parametrize(
    ("method", "said"), [("local", "a part of every view stays|sends nothing"), ("fedper", "stays")]
)
def test_a_method_of_which_a_server_has_no_model_is_refused_by_name(method: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        attacker(method)
