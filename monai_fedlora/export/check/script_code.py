"""Whether the code inside of a TorchScript archive only computes.

TorchScript writes its functions as Python text, which its own compiler reads again when the archive is loaded. Python
never runs it, but its operators reach further than arithmetic: some read and write files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from monai_fedlora.export.check.operators import ARITHMETIC, PRIMITIVES, SCRIPTING
from monai_fedlora.export.check.words import words

_PARTS = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.AnnAssign, ast.Assign, ast.Return),
    *(ast.If, ast.For, ast.While, ast.Expr, ast.Pass, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Subscript),
    *(ast.Load, ast.Store, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.USub, ast.IfExp),
)
_TYPES = words("Device Dict Final List Module NamedTuple NoneType Optional Tensor Tuple bool float int number str")
_FUNCTIONS = words("annotate bool float getattr int range str unchecked_cast uninitialized")
_OWN = frozenset({"CONSTANTS", "__annotations__", "__torch__", "inf", "nan"})
_METHOD = re.compile("assess|forward[0-9]*")
_PACKAGES = ("__torch__.monai_fedlora.", "__torch__.torch.nn.")  # others could be classes written in C++
_TORCH = ARITHMETIC | SCRIPTING
_ROOTS = {
    "torch": frozenset(f"torch.{name}" for name in _TORCH),
    "ops": frozenset(
        {*(f"ops.prim.{name}" for name in PRIMITIVES), *(f"ops.aten.{name}" for name in ARITHMETIC | SCRIPTING)}
    ),
}


def code_objection(text: str) -> str | None:
    """Why a file of TorchScript code must not be loaded; None where it may.

    Args:
        text: a ``code/*.py`` of the archive.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "is not what TorchScript writes"
    return next(_objections(list(ast.walk(tree))), None)


def _objections(nodes: Sequence[ast.AST]) -> Iterator[str]:
    seen: set[ast.AST] = set()
    called = {node.func for node in nodes if isinstance(node, ast.Call)}
    known = _TYPES | _OWN | _local_names(nodes)
    functions = _FUNCTIONS | _names_of_functions(nodes)
    for node in nodes:
        if not isinstance(node, _PARTS):
            yield f"uses {type(node).__name__}"
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.decorator_list:
            yield f"decorates {node.name}"
        elif isinstance(node, ast.Attribute) and node not in seen:
            chain = list(_chain(node))
            seen.update(chain)
            yield from _chain_objections(ast.unparse(node), chain[-1], called=node in called)
        elif isinstance(node, ast.Name) and node not in seen:
            if node.id not in known and not (node.id in _FUNCTIONS and node in called):
                yield f"uses the name {node.id}"
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            if not isinstance(node.func, ast.Name) or node.func.id not in functions:
                yield f"calls {ast.unparse(node.func)[:80]}, which is no function of the archive"
            elif node.func.id == "getattr" and not (len(node.args) == 2 and isinstance(node.args[1], ast.Constant)):
                yield "looks up an attribute that is not written out"


def _chain_objections(text: str, root: ast.AST, *, called: bool) -> Iterator[str]:
    """Object to ``torch.save``, ``ops.aten.from_file`` and methods of values, which can be the same operators."""
    if isinstance(root, ast.Name) and root.id in _ROOTS:
        if text not in _ROOTS[root.id]:
            yield f"calls {text}, which is no arithmetic"
    elif isinstance(root, ast.Name) and root.id == "__torch__":
        if not text.startswith(_PACKAGES):
            yield f"names {text}, which is not of this package"
    elif called:
        method = text.rpartition(".")[2]
        if not _METHOD.fullmatch(method):
            yield f"calls the method {method}"


def _chain(node: ast.expr) -> Iterator[ast.expr]:
    """An attribute and everything it hangs on, down to the first thing that is no attribute."""
    while isinstance(node, ast.Attribute):
        yield node
        node = node.value
    if isinstance(node, ast.Name):
        yield node
    else:
        yield ast.Constant(None)


def _names_of_functions(nodes: Sequence[ast.AST]) -> set[str]:
    """The variables that stand for functions of the archive, and for nothing else."""
    functions: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Assign):
            own = isinstance(node.value, ast.Attribute) and ast.unparse(node.value).startswith(_PACKAGES)
            for target in node.targets:
                names = {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
                (functions if own else others).update(names)
    return functions - others


def _local_names(nodes: Sequence[ast.AST]) -> set[str]:
    names = {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    return names - _ROOTS.keys() - _FUNCTIONS
