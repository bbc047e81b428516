"""What a pickle inside of a model file would do, read from its opcodes without running them.

`pickletools` takes a pickle apart; it imports nothing of it and calls nothing.
"""

from __future__ import annotations

import io
import pickletools
import re

from monai_fedlora.errors import ExportError
from monai_fedlora.export.check.words import words

_STORAGES = frozenset(
    f"torch {kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
TENSOR_GLOBALS = _STORAGES | {
    "collections OrderedDict",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
}
"""What a state dictionary of plain tensors names."""

_SCRIPT_GLOBALS = frozenset(
    f"torch.jit._pickle {name}"
    for name in ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag")
)
_SCRIPT_CLASS = re.compile(r"__torch__\.(monai_fedlora|torch\.nn)\.[\w.]* \w+")

_DATA = words(
    """PROTO STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
    EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS
    BINGET LONG_BINGET BINPUT LONG_BINPUT BINPERSID GLOBAL REDUCE"""
)
_SCRIPT = _DATA | {"NEWOBJ", "BUILD"}  # TorchScript's own reader makes objects of the archive's own classes with them


def check_pickle(content: bytes, *, script: bool) -> None:
    """Refuse a pickle that names anything but tensors.

    Args:
        content: the pickle.
        script: whether it is of a TorchScript archive, which also names the classes it brings along.

    Raises:
        ExportError: it does, uses an opcode that torch does not write, or is damaged.
    """
    try:
        last = -1
        for opcode, argument, position in pickletools.genops(io.BytesIO(content)):
            last = position if position is not None else last
            if opcode.name not in (_SCRIPT if script else _DATA):
                raise ExportError(f"uses the pickle opcode {opcode.name}, which torch does not write")
            if opcode.name == "PROTO" and argument != 2:
                raise ExportError(f"is a pickle of protocol {argument}, not of torch's 2")
            if opcode.name == "GLOBAL" and not _is_known(str(argument), script=script):
                raise ExportError(f"names {str(argument).replace(' ', '.')!r}, which is no part of a tensor")
    except ExportError:
        raise
    except Exception as error:  # whatever damaged bytes make of the disassembler
        raise ExportError(f"is a damaged pickle ({type(error).__name__}: {error})") from error
    if last != len(content) - 1:
        raise ExportError("carries bytes behind its pickle")


def _is_known(name: str, *, script: bool) -> bool:
    if name in TENSOR_GLOBALS:
        return True
    return script and (name in _SCRIPT_GLOBALS or _SCRIPT_CLASS.fullmatch(name) is not None)
