from __future__ import annotations

from xml.etree import ElementTree

from monai_fedlora.rendering.agreement_charts import box_chart, difference_chart

WORDS = {"title": "LV volume", "description": "differences"}


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]


def test_bias_and_limits_are_named_beside_their_lines() -> None:
    pairs = {"ED": [(150.0, 148.0), (90.0, 95.0)], "ES": [(60.0, 58.0)]}
    figure = difference_chart(pairs, bias=-0.3, limits=(-8.1, 7.5), unit="mL", **WORDS)
    assert figure is not None
    found = texts(figure.svg)
    assert {"bias -0.3", "-8.1", "+7.5", "ED", "ES", "Measured minus reference (mL)"} <= set(found)
    assert figure == difference_chart(pairs, bias=-0.3, limits=(-8.1, 7.5), unit="mL", **WORDS)


def test_one_patient_has_no_limits() -> None:
    figure = difference_chart({"ED": [(150.0, 148.0)]}, bias=2.0, limits=None, unit="mL", **WORDS)
    assert figure is not None and "bias +2.0" in texts(figure.svg)


def test_boxes_have_their_names() -> None:
    figure = box_chart({"LV, ED": [0.8, 0.9, 0.95], "RV, ED": []}, label="Dice", ends=(0, 1), **WORDS)
    assert figure is not None and {"LV, ED", "RV, ED", "Dice"} <= set(texts(figure.svg))


def test_nothing_to_show_has_no_figure() -> None:
    assert box_chart({"LV": []}, label="Dice", **WORDS) is None
    assert difference_chart({"ED": []}, bias=0.0, limits=None, unit="mL", **WORDS) is None
