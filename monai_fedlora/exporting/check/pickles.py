"""Find out what a pickle inside a model file would build, without unpickling it.

`pickletools` lists the opcodes of a pickle without importing or calling anything. Their effect is simulated here with
plain values. Torch has two readers of such pickles, in Python and in C++. The second does not validate: it reads memory
wherever a tensor claims to lie, and takes a number for a function. So every storage must have the size of its record,
every tensor must lie within its storage, and every value must have the expected type.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.views import Storage, View
from monai_fedlora.exporting.check.words import shortened, words

_ITEMS = {
    "torch DoubleStorage": 8, "torch LongStorage": 8, "torch FloatStorage": 4, "torch IntStorage": 4,
    "torch HalfStorage": 2, "torch BFloat16Storage": 2, "torch ShortStorage": 2, "torch CharStorage": 1,
    "torch ByteStorage": 1, "torch BoolStorage": 1,
}  # fmt: skip
"""Bytes per element, by name of the storage."""

_TENSOR, _PARAMETER, _ORDERED = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    ("collections OrderedDict"),
)
_LISTS: dict[str, type | tuple[type, ...]] = {
    "torch.jit._pickle build_boollist": bool,
    "torch.jit._pickle build_doublelist": float,
    "torch.jit._pickle build_intlist": int,
    "torch.jit._pickle build_tensorlist": View,
}
_SCRIPT_CLASS = re.compile(r"__torch__\.(monai_fedlora|torch\.nn)\.[\w.]* \w+")
_DATA = words(
    """PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT BINPERSID
    GLOBAL REDUCE"""
)
_SCRIPT = _DATA | {"NEWOBJ", "BUILD"}  # for objects of the archive's own classes


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An object of one of an archive's own classes.

    Attributes:
        name: of the class, as in "__torch__.monai_fedlora.networks.vit.Block".
        attributes: their values by name.
    """

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """The content of a pickle.

    Attributes:
        value: None, numbers, strings, tuples, lists, dictionaries, :class:`View` and :class:`Instance`.
        storages: every storage that it refers to, by the name of its record.
    """

    value: Any
    storages: Mapping[str, Storage]


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Unbuilt:
    name: str


@dataclass(kw_only=True)
class _Machine:
    """The state of the simulated unpickler."""

    script: bool
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ExportError("takes more from its stack than there is")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise ExportError("has no mark where one is needed")
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def put(self, key: int) -> None:
        value = self.pop()
        if isinstance(value, _Unbuilt):
            raise ExportError("uses an object before it is built")
        self.memo[key] = value
        self.stack.append(value)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise ExportError("uses a value that it has not made")
        self.stack.append(self.memo[key])

    def name(self, text: str) -> None:
        known = text in _ITEMS or text in (_TENSOR, _PARAMETER, _ORDERED) or (self.script and text in _LISTS)
        if not known and not (self.script and _SCRIPT_CLASS.fullmatch(text)):
            raise ExportError(f"names {text.replace(' ', '.')!r}, which is no part of a tensor")
        self.stack.append(_Name(text))

    def storage(self) -> None:
        found = self.pop()
        if not _is(found, "storage", _Name, str, str, int) or found[1].text not in _ITEMS:
            raise ExportError(f"asks for {shortened(found)}, which is no storage of a tensor")
        if found[3] != "cpu" or not re.fullmatch("[0-9]{1,9}", found[2]):
            raise ExportError(f"asks for a storage called {shortened(found[2])} on {shortened(found[3])}")
        storage = Storage(key=found[2], kind=found[1].text, item=_ITEMS[found[1].text], count=found[4])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ExportError(f"says two different things of the storage {storage.key}")
        self.stack.append(storage)

    def call(self) -> None:
        given, function = self.pop(), self.pop()
        name = function.text if isinstance(function, _Name) else None
        if name == _ORDERED and given == ():
            self.stack.append({})
        elif name == _TENSOR and _is(given, Storage, int, tuple, tuple, bool, dict) and not given[5]:
            self.stack.append(View(storage=given[0], offset=given[1], size=given[2], stride=given[3]))
        elif name == _PARAMETER and not self.script and _is(given, View, bool, dict) and not given[2]:
            self.stack.append(given[0])
        elif name in _LISTS and _is(given, list) and all(_of(part, _LISTS[name]) for part in given[0]):
            self.stack.append(list(given[0]))
        else:
            raise ExportError(f"calls {shortened(name)} in a way that torch does not")

    def make(self) -> None:
        given, kind = self.pop(), self.pop()
        if given != () or not isinstance(kind, _Name) or not _SCRIPT_CLASS.fullmatch(kind.text):
            raise ExportError("makes an object of something that is no class of the archive")
        self.stack.append(_Unbuilt(kind.text.replace(" ", ".")))

    def build(self) -> None:
        state, made = self.pop(), self.pop()
        if not isinstance(made, _Unbuilt) or not isinstance(state, dict):
            raise ExportError("builds something that is no object of the archive")
        self.stack.append(Instance(name=made.name, attributes=dict(state)))

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(values) % 2:
            raise ExportError("fills something that is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise ExportError(f"has the key {shortened(key)} twice, or one that is no text")
            target[key] = value

    def extend(self, values: list[Any]) -> None:
        if not self.stack or not isinstance(self.stack[-1], list):
            raise ExportError("fills something that is no list")
        self.stack[-1].extend(values)


_DO: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "STOP": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.stack.append((m.pop(),)),
    "TUPLE2": lambda m, _: m.stack.append((m.pop(), m.pop())[::-1]),
    "TUPLE3": lambda m, _: m.stack.append((m.pop(), m.pop(), m.pop())[::-1]),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "BINGET": lambda m, key: m.get(key),
    "LONG_BINGET": lambda m, key: m.get(key),
    "BINPUT": lambda m, key: m.put(key),
    "LONG_BINPUT": lambda m, key: m.put(key),
    "GLOBAL": lambda m, name: m.name(name),
    "BINPERSID": lambda m, _: m.storage(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.make(),
    "BUILD": lambda m, _: m.build(),
}
"""Effect of each opcode; one that is missing here pushes its argument."""


def read_pickle(content: bytes, *, script: bool) -> Pickled:
    """Simulate the unpickling of a pickle.

    Args:
        content: the pickle.
        script: whether it belongs to a TorchScript archive, which may have objects of its own classes.

    Raises:
        ExportError: it refers to anything but tensors, has a tensor that exceeds its storage, uses an opcode that torch
            does not write, or is damaged.
    """
    machine = _Machine(script=script)
    try:
        last = -1
        for opcode, argument, position in pickletools.genops(io.BytesIO(content)):
            last = position if position is not None else last
            if opcode.name not in (_SCRIPT if script else _DATA):
                raise ExportError(f"uses the pickle opcode {opcode.name}, which torch does not write")
            if opcode.name == "PROTO" and (argument != 2 or position):
                raise ExportError(f"is a pickle of protocol {argument}, not of torch's 2")
            do = _DO.get(opcode.name)
            machine.stack.append(argument) if do is None else do(machine, argument)
    except ExportError:
        raise
    except Exception as error:  # whatever damaged bytes make of the disassembler
        raise ExportError(f"is a damaged pickle ({type(error).__name__}: {error})") from error
    if last != len(content) - 1:
        raise ExportError("carries bytes behind its pickle")
    if len(machine.stack) != 1 or machine.marks:
        raise ExportError("is a damaged pickle (it does not end in one value)")
    (value,) = machine.stack
    for part in parts(value):
        if isinstance(part, (_Name, _Unbuilt, Storage)):
            raise ExportError("has a name where a value belongs")
    return Pickled(value=value, storages=machine.storages)


def parts(value: Any) -> Iterator[Any]:
    """A value and everything in it, each once."""
    stack, seen = [value], set()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        yield part
        inner = part.attributes if isinstance(part, Instance) else part
        if isinstance(inner, (tuple, list, dict)):
            seen.add(id(part))
            stack += inner.values() if isinstance(inner, dict) else inner


def _is(value: Any, *expected: Any) -> bool:
    """Whether a value is a tuple of these types, or of these strings."""
    if not isinstance(value, tuple) or len(value) != len(expected):
        return False
    return all(
        part == kind if isinstance(kind, str) else _of(part, kind) for part, kind in zip(value, expected, strict=True)
    )


def _of(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value has a type; a bool does not count as an int."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
