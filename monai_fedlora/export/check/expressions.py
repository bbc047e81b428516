"""Which ``$`` expressions of a configuration are harmless.

MONAI evaluates them as Python. An expression that acts (loads the model, runs the engine, writes the table) must be one
of a few exact texts; one that finds or reads images may be built from a small set of names, attributes and operators.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

IMPORTS = frozenset({"import pathlib", "import PIL.Image as Image", "import PIL.ImageOps as ImageOps"})
"""The import statements that an exported configuration may hold."""

ACTIONS = frozenset(
    {
        "torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "@network_def.to(@device)",
        "@table.save(np.empty(0), {'filename_or_obj': @csv_header})",
        "@evaluator.run()",
    }
)
"""The expressions that do something, word for word."""

_LONGEST = 2000
_REFERENCE = re.compile(r"@\w*(?:::\w*)*")  # as MONAI finds them
_PLACEHOLDER = "_reference_"
_FUNCTIONS = frozenset({"getattr", "sorted", "str", "ValueError"})
_DOTTED = frozenset(
    {
        "Image.open",
        "ImageOps.exif_transpose",
        "monai.handlers.from_engine",
        "np.asarray",
        "np.float32",
        "pathlib.Path",
        "torch.cuda.is_available",
        "torch.device",
    }
)
_MODULES = frozenset(name.partition(".")[0] for name in _DOTTED)
_METHODS = frozenset({"convert", "count", "get", "glob", "lower", "repeat", "throw"})
_ATTRIBUTES = frozenset({"format", "mode", "n_frames", "name", "stem", "suffix", "tag_v2"})
_PARTS = (
    *(ast.Expression, ast.Lambda, ast.arguments, ast.arg, ast.Call, ast.keyword, ast.Attribute, ast.Name),
    *(ast.Load, ast.Store, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.SetComp, ast.GeneratorExp),
    *(ast.comprehension, ast.IfExp, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Add),
    *(ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Compare, ast.Eq, ast.In, ast.Subscript, ast.Slice),
)


def objection(expression: str) -> str | None:
    """Why an expression must not be evaluated; None where it may.

    Args:
        expression: the text after ``$``.
    """
    if expression in IMPORTS or expression in ACTIONS:
        return None
    if expression.lstrip().startswith(("import ", "from ")):
        return "imports what no exported configuration imports"
    if len(expression) > _LONGEST:
        return "is longer than any that is needed"
    if _PLACEHOLDER in expression or "#" in expression or "%" in expression:
        return "has characters that MONAI rewrites before it evaluates"
    # MONAI replaces references in the text itself, also inside of a string, where one could end the string.
    try:
        tree = ast.parse(_REFERENCE.sub(_PLACEHOLDER, expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "is no Python expression"
    return next(_objections(tree), None)


def _objections(tree: ast.Expression) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, _PARTS):
            yield f"uses {type(node).__name__}"
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if shadowed := local & (_FUNCTIONS | _MODULES | {_PLACEHOLDER}):
        yield f"gives another meaning to {', '.join(sorted(shadowed))}"
    roots: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = _dotted(node)
            if name in _DOTTED:
                roots |= set(ast.walk(node))
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if node in roots:
            continue
        if isinstance(node, ast.Attribute):
            if node.attr not in (_METHODS if node in called else _ATTRIBUTES):
                yield f"reaches for .{node.attr}"
        elif isinstance(node, ast.Name):
            if node.id not in local | {_PLACEHOLDER} and not (node.id in _FUNCTIONS and node in called):
                yield f"uses the name {node.id}"
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, (ast.Name, ast.Attribute, ast.Lambda)):
                yield "calls something without a name"
            if isinstance(node.func, ast.Name) and node.func.id == "getattr" and not _plain_getattr(node):
                yield "looks up an attribute that is not written out"
        elif isinstance(node, ast.Constant) and _PLACEHOLDER in str(node.value):
            yield "has a reference inside of a string"


def _plain_getattr(call: ast.Call) -> bool:
    if len(call.args) != 3 or call.keywords or not isinstance(call.args[1], ast.Constant):
        return False
    return call.args[1].value in _ATTRIBUTES


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
