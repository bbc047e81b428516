"""The public way to a recipe of NVFlare."""

from __future__ import annotations

import pytest

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError
from tests.api.conftest import Small, two_sites


def test_a_network_of_this_program_alone_has_no_recipe() -> None:
    run = fl.federate(Small, fl.method("fedit", targets=r"blocks\.1", head="head", rank=2), two_sites(), rounds=1)
    for source in (run, run.plan):
        with pytest.raises(ConfigError, match="plug-in backbone"):
            fl.recipe(source)


def test_a_plan_has_the_recipe_of_its_job() -> None:
    shipped = fl.recipe("dual_lora").plan
    assert fl.recipe(shipped).plan == shipped


def test_there_is_no_recipe_of_a_job_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no_such_job"):
        fl.recipe("no_such_job")
