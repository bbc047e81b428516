"""Expressions of a configuration: those of an export are harmless, and nothing reaches beyond them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.export.check.expressions import objection
from monai_fedlora.export.inference import inference_config
from monai_fedlora.export.modalities import modality_of
from tests.export.conftest import Run


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("$"):
        yield value[1:]
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from expressions(part)


def test_every_expression_of_an_export_is_harmless(stored_run: Run, image_run: Run) -> None:
    for run in (stored_run, image_run):
        found = list(expressions(inference_config(run.plan.classes, modality_of(run.plan).reading())))
        assert len(found) > 8
        assert {text: objection(text) for text in found} == dict.fromkeys(found)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "import os",
        " import os",
        "from os import system",
        "import pathlib, os",
        "import pathlib as torch",
        "open('/etc/passwd').read()",
        "eval('1')",
        "exec('1')",
        "().__class__.__base__.__subclasses__()",
        "torch.load('x')",
        "torch.os.system('true')",
        "torch.hub.load('a', 'b')",
        "torch.jit.load('/tmp/evil.ts')",
        "torch.jit.load(@bundle_root + '/../evil.ts', map_location=@device)",
        "monai.bundle.download('x')",
        "np.load('x', allow_pickle=True)",
        "np.asarray.__globals__",
        "pathlib.Path('x').write_text('y')",
        "pathlib.Path('x').unlink()",
        "pathlib.os.system('true')",
        "Image.open('x').save('/tmp/y')",
        "@table.save('/tmp/y')",
        "@x.system('true')",
        "getattr(pathlib, 'os').system('true')",
        "getattr(@x, '__class__', 1)",
        "getattr(@x, 'mo' + 'de', 1)",
        "getattr(@x, 'mode')",
        "'{0.__class__}'.format(@x)",
        "f'{@x}'",
        "(lambda sorted: sorted('true'))(torch)",
        "(lambda torch: torch.device)(@x)",
        "[torch for torch in @x]",
        "[x for x in (y := @x)]",
        "sorted",
        "torch",
        "str.mro()",
        "'@f{1}'",
        "'a' + '@f{open(1)}'",
        "@a # comment",
        "%x",
        "_reference_",
        "await @x",
        "yield 1",
        "lambda: (yield)",
        "x = 1",
        "(@a)(1)(2)",
        "",
        "1 +",
        "9" * 3000,
        "(" * 300 + ")" * 300,
        "\x00",
        "ｏｐｅｎ('x')",  # Python reads these letters as open
        "getattr(@x, 'mode', 1).ｓystem()",
    ],
)
def test_what_reaches_further_is_refused(text: str) -> None:
    assert objection(text)


@given(st.text())
def test_no_text_crashes_the_check(text: str) -> None:
    assert objection(text) is None or objection(text)


NAMES = st.sampled_from(["torch", "np", "pathlib", "x", "getattr", "sorted", "@x", "'a'", "open", "__class__", "mode"])
TREES = st.recursive(
    NAMES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["os", "mode", "glob", "__class__", "save", "load", "jit"])).map(".".join),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"(lambda x: {pair[0]})({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"[{pair[0]} for x in {pair[1]}]"),
    ),
    max_leaves=6,
)


@given(TREES)
def test_no_harmless_expression_has_a_dangerous_word(text: str) -> None:
    if objection(text) is None:
        words = {node.id for node in ast.walk(ast.parse(text.replace("@", ""))) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(ast.parse(text.replace("@", ""))) if isinstance(node, ast.Attribute)}
        assert words <= {"x", "mode", "glob", "sorted", "getattr"}
