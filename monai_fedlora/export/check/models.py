"""Whether the model files of a bundle hold tensors and arithmetic alone."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from monai_fedlora.errors import ExportError
from monai_fedlora.export.check.archive import Limits, open_archive, read_member
from monai_fedlora.export.check.contents import Contents
from monai_fedlora.export.check.findings import Finding
from monai_fedlora.export.check.onnx_graph import onnx_problems
from monai_fedlora.export.check.pickles import check_pickle
from monai_fedlora.export.check.plain_json import read_plain_json
from monai_fedlora.export.check.program import graph_problems, table_problems
from monai_fedlora.export.check.script_code import code_objection

_MEMBERS_AT_MOST, _SIZE_AT_MOST = 100_000, 32 << 30
_TEXT = 64 << 20  # bytes of the largest text or pickle; tensors lie in members of their own
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
    """Every model file is made of tensors and arithmetic, and carries the same texts as the bundle."""
    for name in contents.files:
        if name in _MEMBERS:
            try:
                with contents.path(name).open("rb") as stream:
                    problems = list(_archive_problems(stream, name, contents))
            except ExportError as error:
                problems = [str(error)]
        elif name.endswith(".onnx"):
            problems = list(onnx_problems(contents.path(name)))
        else:
            continue
        for problem in problems:
            yield Finding(rule="models", file=name, problem=problem)


def _archive_problems(stream: IO[bytes], name: str, contents: Contents) -> Iterator[str]:
    limits = Limits(members=_MEMBERS_AT_MOST, size=_SIZE_AT_MOST, stored=not name.endswith(".ts"))
    with open_archive(stream, limits) as archive:
        roots = {member.partition("/")[0] for member in archive.namelist()}
        if len(roots) != 1:
            yield "does not hold exactly one folder, as torch writes it"
        for member in archive.namelist():
            inner = member.partition("/")[2]
            if not _MEMBERS[name].fullmatch(inner):
                yield f"holds {inner[:100]}, which torch does not write for a bundle"
                continue
            try:
                yield from _member_problems(archive, member, inner, name, contents)
            except ExportError as error:
                yield f"{inner} {error}"


def _member_problems(archive: zipfile.ZipFile, member: str, inner: str, name: str, contents: Contents) -> Iterator[str]:
    def content() -> bytes:
        return read_member(archive, member, _TEXT)

    if inner.endswith(".pkl"):
        check_pickle(content(), script=name.endswith(".ts"))
    elif inner.endswith(".py"):
        if reason := code_objection(_decoded(content())):
            yield f"{inner} {reason}"
    elif inner.startswith("extra/"):
        twin = f"configs/{inner.removeprefix('extra/')}"
        if twin not in contents.files or read_plain_json(content()) != read_plain_json(contents.read(twin)):
            yield f"carries another {inner.removeprefix('extra/')} than the bundle"
    elif inner == "data/sample_inputs/model.pt":
        if content():
            yield "carries an example image, which could be a pickle of anything"
    elif inner.endswith(".json"):
        problems: Callable[[Any], Iterator[str]] = graph_problems if inner == "models/model.json" else table_problems
        yield from (f"{inner} {problem}" for problem in problems(read_plain_json(content())))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"is no text ({error})") from error
