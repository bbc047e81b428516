"""Check that the model files of a bundle hold tensors and arithmetic only."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.check.findings import Finding, first_problems
from monai_fedlora.exporting.check.inference import same_json
from monai_fedlora.exporting.check.model_tensors import (
    Tensors,
    differing,
    named_views,
    program_views,
    record_problems,
    unreferenced,
)
from monai_fedlora.exporting.check.onnx_graph import onnx_problems
from monai_fedlora.exporting.check.pickles import Instance, parts, read_pickle
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.exporting.check.plain_zip import Limits, open_archive, read_member
from monai_fedlora.exporting.check.program import graph_problems, table_problems
from monai_fedlora.exporting.check.script_code import code_objection
from monai_fedlora.exporting.check.script_types import declared_types, type_problems
from monai_fedlora.exporting.check.views import View
from monai_fedlora.exporting.check.words import shortened

_MEMBERS_AT_MOST, _SIZE_AT_MOST = 100_000, 32 << 30
_TEXT = 64 << 20  # bytes of the largest text or pickle; tensors are separate members
_CODE = 4 << 20  # of the largest file of TorchScript code
_PLAIN = "models/model.pt"
_QUALIFIED = re.compile(r"__torch__(?:\.\w+)+")
_NOTES = {
    "version": re.compile(rb"[0-9]{1,6}\n?"),
    "byteorder": re.compile(rb"little"),
    "serialization_id": re.compile(rb"[0-9]{1,40}"),
    ".format_version": re.compile(rb"[0-9]{1,6}"),
    ".storage_alignment": re.compile(rb"[0-9]{1,6}"),
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"[0-9]{1,6}"),
}
"""The content of small members, by name."""
_COMMON = r"version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
_MEMBERS = {
    "models/model.pt": re.compile(rf"data\.pkl|data/[0-9]+|{_COMMON}"),
    "models/model.ts": re.compile(
        rf"(data|constants)\.pkl|(data|constants)/[0-9]+|extra/(inference|metadata)\.json|{_COMMON}"
        r"|code/__torch__/(monai_fedlora|torch/nn)/[\w/]+\.py"
    ),
    "models/model.pt2": re.compile(
        rf"archive_(format|version)|models/model\.json|data/sample_inputs/model\.pt|extra/metadata\.json|{_COMMON}"
        r"|data/(weights/weight|constants/tensor)_[0-9]+|data/(weights|constants)/model_(weights|constants)_config\.json"
    ),
}


def check_models(contents: Contents) -> Iterator[Finding]:
    """Every model file consists of tensors and arithmetic, contains the bundle's texts, and has the same weights."""
    weights: dict[str, Tensors] = {}
    for name in contents.files:
        problems = first_problems(_file_problems(contents, name, weights))
        if problems:
            weights.pop(name, None)
        yield from (Finding(rule="models", file=name, problem=problem) for problem in problems)
    for name in sorted(weights.keys() - {_PLAIN}) if _PLAIN in weights else ():
        with contents.path(_PLAIN).open("rb") as first, contents.path(name).open("rb") as second:
            problems = first_problems(differing(first, weights[_PLAIN], second, weights[name]))
        yield from (Finding(rule="models", file=name, problem=problem) for problem in problems)


def _file_problems(contents: Contents, name: str, weights: dict[str, Tensors]) -> Iterator[str]:
    """Problems of a file, none of one that is no model; puts the tensors of a model into ``weights``."""
    if name.endswith(".onnx"):
        yield from onnx_problems(contents.path(name))
    elif name in _MEMBERS:
        with contents.path(name).open("rb") as stream:
            yield from _archive_problems(stream, name, contents, weights)


def _archive_problems(stream: IO[bytes], name: str, contents: Contents, weights: dict[str, Tensors]) -> Iterator[str]:
    limits = Limits(members=_MEMBERS_AT_MOST, size=_SIZE_AT_MOST, stored=not name.endswith(".ts"), exact=True)
    with open_archive(stream, limits) as archive:
        roots = {member.partition("/")[0] for member in archive.namelist()}
        if len(roots) != 1:
            yield "does not hold exactly one folder, as torch writes it"
            return
        folder = f"{roots.pop()}/"
        known = True
        for member in archive.infolist():
            inner = member.filename.removeprefix(folder)
            packed = member.compress_type != zipfile.ZIP_STORED
            if not _MEMBERS[name].fullmatch(inner) or (packed and not inner.endswith(".py")):
                yield f"holds {inner[:100]}, which torch does not write so for a bundle"
                known = False
                continue
            try:
                yield from _member_problems(archive, member.filename, inner, contents)
            except ExportError as error:
                yield f"{inner} {error}"
                known = False
        if known:
            yield from (_program_tensors if name.endswith(".pt2") else _pickled_tensors)(archive, folder, name, weights)


def _member_problems(archive: zipfile.ZipFile, member: str, inner: str, contents: Contents) -> Iterator[str]:
    def content(limit: int = _TEXT) -> bytes:
        return read_member(archive, member, limit)

    if inner.endswith(".py"):
        if reason := code_objection(_decoded(content(_CODE))):
            yield f"{inner} {reason}"
    elif inner.startswith("extra/"):
        twin = f"configs/{inner.removeprefix('extra/')}"
        same = twin in contents.files and same_json(read_plain_json(content()), read_plain_json(contents.read(twin)))
        if not same:
            yield f"carries another {inner.removeprefix('extra/')} than the bundle"
    elif inner == "data/sample_inputs/model.pt":
        if content():
            yield "carries an example image, which could be a pickle of anything"
    elif inner.endswith(".json"):
        problems: Callable[[Any], Iterator[str]] = graph_problems if inner == "models/model.json" else table_problems
        yield from (f"{inner} {problem}" for problem in problems(read_plain_json(content())))
    elif (expected := _NOTES.get(inner.rpartition("/")[2])) and not expected.fullmatch(content(100)):
        yield f"{inner} says {shortened(content(100))}, which torch does not write"


def _pickled_tensors(archive: zipfile.ZipFile, folder: str, name: str, weights: dict[str, Tensors]) -> Iterator[str]:
    """Check the pickles of an archive, and collect its tensors."""
    script, members = name.endswith(".ts"), archive.namelist()
    found = {}
    for part in ("data", "constants") if script else ("data",):
        if f"{folder}{part}.pkl" not in members:
            yield f"has no {part}.pkl"
            return
        try:
            pickled = read_pickle(read_member(archive, f"{folder}{part}.pkl", _TEXT), script=script)
        except ExportError as error:
            yield f"{part}.pkl {error}"
            return
        yield from record_problems(archive, f"{folder}{part}/", pickled.storages)
        yield from unreferenced(archive, f"{folder}{part}/", set(pickled.storages))
        found[part] = pickled.value
    if script:
        yield from _script_problems(archive, folder, found)
    elif not isinstance(found["data"], dict) or not all(isinstance(part, View) for part in found["data"].values()):
        yield "data.pkl holds something other than tensors by name"
    weights[name] = Tensors(views=named_views(found["data"]), folder=f"{folder}data/")


def _script_problems(archive: zipfile.ZipFile, folder: str, found: dict[str, Any]) -> Iterator[str]:
    """Check that the objects have the declared types, and that all code is used."""
    if not isinstance(found["data"], Instance):
        yield "data.pkl holds something other than a module"
    if not isinstance(found["constants"], tuple) or not all(isinstance(part, View) for part in found["constants"]):
        yield "constants.pkl holds something other than tensors"
    texts = {
        member.removeprefix(f"{folder}code/").removesuffix(".py").replace("/", "."): _decoded(archive.read(member))
        for member in archive.namelist()
        if member.endswith(".py")
    }
    try:
        declared = {name: kinds for module in texts for name, kinds in declared_types(texts[module], module).items()}
    except SyntaxError:  # reported by the check of the code
        return
    yield from type_problems(found["data"], declared)
    named = {part.name for part in parts(found["data"]) if isinstance(part, Instance)}
    named |= {name for text in texts.values() for name in _QUALIFIED.findall(text)}
    for module in texts.keys() - {name.rpartition(".")[0] for name in named}:
        yield f"holds the code {module}, which nothing uses"


def _program_tensors(archive: zipfile.ZipFile, folder: str, name: str, weights: dict[str, Tensors]) -> Iterator[str]:
    """Check the two tables of tensors of a program, and collect its weights."""
    for part in ("weights", "constants"):
        place = f"{folder}data/{part}/"
        table = f"{place}model_{part}_config.json"
        if table not in archive.namelist():
            yield f"has no table of its {part}"
            return
        sizes = {
            member.filename.removeprefix(place): member.file_size
            for member in archive.infolist()
            if member.filename.startswith(place) and member.filename != table
        }
        try:
            views = program_views(read_plain_json(read_member(archive, table, _TEXT)), sizes)
        except ExportError as error:
            yield f"the table of its {part} {error}"
            return
        for key in sizes.keys() - {view.storage.key for view in views.values()}:
            yield f"has a record {key[:80]} that no tensor lies in"
        if part == "weights":
            weights[name] = Tensors(views=views, folder=place)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"is no text ({error})") from error
