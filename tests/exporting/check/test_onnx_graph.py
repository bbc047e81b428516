"""ONNX files, encoded by hand as protocol buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.exporting.check.onnx_graph import onnx_problems


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def node(domain: bytes = b"", extra: bytes = b"") -> bytes:
    return message(1, message(1, b"x") + message(2, b"y") + message(4, b"Add") + message(7, domain) + extra)


TENSOR = number(1, 2) + number(2, 1) + message(8, b"w") + message(9, bytes(8))
GRAPH = node() + message(2, b"graph") + message(5, TENSOR)


def model(graph: bytes = GRAPH, extra: bytes = b"") -> bytes:
    return (
        number(1, 10) + message(2, b"pytorch") + message(7, graph) + message(8, message(1, b"") + number(2, 18)) + extra
    )


def problems(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return list(onnx_problems(path))


def test_standard_operators_and_stored_tensors_pass(tmp_path: Path) -> None:
    assert problems(tmp_path / "model.onnx", model()) == []
    assert problems(tmp_path / "model.onnx", model(node(b"ai.onnx") + GRAPH)) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (model(node(b"com.evil")), "operator of 'com.evil'"),
        (model(extra=message(8, message(1, b"com.evil"))), "operators of 'com.evil'"),
        (model(extra=message(25, b"")), "functions"),
        (model(extra=message(20, b"")), "functions"),
        (model(message(5, TENSOR + message(13, b"../secret"))), "in another file"),
        (model(message(5, TENSOR + number(14, 1))), "in another file"),
        (model(node(extra=message(5, message(5, TENSOR + number(14, 1))))), "in another file"),
        (model(node(extra=message(5, message(6, node(b"com.evil"))))), "operator of 'com.evil'"),
        (model(message(15, b"")), "sparse"),
        (model(extra=message(7, GRAPH)), "exactly one graph"),
        (b"", "exactly one graph"),
        (b"\x80", "no sound ONNX file"),
        (b"\x80" * 20, "no sound ONNX file"),
        (b"\x0b", "no sound ONNX file"),
        (message(7, b"")[:-1] + b"\x09", "no sound ONNX file"),
        (number(7, 3), "no sound ONNX file"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in problems(tmp_path / "model.onnx", content)[0]


def test_endless_nesting_ends(tmp_path: Path) -> None:
    graph = GRAPH
    for _ in range(50):
        graph = node(extra=message(5, message(6, graph)))
    assert problems(tmp_path / "model.onnx", model(graph)) == ["is no sound ONNX file"]


@given(st.binary() | st.binary(max_size=20).map(lambda content: model(content)))
def test_no_bytes_crash_the_check(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    problems(tmp_path_factory.mktemp("o") / "model.onnx", content)
