"""Prompts are checked before anything reads them, and classes without words of their own are not guessed at."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError
from monai_fedlora.files import write_json
from monai_fedlora.networks.prompts import LONGEST, Prompts, bundle_prompts, own_prompts


def test_every_class_has_one_text_per_template() -> None:
    prompts = Prompts(
        templates=("a photo of {class}", "{class}, close up: {class}"),
        class_texts={"NV": "a mole", "MEL": "a melanoma", "VASC": "an angioma"},
    )
    assert prompts.texts(["MEL", "NV"]) == [
        ["a photo of a melanoma", "a melanoma, close up: a melanoma"],
        ["a photo of a mole", "a mole, close up: a mole"],
    ]


def test_without_texts_the_names_are_read() -> None:
    assert Prompts().texts(["mild_npdr", "NV"]) == [["a photo of mild npdr"], ["a photo of NV"]]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo of melanoma", r"has no place for the class; write \{class\}"),
        ("a photo of {}", r"holds '\{\}'; the only placeholder is \{class\}"),
        ("a photo of {klass}", r"holds '\{klass\}'; the only placeholder is"),
        ("{site}: {class}", r"holds '\{site\}'"),
        ("{class!r}", r"holds '\{class!r\}'"),
        ("{class} or {", r"holds '\{'"),
        ("}{class}", r"holds '\}'"),
        ("", "that is not empty"),
        ("  ", "that is not empty"),
        (None, "is None; it must be a text"),
        ("{class}\n", "printable characters, in one line"),
        ("{class}\u202e", "printable characters"),
        ("{class}" + LONGEST * "a", f"has {LONGEST + 7} characters, more than {LONGEST}"),
    ],
)
def test_a_bad_template_is_refused(template: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompts(templates=("a photo of {class}", template))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": ()}, "a list of one or more sentences"),
        ({"templates": "a photo of {class}"}, "a list of one or more sentences"),
        ({"templates": ("{class}", "{class}")}, "must be different"),
        ({"class_texts": ["melanoma"]}, "a mapping from class names to texts"),
        ({"class_texts": {"NV": ""}}, "the text of class 'NV' is ''"),
        ({"class_texts": {"NV": 3}}, "the text of class 'NV' is 3"),
        ({"class_texts": {"NV": "a {class}"}}, "braces belong into a prompt"),
        ({"class_texts": {"NV": "a mole\t"}}, "printable"),
    ],
)
def test_other_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompts(**settings)


def test_a_class_without_a_text_beside_others_is_refused() -> None:
    prompts = Prompts(class_texts={"melanoma": "a melanoma", "naevus": "a mole"})
    with pytest.raises(ConfigError, match="no text for class 'Melanoma'; did you mean it by 'melanoma'"):
        prompts.texts(["naevus", "Melanoma"])


def test_classes_that_read_the_same_are_refused() -> None:
    prompts = Prompts(class_texts={"NV": "a mole", "MEL": "a mole"})
    with pytest.raises(ConfigError, match="classes 'NV' and 'MEL' have the same text 'a photo of a mole'"):
        prompts.texts(["NV", "MEL"])


@given(template=st.text(max_size=30), text=st.text(max_size=30))
def test_what_is_accepted_holds_the_class_and_no_braces(template: str, text: str) -> None:
    try:
        prompts = Prompts(templates=(template,), class_texts={"NV": text})
    except ConfigError:
        return
    ((sentence,),) = prompts.texts(["NV"])
    assert sentence == text.join(template.split("{class}"))
    assert not set("{}") & set(sentence)
    assert sentence.isprintable()


def test_prompts_come_back_from_json() -> None:
    prompts = Prompts(templates=("a photo of {class}", "{class}"), class_texts={"NV": "a mole"})
    assert Prompts.from_json(json.loads(json.dumps(dataclasses.asdict(prompts)))) == prompts


@pytest.mark.parametrize("value", [None, [], {"templates": ["{class}"]}, {"templates": 3, "class_texts": {}}])
def test_json_that_is_no_prompts_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        Prompts.from_json(value)


TEXTS = "image_2d_pfedst_classification"


def test_own_texts_stand_beside_those_of_the_bundle_and_win(tmp_path: Path) -> None:
    found = own_prompts(TEXTS, ["GLA", "NV"], class_texts={"GLA": "glaucoma"})
    assert found.class_texts == {"GLA": "glaucoma", "NV": "melanocytic naevus"}
    assert found.templates == bundle_prompts(TEXTS).templates
    file = tmp_path / "prompts.json"
    write_json(file, {"templates": ["{class} of an eye"], "class_texts": {"GLA": "a", "H": "b", "other": "c"}})
    assert own_prompts(TEXTS, ["GLA", "H"], file=file, class_texts={"H": "d"}) == Prompts(
        templates=("{class} of an eye",), class_texts={"GLA": "a", "H": "d"}
    )
    said = {"templates": ["{class} of an eye"]}
    assert own_prompts(TEXTS, ["NV"], file=said).templates == ("{class} of an eye",)
    write_json(file, {"class_texts": {}})
    assert own_prompts(TEXTS, ["big_eye", "H"], file=file).texts(["big_eye"]) == [["a photo of big eye"]]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "JSON object"),
        ({}, "JSON object"),
        ({"template": ["{class}"]}, "JSON object"),
        ({"templates": "x"}, "list"),
    ],
)
def test_a_file_that_says_something_else_is_refused(said: object, why: str, tmp_path: Path) -> None:
    write_json(tmp_path / "prompts.json", said)
    with pytest.raises(ConfigError, match=why):
        own_prompts(TEXTS, ["NV"], file=tmp_path / "prompts.json")


def test_a_text_of_no_class_and_a_class_without_a_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="text for 'GLAU', which is none of the classes; did you mean 'GLA'"):
        own_prompts(TEXTS, ["GLA", "NV"], class_texts={"GLAU": "glaucoma"})
    with pytest.raises(ConfigError, match=r"no text for class 'GLA'.*--class-text GLA='\.\.\.' or --prompts FILE"):
        own_prompts(TEXTS, ["GLA", "NV"], class_texts={"NV": "naevus"}).texts(["GLA", "NV"])
