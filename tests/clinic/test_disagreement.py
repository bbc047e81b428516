from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from monai_fedlora.clinic.disagreement import RULES, disagreements


def said(name: str, *, undecided: bool = False, wall: float | None = 10.0, **numbers: float) -> list[str]:
    usual: dict[str, float | None] = {"lv_ef": 60.0, "lv_edv": 150.0, "rv_ef": 55.0, "rv_edv": 160.0}
    prediction: Any = SimpleNamespace(predicted=name, undecided=undecided)
    function: Any = SimpleNamespace(**usual | numbers)
    measured: Any = SimpleNamespace(function=function, wall=wall and SimpleNamespace(thickest=wall))
    return list(disagreements(prediction, measured))


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("NOR", {}),
        ("MINF", {"lv_ef": 30.0}),
        ("DCM", {"lv_ef": 20.0, "lv_edv": 260.0}),
        ("HCM", {"wall": 19.0}),
        ("RV", {"rv_ef": 35.0}),
        ("RV", {"rv_edv": 260.0}),
    ],
)
def test_usual_hearts_of_a_class_get_no_remark(name: str, usual: dict[str, float]) -> None:
    assert said(name, **usual) == []


@pytest.mark.parametrize(
    ("name", "numbers", "part"),
    [
        ("NOR", {"lv_ef": 31.0}, "left ventricle ejects 31 %"),
        ("Normal", {"rv_ef": 30.0}, "right ventricle ejects 30 %"),
        ("NOR", {"wall": 18.0}, "18 mm thick"),
        ("MINF", {"lv_ef": 58.0}, "less than 40 % goes with this class"),
        ("DCM", {"lv_ef": 58.0}, "ejects 58 %"),
        ("DCM", {"lv_ef": 30.0, "lv_edv": 110.0}, "holds 110 mL"),
        ("HCM", {"wall": 10.0}, "no segment of the wall"),
        ("HCM", {"lv_ef": 30.0, "wall": 19.0}, "hypertrophic one usually ejects"),
        ("RV", {"rv_ef": 60.0, "rv_edv": 100.0}, "right ventricle ejects 60 %"),
    ],
)
def test_a_number_beyond_the_limit_is_named(name: str, numbers: dict[str, float], part: str) -> None:
    (remark,) = said(name, **numbers)
    assert part in remark and remark.startswith("Class and volumes disagree") and "nothing was corrected" in remark


def test_numbers_within_the_margin_of_a_limit_give_no_remark() -> None:
    assert said("NOR", lv_ef=46.0) == [] and said("NOR", lv_ef=44.0)
    assert said("DCM", lv_ef=44.0) == [] and said("DCM", lv_ef=46.0)


def test_nothing_is_compared_without_a_rule_a_decision_or_a_number() -> None:
    assert said("ABN", lv_ef=10.0) == [] and said("NOR", undecided=True, lv_ef=10.0) == []
    assert said("HCM", wall=None) == []
    prediction: Any = SimpleNamespace(predicted="NOR", undecided=False)
    measured: Any = SimpleNamespace(function=None, wall=None)
    assert disagreements(prediction, measured) == ()
    assert set(RULES) >= {"NOR", "MINF", "DCM", "HCM", "RV"}
