"""Check that an ONNX file uses standard operators only, and holds all of its tensors.

The file is a protocol buffer. Its parts are found by their field numbers (onnx.proto of ONNX 1.x), so that the package
onnx is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_fedlora.errors import ExportError

_LARGEST = 2 << 30
_DEEPEST = 20
_STANDARD = ("", "ai.onnx")

_GRAPH, _OPSET, _FUNCTION, _TRAINING = 7, 8, 25, 20
_NODE, _INITIALISER, _SPARSE = 1, 5, 15
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11
_EXTERNAL, _LOCATION = 13, 14


def onnx_problems(path: Path) -> Iterator[str]:
    """Problems of an ONNX file: operators of other domains, functions of its own, or tensors in other files."""
    if path.stat().st_size > _LARGEST:
        yield "is larger than a protocol buffer can be"
        return
    try:
        yield from _model_problems(memoryview(path.read_bytes()))
    except (ExportError, IndexError, UnicodeDecodeError):
        yield "is no sound ONNX file"


def _model_problems(model: memoryview) -> Iterator[str]:
    graphs = 0
    for number, value in _fields(model):
        if number == _GRAPH:
            graphs += 1
            yield from _graph_problems(_message(value), _DEEPEST)
        elif number == _OPSET:
            yield from _domain_problems(_message(value), 1, "uses operators")
        elif number in (_FUNCTION, _TRAINING):
            yield "brings functions or training steps of its own"
    if graphs != 1:
        yield "does not hold exactly one graph"


def _graph_problems(graph: memoryview, depth: int) -> Iterator[str]:
    if not depth:
        raise ExportError("nested too deeply")
    for number, value in _fields(graph):
        if number == _NODE:
            node = _message(value)
            yield from _domain_problems(node, _DOMAIN, "calls an operator")
            for field, attribute in _fields(node):
                if field == _ATTRIBUTE:
                    yield from _attribute_problems(_message(attribute), depth)
        elif number == _INITIALISER:
            yield from _tensor_problems(_message(value))
        elif number == _SPARSE:
            yield "holds a sparse tensor"


def _attribute_problems(attribute: memoryview, depth: int) -> Iterator[str]:
    for number, value in _fields(attribute):
        if number in (_SUBGRAPH, _SUBGRAPHS):
            yield from _graph_problems(_message(value), depth - 1)
        elif number in (_TENSOR, _TENSORS):
            yield from _tensor_problems(_message(value))


def _tensor_problems(tensor: memoryview) -> Iterator[str]:
    if any(number == _EXTERNAL or (number == _LOCATION and value) for number, value in _fields(tensor)):
        yield "keeps a tensor in another file"


def _domain_problems(message: memoryview, field: int, what: str) -> Iterator[str]:
    for number, value in _fields(message):
        if number == field and (domain := bytes(_message(value)).decode("utf-8")) not in _STANDARD:
            yield f"{what} of {domain[:80]!r}, not of ONNX itself"


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ExportError("a number in place of a message")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of every field: integers as they are, everything else as bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ExportError("an unknown kind of field")
        if place + size > len(message):
            raise ExportError("a field beyond the end")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place
    raise ExportError("a number that does not end")
