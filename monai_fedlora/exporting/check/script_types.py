"""Check that the objects of a TorchScript archive have the types that its code declares, which torch does not check."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from monai_fedlora.exporting.check.pickles import Instance, parts
from monai_fedlora.exporting.check.views import View

_PLAIN: dict[str, type] = {"Tensor": View, "bool": bool, "int": int, "float": float, "str": str, "NoneType": type(None)}


def declared_types(text: str, module: str) -> dict[str, dict[str, ast.expr]]:
    """The attributes that the classes of a code file declare.

    Args:
        text: a ``code/*.py`` that passed :func:`monai_fedlora.exporting.check.script_code.code_objection`.
        module: its name, as in "__torch__.torch.nn.modules.conv".

    Returns:
        For each class, by full name, the types of its attributes by name.
    """
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            types: dict[str, ast.expr] = {}
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is None:
                    types[part.target.id] = part.annotation
                elif isinstance(part, ast.Assign) and (name := annotated(part.targets[0])) is not None:
                    types[name] = part.value
            found[f"{module}.{node.name}"] = types
    return found


def annotated(target: ast.expr) -> str | None:
    """The attribute whose type ``__annotations__["name"] = ...`` declares; None for another target."""
    if not isinstance(target, ast.Subscript) or not isinstance(target.slice, ast.Constant):
        return None
    plain = isinstance(target.value, ast.Name) and target.value.id == "__annotations__"
    return target.slice.value if plain and isinstance(target.slice.value, str) else None


def type_problems(value: Any, declared: Mapping[str, Mapping[str, ast.expr]]) -> Iterator[str]:
    """The attributes of a pickle's objects that do not have their declared types."""
    for part in parts(value):
        if isinstance(part, Instance):
            types = declared.get(part.name)
            if types is None:
                yield f"has an object of {part.name}, which its code does not declare"
                continue
            for name in types.keys() ^ part.attributes.keys():
                yield f"{part.name} has or lacks {name[:80]}, other than its code declares"
            for name in types.keys() & part.attributes.keys():
                if not _fits(part.attributes[name], types[name]):
                    yield f"{part.name} has {name[:80]} of another type than its code declares"


def _fits(value: Any, kind: ast.expr) -> bool:
    if isinstance(kind, ast.Name):
        return kind.id in _PLAIN and type(value) is _PLAIN[kind.id]
    if isinstance(kind, ast.Attribute):
        return isinstance(value, Instance) and value.name == ast.unparse(kind)
    if not isinstance(kind, ast.Subscript) or not isinstance(kind.value, ast.Name):
        return False
    generic: Callable[[], bool] = {
        "Optional": lambda: value is None or _fits(value, kind.slice),
        "List": lambda: isinstance(value, list) and all(_fits(part, kind.slice) for part in value),
        "Tuple": lambda: _fits_tuple(value, kind.slice),
    }.get(kind.value.id, lambda: False)
    return generic()


def _fits_tuple(value: Any, kinds: ast.expr) -> bool:
    expected = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    if not isinstance(value, tuple) or len(value) != len(expected):
        return False
    return all(_fits(part, kind) for part, kind in zip(value, expected, strict=True))
