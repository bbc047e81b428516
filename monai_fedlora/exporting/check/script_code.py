"""Check that the code inside a TorchScript archive only computes.

TorchScript stores its functions as Python text, which its own compiler reads when the archive is loaded. Python never
runs it, but its operators include some that read and write files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from monai_fedlora.exporting.check.operators import ARITHMETIC, PRIMITIVES, SCRIPTING, is_huge, is_too_large
from monai_fedlora.exporting.check.script_types import annotated
from monai_fedlora.exporting.check.words import words

_PARTS = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.AnnAssign, ast.Assign, ast.Return),
    *(ast.If, ast.For, ast.Expr, ast.Pass, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Subscript),
    *(ast.Load, ast.Store, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.USub, ast.IfExp),
)
_TYPES = words("Device Dict Final List Module NamedTuple NoneType Optional Tensor Tuple bool float int number str")
_FUNCTIONS = words("annotate bool float getattr int range str unchecked_cast uninitialized")
_OWN = frozenset({"CONSTANTS", "__annotations__", "__torch__", "inf", "nan"})
_CAST = re.compile(r"(List\[)?(Tensor|bool|float|int|str)\]?")
"""Types to which ``unchecked_cast`` may convert: torch checks these again wherever the value is used. It does not check
the class of an object, and would read attributes at the wrong place in memory."""
_METHOD = re.compile("assess(_together)?|forward[0-9]*|unknown")
_PACKAGES = ("__torch__.monai_fedlora.", "__torch__.torch.nn.")  # other names could be classes written in C++
_TORCH = ARITHMETIC | SCRIPTING
_KEYWORDS = words("alpha approximate beta correction device dtype layout memory_format pin_memory rounding_mode scale")
"""Permitted keyword arguments. Torch writes keyword-only arguments by name; others of these, such as ``out``,
``values`` and ``max``, are tensors to which the result is written."""
_MOST_ROUNDS = 10_000
_ROOTS = {
    "torch": frozenset(f"torch.{name}" for name in _TORCH),
    "ops": frozenset(
        {*(f"ops.prim.{name}" for name in PRIMITIVES), *(f"ops.aten.{name}" for name in ARITHMETIC | SCRIPTING)}
    ),
}


def code_objection(text: str) -> str | None:
    """Why a file of TorchScript code must not be loaded; None if it may.

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
        elif isinstance(node, ast.Assign) and not all(map(_is_plain_target, node.targets)):
            yield f"changes {ast.unparse(node.targets[0])[:80]} in place"
        elif isinstance(node, ast.Constant) and is_too_large(node.value):
            yield "has a number that is larger than any size"
        if isinstance(node, ast.FunctionDef):
            for loop in (part for part in ast.walk(node) if isinstance(part, ast.For)):
                yield from _loop_objections(loop, node)
        if isinstance(node, ast.Call):
            yield from _call_objections(node)
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            if not isinstance(node.func, ast.Name) or node.func.id not in functions:
                yield f"calls {ast.unparse(node.func)[:80]}, which is no function of the archive"
            elif node.func.id == "getattr" and not (len(node.args) == 2 and isinstance(node.args[1], ast.Constant)):
                yield "looks up an attribute that is not written out"


def _call_objections(call: ast.Call) -> Iterator[str]:
    """Object to results that are written into an existing tensor, to unchecked casts of objects, and to huge tensors.

    Sizes are only checked if they are literal numbers; computed ones show when the model runs.
    """
    for keyword in call.keywords:
        if keyword.arg not in _KEYWORDS:
            yield f"gives {keyword.arg} by name"
    if isinstance(call.func, ast.Name) and call.func.id == "unchecked_cast":
        kind = ast.unparse(call.args[0]) if call.args else "nothing"
        if not _CAST.fullmatch(kind):
            yield f"takes a value for {kind[:80]} without a look at it"
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    numbers = [part.value for given in call.args for part in ast.walk(given) if isinstance(part, ast.Constant)]
    if is_huge(name, numbers):
        yield f"makes a tensor that nobody has room for with {name}"


def _loop_objections(loop: ast.For, function: ast.FunctionDef) -> Iterator[str]:
    """Object to nested loops, and to loops over anything but a small range, a length or a number of dimensions."""
    if any(isinstance(part, ast.For) for part in ast.walk(loop) if part is not loop):
        yield "has a loop inside of a loop"
    rounds = loop.iter
    if not (isinstance(rounds, ast.Call) and isinstance(rounds.func, ast.Name) and rounds.func.id == "range"):
        yield "has a loop over something other than a range"
        return
    end = rounds.args[0] if len(rounds.args) == 1 and not rounds.keywords else None
    if isinstance(end, ast.Name):
        given = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and any(isinstance(part, ast.Name) and part.id == end.id for to in node.targets for part in ast.walk(to))
        ]
        taken = {part.arg for part in ast.walk(function) if isinstance(part, ast.arg)}
        bounded = bool(given) and end.id not in taken and all(map(_is_number_of_dimensions, given))
    elif isinstance(end, ast.Constant):
        bounded = type(end.value) is int and end.value <= _MOST_ROUNDS
    else:
        bounded = end is not None and _calls(end, "torch.len")
    if not bounded:
        yield "has a loop without a known end"


def _is_number_of_dimensions(value: ast.expr) -> bool:
    """Whether this is ``torch.dim(x)``, or less by a constant."""
    if _calls(value, "torch.sub") and isinstance(value, ast.Call) and len(value.args) == 2:
        less = value.args[1].value if isinstance(value.args[1], ast.Constant) else None
        return _calls(value.args[0], "torch.dim") and type(less) is int and less >= 0
    return _calls(value, "torch.dim")


def _calls(value: ast.expr, name: str) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == name and not value.keywords


def _is_plain_target(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return all(map(_is_plain_target, target.elts))
    return isinstance(target, ast.Name) or annotated(target) is not None


def _chain_objections(text: str, root: ast.AST, *, called: bool) -> Iterator[str]:
    """Object to names such as ``torch.save`` and ``ops.aten.from_file``, and to methods of values."""
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
    """The attributes of a chain ``a.b.c``, and its root (a constant if the root is no name)."""
    while isinstance(node, ast.Attribute):
        yield node
        node = node.value
    if isinstance(node, ast.Name):
        yield node
    else:
        yield ast.Constant(None)


def _names_of_functions(nodes: Sequence[ast.AST]) -> set[str]:
    """Variables to which only functions of the archive are assigned."""
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
