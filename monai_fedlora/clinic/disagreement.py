"""Say where the class of a study does not go with its volumes: a remark for a reader, which changes neither.

The rules are for classes of the names of ACDC's groups, and their limits are those by which its patients were grouped
(Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and Diagnosis", IEEE
Transactions on Medical Imaging 2018): normal hearts eject more than 50 % and have walls below 12 mm; after infarction
and with dilated cardiomyopathy less than 40 % is ejected; dilated left ventricles are larger than 100 mL/m2;
hypertrophic hearts have walls above 15 mm and eject more than 55 %; an abnormal right ventricle ejects less than 40 %,
or is larger than 110 mL/m2 in men and 100 mL/m2 in women. As images do not tell the sex, the smaller limit is used for
all. Of hypertrophic hearts no more than the 50 % of normal ones is asked, and a wall of a normal heart is remarked on
above 15 mm alone (ours). Limits by body surface are used for the smallest adult surface only, 1.4 m2 (ours), as images
do not tell it either. A remark is made where a number is beyond its limit by more than :data:`MARGIN`, as
outlines are uncertain by that much (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai_fedlora.clinic.measured_study import MeasuredStudy
from monai_fedlora.clinic.prediction import Prediction

MARGIN = {"%": 5.0, "mm": 2.0, "mL": 0.0}
"""By unit: how far a number must be beyond a limit."""
SMALLEST_SURFACE = 1.4
"""Body surface of a small adult in m2 (ours)."""
_NORMAL_EF, _FAILING_EF = 50.0, 40.0
_THICK, _DILATED = 15.0, 100 * SMALLEST_SURFACE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """What the rules look at; None where it was not measured."""

    lv_ef: float | None
    lv_edv: float | None
    rv_ef: float | None
    rv_edv: float | None
    wall: float | None


def _below(value: float | None, limit: float, unit: str) -> bool:
    return value is not None and value < limit - MARGIN[unit]


def _above(value: float | None, limit: float, unit: str) -> bool:
    return value is not None and value > limit + MARGIN[unit]


def _normal(found: _Numbers) -> list[str]:
    said = []
    if _below(found.lv_ef, _NORMAL_EF, "%"):
        said.append(f"the left ventricle ejects {found.lv_ef:.0f} %, and more than {_NORMAL_EF:.0f} % is normal")
    if _below(found.rv_ef, _FAILING_EF, "%"):
        said.append(f"the right ventricle ejects {found.rv_ef:.0f} %, and less than {_FAILING_EF:.0f} % is abnormal")
    if _above(found.wall, _THICK, "mm"):
        said.append(f"a segment of the wall is {found.wall:.0f} mm thick, and above {_THICK:.0f} mm is hypertrophic")
    return said


def _failing(found: _Numbers) -> list[str]:
    if not _above(found.lv_ef, _FAILING_EF, "%"):
        return []
    return [f"the left ventricle ejects {found.lv_ef:.0f} %, and less than {_FAILING_EF:.0f} % goes with this class"]


def _dilated(found: _Numbers) -> list[str]:
    said = _failing(found)
    if _below(found.lv_edv, _DILATED, "mL"):
        said.append(
            f"the left ventricle holds {found.lv_edv:.0f} mL, and a dilated one more than {_DILATED:.0f} mL even in a "
            "small adult"
        )
    return said


def _hypertrophic(found: _Numbers) -> list[str]:
    said = []
    if _below(found.lv_ef, _NORMAL_EF, "%"):
        said.append(f"the left ventricle ejects {found.lv_ef:.0f} %, and a hypertrophic one usually ejects normally")
    if _below(found.wall, _THICK, "mm"):
        said.append(
            f"no segment of the wall is thicker than {found.wall:.0f} mm, and above {_THICK:.0f} mm is hypertrophic"
        )
    return said


def _right(found: _Numbers) -> list[str]:
    if not (_above(found.rv_ef, _FAILING_EF, "%") and _below(found.rv_edv, _DILATED, "mL")):
        return []
    return [
        f"the right ventricle ejects {found.rv_ef:.0f} % and holds {found.rv_edv:.0f} mL, and less than "
        f"{_FAILING_EF:.0f} % or more than {_DILATED:.0f} mL goes with this class"
    ]


RULES: dict[str, Callable[[_Numbers], list[str]]] = {
    "NOR": _normal, "NORMAL": _normal, "MINF": _failing, "DCM": _dilated, "HCM": _hypertrophic, "RV": _right,
    "ARV": _right,
}  # fmt: skip
"""By name of a class in capitals."""


def disagreements(prediction: Prediction, measured: MeasuredStudy) -> tuple[str, ...]:
    """Sentences on where the class does not go with the numbers.

    Args:
        prediction: of the study; an undecided one is not compared.
        measured: numbers of the same study; without volumes there is nothing to compare.
    """
    rule = RULES.get(prediction.predicted.upper())
    if rule is None or prediction.undecided or measured.function is None:
        return ()
    function, wall = measured.function, measured.wall
    numbers = _Numbers(
        lv_ef=function.lv_ef,
        lv_edv=function.lv_edv,
        rv_ef=function.rv_ef,
        rv_edv=function.rv_edv,
        wall=None if wall is None else wall.thickest,
    )
    return tuple(
        f"Class and volumes disagree: the class is {prediction.predicted}, but {said}. One of both is wrong, or the "
        "patient is unusual; nothing was corrected."
        for said in rule(numbers)
    )
