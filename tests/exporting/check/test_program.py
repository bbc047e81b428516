"""Exported programs: what this package writes passes, and no field that Python evaluates can be used for more."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.check.program import graph_problems, table_problems


def member(exported: Exported, name: str) -> Any:
    with zipfile.ZipFile(exported.folder / "models" / "model.pt2") as archive:
        (found,) = (entry for entry in archive.namelist() if entry.partition("/")[2] == name)
        return json.loads(archive.read(found))


@pytest.fixture
def program(image_exported: Exported) -> Any:
    """The graph of an exported program, which a test may change."""
    return member(image_exported, "models/model.json")


def test_what_an_export_writes_passes(exported: Exported, image_exported: Exported) -> None:
    for found in (exported, image_exported):
        assert list(graph_problems(member(found, "models/model.json"))) == []
        for name in ("weights/model_weights", "constants/model_constants"):
            assert list(table_problems(member(found, f"data/{name}_config.json"))) == []


def sizes(value: Any) -> list[dict[str, Any]]:
    """Every object with a symbolic size."""
    found = [value] if isinstance(value, dict) and "expr_str" in value else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [inner for part in parts for inner in sizes(part)]


def node(program: Any) -> dict[str, Any]:
    return program["graph_module"]["graph"]["nodes"][3]


def spec(program: Any) -> dict[str, Any]:
    return program["graph_module"]["module_call_graph"][0]["signature"]


EVIL: dict[str, Callable[[Any], Any]] = {
    "system": lambda p: node(p).update(target="torch.os.system"),
    "load": lambda p: node(p).update(target="torch.load"),
    "save": lambda p: node(p).update(target="torch.ops.aten.save.default"),
    "file": lambda p: node(p).update(target="torch.ops.aten.from_file.default"),
    "other namespace": lambda p: node(p).update(target="torch.ops.evil.add.Tensor"),
    "call of a name": lambda p: node(p).update(target="_operator.methodcaller"),
    "extension": lambda p: node(p).update(target="#evil:x"),
    "number as target": lambda p: node(p).update(target=3),
    "function as argument": lambda p: node(p)["inputs"].append(
        {"name": "x", "arg": {"as_operator": "torch.os.system"}}
    ),
    "subgraph": lambda p: node(p)["inputs"].append({"name": "x", "arg": {"as_graph": {"name": "g", "graph": {}}}}),
    "object": lambda p: node(p)["inputs"].append({"name": "x", "arg": {"as_custom_obj": {"name": "o"}}}),
    "call stack": lambda p: node(p).update(metadata={"source_fn_stack": "a,torch.os.system"}),
    "guard": lambda p: p.update(guards_code=["__import__('os').system('true')"]),
    "size": lambda p: sizes(p)[0].update(expr_str="__import__('os').system('true')"),
    "size with a method": lambda p: sizes(p)[0].update(expr_str="Symbol('s1').__class__"),
    "size with a lambda": lambda p: sizes(p)[0].update(expr_str="(lambda: 1)()"),
    "size with a text": lambda p: sizes(p)[0].update(expr_str="Symbol('evil()')"),
    "size of a number": lambda p: sizes(p)[0].update(expr_str=3),
    "constraint": lambda p: p["range_constraints"].update({"evil()": {"min_val": 0, "max_val": 1}}),
    "structure": lambda p: spec(p).update(in_spec='[1, {"type": "os.system", "context": "null", "children_spec": []}]'),
    "structure's context": lambda p: spec(p).update(
        in_spec='[1, {"type": "builtins.dict", "context": "[\\"x\\"]", "children_spec": []}]'
    ),
    "structure of a number": lambda p: spec(p).update(out_spec=3),
    "structure of nothing": lambda p: spec(p).update(out_spec="{"),
    "named tuples": lambda p: p["graph_module"].update(treespec_namedtuple_fields={"a": {}}),
    "no graph": lambda p: p.clear(),
}


@pytest.mark.parametrize("change", EVIL)
def test_anything_else_is_refused(program: Any, change: str) -> None:
    EVIL[change](program)
    assert list(graph_problems(program))


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"config": []},
        {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}},
        {"config": {"w": {"path_name": "custom_obj_0", "use_pickle": False}}},
        {"config": {"w": {"path_name": "../x", "use_pickle": False}}},
        {"config": {"w": {"path_name": "weight_0"}}},
        {"config": {"w": []}},
    ],
)
def test_tensors_are_stored_as_bytes_only(table: Any) -> None:
    assert list(table_problems(table))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["target", "expr_str", "in_spec", "metadata", "range_constraints", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(VALUES)
def test_no_graph_crashes_the_check(value: Any) -> None:
    assert list(graph_problems(value))
    assert list(table_problems(value))
