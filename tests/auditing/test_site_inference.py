"""Who took part is told by runs with and without each site."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.auditing.site_inference import participation, without
from monai_fedlora.data.origin import Origin
from monai_fedlora.errors import ExportError
from monai_fedlora.federated.participation import Participation
from tests.helpers import make_plan

SITES = ("north", "south", "west")
INSIDE = torch.tensor([[True, True, True], [False, True, True], [True, False, True], [True, True, False]])


def test_sites_whose_loss_is_lower_in_runs_with_them_are_told() -> None:
    usual = torch.tensor([0.2, 5.0, 1.0])  # sites are unlike each other, which calibration takes out
    found = participation(usual - 0.1 * INSIDE, INSIDE, SITES)
    assert (found.auc, found.n_members, found.n_others) == (1.0, 9, 3)
    assert found.name == "participation, 4 runs" and found.interval_95[0] < 0.9
    assert participation(usual.expand(4, 3), INSIDE, SITES).auc == 0.5
    assert participation(usual + 0.1 * INSIDE, INSIDE, SITES).auc == 0.0


def test_what_tells_nothing_is_refused() -> None:
    with pytest.raises(ExportError, match="no run without"):
        participation(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), SITES)
    with pytest.raises(ExportError, match="not finite"):
        participation(torch.full((4, 3), torch.nan), INSIDE, SITES)


def test_a_run_without_a_site_is_the_same_run_of_the_others_from_its_first_round() -> None:
    plan = make_plan(
        sites=SITES, rounds=2, start_round=3, declared_cases={"north": 20, "west": 30},
        participation=Participation(min_sites=3, required_sites=("north",)),
    )  # fmt: skip
    left = without(plan, "north")
    assert (left.sites, left.rounds, left.start_round) == (("south", "west"), 5, 0)
    assert left.declared_cases == {"west": 30} and left.participation == Participation()
    assert (left.seed, left.method_args, left.privacy) == (plan.seed, plan.method_args, plan.privacy)


def test_runs_that_cannot_do_without_a_site_say_why() -> None:
    with pytest.raises(ExportError, match="takes 3 to leave one out"):
        without(make_plan(), "north")
    with pytest.raises(ExportError, match="started from somewhere"):
        without(make_plan(sites=SITES, start=Origin(kind="real", name="somewhere")), "north")
    with pytest.raises(ExportError, match="settings of each site's own"):
        without(make_plan(sites=SITES, method="flexlora", method_args={"ranks": (2, 4, 8)}), "north")
