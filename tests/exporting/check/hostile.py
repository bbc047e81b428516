"""Bundles that somebody made to harm whoever loads them: what is changed, and what refuses it.

Every change starts from an honest bundle on photographs. The checksums, the list of digests in the metadata and the
texts inside of the models are brought in line afterwards, as somebody would who knows how a bundle is checked.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.files import sha256
from tests.exporting.check.tampering import SYSTEM_CALL, change_archive, change_json

Change = Callable[[Path], Any]


def conform(bundle: Path, *, texts: bool = True) -> None:
    """Let every digest, and with ``texts`` every repeated text, agree again, as far as the files can be read."""
    models, metadata = bundle / "models", bundle / "configs" / "metadata.json"

    def digest(content: Any) -> None:
        content["provenance"]["files_sha256"] = {"models/model.pt": sha256(models / "model.pt")}

    try:
        if not texts:
            raise ValueError("left as they are")
        change_json(metadata, digest)
        for name, inside in (("model.ts", ("metadata", "inference")), ("model.pt2", ("metadata",))):
            wanted = {f"extra/{text}.json": (bundle / "configs" / f"{text}.json").read_bytes() for text in inside}
            with zipfile.ZipFile(models / name) as archive:
                found = {key: archive.read(f"archive/{key}") for key in wanted}
            if {key: json.loads(text) for key, text in found.items()} != {
                key: json.loads(text) for key, text in wanted.items()
            }:
                change_archive(models / name, lambda members, wanted=wanted: members.update(wanted))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, RuntimeError):
        pass
    if all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in bundle.rglob("*")):
        write_checksums(bundle)


def config(change: Callable[[Any], Any]) -> Change:
    return lambda bundle: change_json(bundle / "configs" / "inference.json", change)


def metadata(change: Callable[[Any], Any]) -> Change:
    return lambda bundle: change_json(bundle / "configs" / "metadata.json", change)


def raw(name: str, content: bytes) -> Change:
    return lambda bundle: (bundle / name).write_bytes(content)


def members(name: str, change: Callable[[dict[str, bytes]], Any]) -> Change:
    return lambda bundle: change_archive(bundle / "models" / name, change)


def member(name: str, key: str, content: bytes) -> Change:
    return members(name, lambda found: found.__setitem__(key, content))


def edited(name: str, key: str, change: Callable[[bytes], bytes]) -> Change:
    """Change one member; it has to become another."""

    def apply(found: dict[str, bytes]) -> None:
        content = change(found[key])
        assert content != found[key]
        found[key] = content

    return members(name, apply)


def code(line: str) -> Change:
    """Let the first thing the scripted model does be ``line``."""

    def apply(found: dict[str, bytes]) -> None:
        key = next(
            key for key in found if re.fullmatch(r"code/__torch__/monai_fedlora/exporting/photograph_modality\.py", key)
        )
        text = found[key].decode()
        head, start, rest = text.partition("    image: Tensor) -> Tensor:\n")
        assert start
        found[key] = f"{head}{start}    {line}\n{rest}".encode()

    return members("model.ts", apply)


def graph(change: Callable[[Any], Any]) -> Change:
    def apply(content: bytes) -> bytes:
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return edited("model.pt2", "models/model.json", apply)


def first_node(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"][3]


def first_size(value: Any) -> Any:
    """The first symbolic size of a program."""
    if isinstance(value, dict) and "expr_str" in value:
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := first_size(part)) is not None), None)


def table(change: Callable[[Any], Any]) -> Change:
    def apply(content: bytes) -> bytes:
        value = json.loads(content)
        change(next(iter(value["config"].values())))
        return json.dumps(value).encode()

    return edited("model.pt2", "data/weights/model_weights_config.json", apply)


def larger_storage(content: bytes) -> bytes:
    """Let the pickle ask for 65,535 elements of the storage that has the most of them with a number of two bytes."""
    place = content.index(b"M", content.index(b"FloatStorage"))
    return content[:place] + b"M\xff\xff" + content[place + 3 :]


def larger_tensor(content: bytes) -> bytes:
    """Let the first tensor begin behind the end of its storage."""
    place = content.index(b"QK\x00") if b"QK\x00" in content else re.search(rb"Q(q.|r....)K\x00", content).end() - 2  # type: ignore[union-attr]
    return content[:place] + content[place:].replace(b"K\x00", b"K\xff", 1)


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Change:
    def apply(bundle: Path) -> None:
        path = bundle / "models" / name
        path.write_bytes(change(path.read_bytes()))

    return apply


def comment(bundle: Path) -> None:
    with zipfile.ZipFile(bundle / "models" / "model.pt", "a") as archive:
        archive.comment = b"a secret"


def rezipped(name: str, change: Callable[[zipfile.ZipInfo], Any]) -> Change:
    """Write an archive again, with every entry changed."""

    def apply(bundle: Path) -> None:
        path = bundle / "models" / name
        with zipfile.ZipFile(path) as archive:
            entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in entries:
                new = zipfile.ZipInfo(entry.filename)
                change(new)
                archive.writestr(new, content)

    return apply


def twice(bundle: Path) -> None:
    with zipfile.ZipFile(bundle / "models" / "model.pt", "a") as archive:
        archive.writestr("archive/DATA.pkl", archive.read("archive/data.pkl"))


def deflated(bundle: Path) -> None:
    path = bundle / "models" / "model.ts"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/code/__torch__/monai_fedlora/bomb.py", b" " * (64 << 20))


def other_name(content: bytes) -> bytes:
    """Let the first local header name another file than the directory does."""
    return content.replace(b"archive/data.pkl", b"archive/evil.pkl", 1)


def hidden(content: bytes) -> bytes:
    """Put bytes between the members and the directory, and let the directory be found behind them."""
    end = content.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<L", content, end + 16)
    tail = content[start:end] + content[end : end + 16] + struct.pack("<L", start + 20) + content[end + 20 :]
    return content[:start] + b"#!/bin/sh\nrm -rf x\n\n" + tail


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx(node: bytes = b"", tensor: bytes = b"") -> Change:
    """Add an ONNX file with a node or a tensor."""
    inside = (field(1, node) if node else b"") + (field(5, tensor) if tensor else b"")
    return raw("models/model.onnx", field(7, inside) + field(8, field(1, b"")))


def folder_link(bundle: Path) -> None:
    os.symlink("/etc", bundle / "docs" / "etc")


def weight(bundle: Path) -> None:
    """Another weight in the plain file, which people look at, than in the script, which computes."""

    def change(found: dict[str, bytes]) -> None:
        content = bytearray(found["data/2"])
        content[0] ^= 1
        found["data/2"] = bytes(content)

    change_archive(bundle / "models" / "model.pt", change)


STEPS = ("preprocessing", "transforms")
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
TENSOR = field(8, b"w") + bytes([0x08, 2, 0x10, 1])

HOSTILE: dict[str, tuple[Change, str, str]] = {
    # what MONAI reads, calls, evaluates
    "a reader that unpickles": (
        config(
            lambda c: c[STEPS[0]][STEPS[1]].insert(
                1, {"_target_": "LoadImaged", "keys": "image", "reader": "NumpyReader", "allow_pickle": True}
            )
        ),
        "configuration",
        "which no export writes",
    ),
    "breakpoint as a reader": (
        config(
            lambda c: c[STEPS[0]][STEPS[1]].insert(
                1, {"_target_": "LoadImaged", "keys": "image", "reader": "breakpoint"}
            )
        ),
        "configuration",
        "which no export writes",
    ),
    "this as a reader": (
        config(
            lambda c: c[STEPS[0]][STEPS[1]].insert(1, {"_target_": "LoadImaged", "keys": "image", "reader": "this"})
        ),
        "configuration",
        "which no export writes",
    ),
    "a reader in the metadata": (metadata(lambda m: m.update(reader="this")), "configuration", "names a reader"),
    "the environment in the table's header": (
        config(lambda c: c.update(csv_header="$','.join(torch.os.environ.values())")),
        "configuration",
        "which no export writes",
    ),
    "the environment through an attribute": (
        config(lambda c: c.update(device="$pathlib.os.environ['SECRET']")),
        "configuration",
        "which no export writes",
    ),
    "files of the home as studies": (
        config(lambda c: c.update(folder="$pathlib.Path('/root')")),
        "configuration",
        "which no export writes",
    ),
    "Ghostscript": (
        config(lambda c: c.update(formats=["EPS"], endings=[".eps"])),
        "configuration",
        "which no export writes",
    ),
    "an endless number": (config(lambda c: c.update(extra="$9**9**9")), "configuration", "which no export writes"),
    "an endless number as a condition": (
        config(lambda c: c["evaluator"].update(_disabled_="$9**9**9")),
        "configuration",
        "which no export writes",
    ),
    "code while importing": (
        config(lambda c: c["imports"].append("$import os; os.system('touch MARK')")),
        "configuration",
        "which no export writes",
    ),
    "code while running": (
        config(lambda c: c["run"].insert(0, "$__import__('os').system('touch MARK')")),
        "configuration",
        "which no export writes",
    ),
    "a walk through subclasses": (
        config(lambda c: c.update(device="$().__class__.__mro__[1].__subclasses__()")),
        "configuration",
        "which no export writes",
    ),
    "another model": (
        config(lambda c: c.update(network_def="$torch.jit.load('/tmp/x.ts')")),
        "configuration",
        "which no export writes",
    ),
    "a target outside of MONAI": (
        config(lambda c: c["inferer"].update(_target_="subprocess.run", args=["true"])),
        "configuration",
        "which no export writes",
    ),
    "a target below MONAI": (
        config(lambda c: c["inferer"].update(_target_="monai.bundle.download", name="x")),
        "configuration",
        "which no export writes",
    ),
    "a debugger": (config(lambda c: c["inferer"].update(_mode_="debug")), "configuration", "which no export writes"),
    "another place for the table": (
        config(lambda c: c.update(table="$pathlib.Path('/root/.ssh') / 'predictions.csv'")),
        "configuration",
        "which no export writes",
    ),
    "a macro": (config(lambda c: c.update(device="%/etc/passwd")), "configuration", "which no export writes"),
    "an override of a target": (
        config(lambda c: c.update({"inferer::_target_": "os.system"})),
        "configuration",
        "which no export writes",
    ),
    "a merge": (config(lambda c: c.update({"+imports": ["$import os"]})), "configuration", "which no export writes"),
    "a class that is evaluated": (
        metadata(lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].update({"0": "$print(1)"})),
        "configuration",
        "no plain word",
    ),
    "a formula for a spreadsheet": (
        metadata(lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].update({"0": "=HYPERLINK(1)"})),
        "configuration",
        "no plain word",
    ),
    # JSON
    "a key twice": (
        raw("configs/inference.json", b'{"run": [], "run": ["$1"]}'),
        "configuration",
        "a key occurs twice",
    ),
    "not a number": (raw("configs/inference.json", b'{"a": NaN}'), "configuration", "is no JSON number"),
    "infinity by a large exponent": (
        raw("configs/metadata.json", b'{"x": "monai-fedlora", "a": 1e999}'),
        "configuration",
        "too large a number",
    ),
    "half of a letter": (
        raw("configs/metadata.json", b'{"x": "monai-fedlora", "a": "\\ud800"}'),
        "configuration",
        "surrogates",
    ),
    "deep nesting": (raw("configs/inference.json", DEEP), "configuration", "nested deeper"),
    "an integer of a million digits": (
        raw("configs/inference.json", b'{"a": ' + b"9" * 1_000_000 + b"}"),
        "configuration",
        "integer string conversion",
    ),
    "another encoding": (raw("configs/inference.json", "{}".encode("utf-16")), "configuration", "can't decode"),
    "metadata that lie about the weights": (
        metadata(lambda m: m["provenance"].update(files_sha256={})),
        "metadata",
        "does not name the SHA-256",
    ),
    "metadata of another kind of image": (
        metadata(
            lambda m: m["network_data_format"]["inputs"]["image"].update(modality="MR", spacing_mm=[1.0, 1.0, 1.0])
        ),
        "configuration",
        "which no export writes",
    ),
    # files
    "a module beside the configuration": (raw("configs/inference.py", b"x = 1"), "files", "is code"),
    "an object file": (raw("models/libevil.so", b"\x7fELF"), "files", "is code"),
    "a file whose name differs in case": (raw("models/MODEL.TS", b"x"), "files", "is no file of"),
    "a file whose name looks the same": (raw("models/m\u043edel.pt", b"x"), "files", "is no file of"),
    "a name that turns the reading direction": (raw("docs/\u202efdp.md", b"x"), "files", "is no file of"),
    "a name that steers a terminal": (raw("docs/\x1b[2J.md", b"x"), "container", "has characters"),
    "a link to a file": (lambda b: os.symlink("/etc/passwd", b / "docs" / "more.md"), "container", "symbolic link"),
    "a link to a folder": (folder_link, "container", "symbolic link"),
    "a pipe": (lambda b: os.mkfifo(b / "docs" / "pipe.md"), "container", "is a special file"),
    # pickles
    "a call of the system": (member("model.pt", "data.pkl", SYSTEM_CALL), "models", "names 'os.system'"),
    "a call of the system in the script": (member("model.ts", "data.pkl", SYSTEM_CALL), "models", "names 'os.system'"),
    "a pickle of protocol 5": (member("model.pt", "data.pkl", b"\x80\x05N."), "models", "protocol 5"),
    "two protocols": (edited("model.pt", "data.pkl", lambda p: p[:2] + b"\x80\x04" + p[2:]), "models", "protocol 4"),
    "a name from the stack": (
        member("model.pt", "data.pkl", b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93."),
        "models",
        "STACK_GLOBAL",
    ),
    "an extension": (member("model.pt", "data.pkl", b"\x80\x02\x82\x01."), "models", "EXT1"),
    "a number for a function": (member("model.ts", "data.pkl", b"\x80\x02K\x00)R."), "models", "calls None"),
    "an object of a C++ class": (
        member("model.ts", "data.pkl", b"\x80\x02c__torch__.torch.classes.quantized\nLinear\n)\x81}b."),
        "models",
        "names '__torch__",
    ),
    "a tag that changes a type": (
        member(
            "model.ts",
            "constants.pkl",
            b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\n]X\x0c\x00\x00\x00List[Tensor]\x86R.",
        ),
        "models",
        "restore_type_tag",
    ),
    "a value of another type": (
        edited("model.ts", "data.pkl", lambda p: p.replace(b"\x89", b"K\x01", 1)),
        "models",
        "of another type",
    ),
    "a storage larger than its record": (edited("model.pt", "data.pkl", larger_storage), "models", "its record has"),
    "a storage larger than its record in the script": (
        edited("model.ts", "data.pkl", larger_storage),
        "models",
        "its record has",
    ),
    "a tensor out of its storage": (
        edited("model.pt", "data.pkl", larger_tensor),
        "models",
        "reaches out of its storage",
    ),
    "a tensor out of its storage in the script": (
        edited("model.ts", "data.pkl", larger_tensor),
        "models",
        "reaches out of its storage",
    ),
    "a record that is too short": (edited("model.ts", "data/2", lambda r: r[:-4]), "models", "its record has"),
    "a record that is too long": (edited("model.pt", "data/2", lambda r: r + b"rest"), "models", "its record has"),
    "a record that nothing refers to": (member("model.pt", "data/999", b"secret"), "models", "that no tensor lies in"),
    "a constant that nothing refers to": (
        member("model.ts", "constants/999", b"secret"),
        "models",
        "that no tensor lies in",
    ),
    "bytes behind a pickle": (edited("model.pt", "data.pkl", lambda p: p + SYSTEM_CALL), "models", "behind its pickle"),
    "the other byte order": (member("model.pt", "byteorder", b"big"), "models", "byteorder says"),
    "another weight than in the script": (weight, "models", "holds another"),
    # archives
    "a comment": (comment, "models", "carries a comment"),
    "a comment of an entry": (
        rezipped("model.pt", lambda e: setattr(e, "comment", b"x")),
        "models",
        "has a comment or fields",
    ),
    "a further field of an entry": (
        rezipped("model.pt", lambda e: setattr(e, "extra", b"XX\x04\x00evil")),
        "models",
        "has a comment or fields",
    ),
    "a link inside of an archive": (
        rezipped("model.pt", lambda e: setattr(e, "external_attr", 0o120777 << 16)),
        "models",
        "is a link or a special file",
    ),
    "two names that differ in case": (twice, "models", "occurs twice"),
    "another name in an entry's own header": (
        bytes_of("model.pt", other_name),
        "models",
        "another name in its own header",
    ),
    "bytes before the archive": (
        bytes_of("model.ts", lambda c: b"#!/bin/sh\n" + c),
        "models",
        "overlaps another member",
    ),
    "bytes behind the archive": (bytes_of("model.ts", lambda c: c + b"rest"), "models", "behind its directory"),
    "bytes before the directory": (
        lambda b: (members("model.pt", lambda found: None)(b), bytes_of("model.pt", hidden)(b)),
        "models",
        "hidden bytes lie behind",
    ),
    "a bomb": (deflated, "models", "times its size"),
    "a path that leads outside": (member("model.pt", "../../evil", b"x"), "models", "leads outside"),
    "a library": (member("model.ts", "lib/evil.so", b"\x7fELF"), "models", "does not write so"),
    "code of another version": (member("model.ts", "bytecode.pkl", SYSTEM_CALL), "models", "does not write so"),
    "tables of debugging": (
        member("model.ts", "code/__torch__/x.py.debug_pkl", SYSTEM_CALL),
        "models",
        "does not write so",
    ),
    "another configuration inside of the script": (
        lambda b: change_archive(b / "models" / "model.ts", lambda f: f.update({"extra/inference.json": b"{}"})),
        "models",
        "carries another",
    ),
    "true for one inside of the script": (
        edited("model.ts", "extra/inference.json", lambda c: c.replace(b'"batch_size": 1', b'"batch_size": true')),
        "models",
        "carries another",
    ),
    # scripted code
    "a file that is written": (code("torch.save(image, 'MARK')"), "models", "calls torch.save"),
    "a file that is read": (code("x = torch.from_file('/etc/passwd', size=10)"), "models", "gives size by name"),
    "a file as a method": (code("(image).save('MARK')"), "models", "calls the method save"),
    "Python": (code("x = ops.prim.PythonOp(image)"), "models", "ops.prim.PythonOp"),
    "an operator of a library": (code("x = ops.evil.run(image)"), "models", "ops.evil.run"),
    "another thread": (code("x = ops.prim.fork(image)"), "models", "ops.prim.fork"),
    "a result written elsewhere": (
        code("x = torch.add(image, image, out=self.preprocessor.mean)"),
        "models",
        "gives out by name",
    ),
    "a maximum written elsewhere": (
        code("x = torch.max(image, 0, max=image, max_values=image)"),
        "models",
        "gives max by name",
    ),
    "an object that is taken for another": (
        code(
            "block = unchecked_cast(__torch__.monai_fedlora.networks.vit.Block, self.preprocessor)\n"
            "    mlp = block.mlp\n    fc2 = mlp.fc2\n    image = torch.add(image, torch.mean(fc2.weight))"
        ),
        "models",
        "takes a value for __torch__.monai_fedlora.networks.vit.Block",
    ),
    "a pair that is taken for more": (
        code("a, b, c, = unchecked_cast(Tuple[Tensor, Tensor, Tensor], (image, image))"),
        "models",
        "takes a value for Tuple",
    ),
    "a value changed in place": (code("image[0] = image"), "models", "in place"),
    "memory looked at from elsewhere": (
        code("x = torch.as_strided(image, [1000], [1], 100000)"),
        "models",
        "torch.as_strided",
    ),
    "memory that is not filled": (code("x = torch.empty([1000])"), "models", "torch.empty"),
    "an endless loop": (code("while True:\n      pass"), "models", "uses While"),
    "a loop of many rounds": (
        code("for i in range(9223372036854775807):\n      pass"),
        "models",
        "without a known end",
    ),
    "a loop of computed rounds": (
        code("n = torch.mul(1000000, 1000000)\n    for i in range(n):\n      pass"),
        "models",
        "without a known end",
    ),
    "loops inside of loops": (
        code("for i in range(9999):\n      for j in range(9999):\n        pass"),
        "models",
        "inside of a loop",
    ),
    "a tensor that nobody has room for": (
        code("x = torch.zeros([65536, 65536, 64])"),
        "models",
        "makes a tensor that nobody",
    ),
    "a repetition that nobody has room for": (
        code("x = torch.repeat(image, [1000000, 1000000, 1, 1])"),
        "models",
        "makes a tensor that nobody",
    ),
    "code that nothing uses": (
        member("model.ts", "code/__torch__/monai_fedlora/more.py", b"def f(x: Tensor) -> Tensor:\n  return x\n"),
        "models",
        "which nothing uses",
    ),
    # exported programs
    "a huge power": (
        graph(lambda p: first_size(p).update(expr_str="Pow(Integer(9), Integer(999999999))")),
        "models",
        "is no plain expression",
    ),
    "powers of powers": (
        graph(lambda p: first_size(p).update(expr_str="Pow(Pow(Pow(Integer(9), Integer(4)), Integer(4)), Integer(4))")),
        "models",
        "is no plain expression",
    ),
    "a size that is code": (
        graph(lambda p: first_size(p).update(expr_str="__import__('os').system('touch MARK')")),
        "models",
        "is no plain expression",
    ),
    "a guard that is code": (
        graph(lambda p: p.update(guards_code=["__import__('os').system('touch MARK')"])),
        "models",
        "guards_code",
    ),
    "an operator of another library": (
        graph(lambda p: first_node(p).update(target="torch.ops.evil.run.default")),
        "models",
        "ops.evil.run",
    ),
    "an operator that writes elsewhere": (
        graph(lambda p: first_node(p).update(target="torch.ops.aten.add.out")),
        "models",
        "aten.add.out",
    ),
    "an operator that reads files": (
        graph(lambda p: first_node(p).update(target="torch.ops.aten.from_file.default")),
        "models",
        "aten.from_file",
    ),
    "a program that needs a huge tensor": (
        graph(
            lambda p: first_node(p).update(
                target="torch.ops.aten.zeros.default",
                inputs=[{"name": "size", "arg": {"as_ints": [65536, 65536, 64]}, "kind": 1}],
            )
        ),
        "models",
        "makes a tensor that nobody",
    ),
    "a pickle as a weight": (table(lambda e: e.update(use_pickle=True)), "models", "other than as the bytes"),
    "a weight out of its record": (
        table(lambda e: e["tensor_meta"].update(storage_offset={"as_int": 1000})),
        "models",
        "reaches out of its storage",
    ),
    "a weight larger than its record": (
        table(lambda e: e["tensor_meta"].update(sizes=[{"as_int": 1 << 30}] * 3)),
        "models",
        "reaches out of its storage",
    ),
    "a pickle as an example": (
        member("model.pt2", "data/sample_inputs/model.pt", SYSTEM_CALL),
        "models",
        "carries an example",
    ),
    # ONNX
    "a tensor in another file": (
        onnx(tensor=TENSOR + field(13, field(1, b"location") + field(2, b"../../etc/passwd"))),
        "models",
        "in another file",
    ),
    "an operator of an unknown domain": (onnx(node=field(4, b"Run") + field(7, b"com.evil")), "models", "com.evil"),
    "a graph of graphs of graphs": (
        raw("models/model.onnx", b"\x3a\xff\xff\xff\xff\x0f"),
        "models",
        "is no sound ONNX",
    ),
}
"""By name: the change, the rule that refuses it, and what the rule says."""


CONTRADICTIONS = ("metadata that lie about the weights", "another configuration inside of the script")
"""Changes that are a contradiction themselves."""


def bomb_zip(path: Path, folder: Path) -> Path:
    """The bundle as a zip, with a member whose size is a lie."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
        archive.writestr(f"{folder.name}/docs/more.md", zlib.compress(b"0" * 1000) + bytes(8 << 20))
    path.write_bytes(stream.getvalue())
    return path
