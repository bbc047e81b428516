"""Check that an exported program (``model.pt2``) only computes.

`torch.export` writes a graph as JSON. When it is loaded, targets are looked up as attributes of Python's torch, sizes
are parsed as sympy expressions, and guards are executed as Python; so each has to be what an export of this package
writes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.operators import ARITHMETIC, SYMBOLIC, is_huge, is_too_large
from monai_fedlora.exporting.check.pickles import parts
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.exporting.check.words import words

_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_SYMBOL = re.compile(r"[su][0-9]+")
_BLOB = re.compile(r"(weight|tensor)_[0-9]+")
_SIZE_PARTS = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub)
_SIZE_FUNCTIONS = words(
    """Symbol Integer Add Mul Pow Min Max FloorDiv CleanDiv Mod PythonMod Eq Ne Equality Unequality StrictLessThan
    LessThan StrictGreaterThan GreaterThan And Or Not"""
)
_LONGEST_SIZE = 10_000
_LARGEST_POWER = 4
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_EMPTY = ("guards_code", "metadata", "treespec_namedtuple_fields", "custom_obj_values")


def graph_problems(program: Any) -> Iterator[str]:
    """Problems of ``models/model.json``."""
    if not isinstance(program, Mapping) or "graph_module" not in program:
        yield "holds no graph"
    for value in parts(program):
        if isinstance(value, dict):
            for key, part in value.items():
                yield from _entry_problems(key, part)


def table_problems(table: Any) -> Iterator[str]:
    """Problems of a table of weights or constants: anything but tensors that are stored as plain bytes."""
    config = table.get("config") if isinstance(table, Mapping) else None
    if not isinstance(config, Mapping):
        yield "is no table of tensors"
        return
    for name, entry in config.items():
        plain = isinstance(entry, Mapping) and entry.get("use_pickle") is False
        if not plain or not isinstance(entry.get("path_name"), str) or not _BLOB.fullmatch(entry["path_name"]):
            yield f"stores {name[:80]!r} other than as the bytes of a tensor"


def _entry_problems(key: str, part: Any) -> Iterator[str]:
    if key in ("target", "as_operator"):
        if not (isinstance(part, str) and _is_known(part)) and not _is_name_of_an_input(part):
            yield f"calls {str(part)[:80]}, which is no arithmetic"
    elif key == "expr_str":
        if not isinstance(part, str) or not _is_size(part):
            yield f"has the size {str(part)[:80]}, which is no plain expression"
    elif key == "as_int" and is_too_large(part):
        yield "has a number that is larger than any size"
    elif key == "nodes" and isinstance(part, list):
        yield from (f"makes a tensor that nobody has room for with {node['target']}" for node in filter(_is_huge, part))
    elif key == "range_constraints":
        if not isinstance(part, dict) or not all(_is_range(*entry) for entry in part.items()):
            yield "has constraints on something that is no size"
    elif key in _EMPTY:
        if part:
            yield f"has {key}, which could be Python code"
    elif key in ("in_spec", "out_spec"):
        if not isinstance(part, str) or not _is_plain_structure(part):
            yield f"takes or gives something other than tensors: {str(part)[:80]}"
    elif key.startswith("as_custom") or key in ("as_opaque_obj", "as_graph"):
        yield f"has {key}, which no export writes"


def _is_known(target: str) -> bool:
    found = _OPERATOR.fullmatch(target)
    return target in SYMBOLIC or (found is not None and found[1] in ARITHMETIC and not _writes(found[1], found[2]))


def _writes(name: str, overload: str) -> bool:
    """Whether an operator changes one of its arguments, or does not exist."""
    schema = getattr(getattr(getattr(torch.ops.aten, name, None), overload, None), "_schema", None)
    return schema is None or bool(schema.is_mutable)


def _is_huge(node: Any) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("target"), str):
        return False
    found = _OPERATOR.fullmatch(node["target"])
    return found is not None and is_huge(found[1], parts(node.get("inputs")))


def _is_range(name: str, limits: Any) -> bool:
    if not _SYMBOL.fullmatch(name) or not isinstance(limits, dict):
        return False
    return limits.keys() == {"min_val", "max_val"} and all(type(end) in (int, type(None)) for end in limits.values())


def _is_name_of_an_input(part: Any) -> bool:
    """Whether a ``target`` is no operator but, as in the signature, None or the name of a parameter."""
    return part is None or (isinstance(part, str) and not part.startswith(("torch", "math", "_operator", "#")))


def _is_size(text: str) -> bool:
    if len(text) > _LONGEST_SIZE:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _SIZE_PARTS):
            return False
        if isinstance(node, ast.Name) and node.id not in _SIZE_FUNCTIONS:
            return False
        if isinstance(node, ast.Constant) and not _is_number_or_symbol(node.value):
            return False
    powers = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _named(node.func, "Pow")]
    return not powers or (len(powers) == 1 and _is_small_power(powers[0]))


def _is_small_power(power: ast.Call) -> bool:
    """Whether this is ``Pow(..., Integer(n))`` with a small n; sympy would compute a huge power immediately."""
    if len(power.args) != 2 or power.keywords:
        return False
    exponent = power.args[1]
    if isinstance(exponent, ast.Call) and _named(exponent.func, "Integer") and len(exponent.args) == 1:
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    return isinstance(exponent, ast.Constant) and type(exponent.value) is int and exponent.value <= _LARGEST_POWER


def _named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_number_or_symbol(value: Any) -> bool:
    return (isinstance(value, (int, bool)) and not is_too_large(value)) or (
        isinstance(value, str) and _SYMBOL.fullmatch(value) is not None
    )


def _is_plain_structure(text: str) -> bool:
    try:
        containers = [part for part in parts(read_plain_json(text.encode())) if isinstance(part, dict)]
    except (ExportError, UnicodeEncodeError):
        return False
    return all(part.get("type") in _CONTAINERS and part.get("context") in (None, "null", "[]") for part in containers)
