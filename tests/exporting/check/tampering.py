"""Ways to tamper with a bundle, each as the person who does it would."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fedlora.exporting.checksums import write_checksums

SYSTEM_CALL = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
"""A pickle of protocol 2 that calls ``os.system("true")``."""


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    """Apply a change to a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_archive(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Rewrite a torch archive; members are named without the folder that holds them."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file, in the middle unless told where."""
    content = bytearray(path.read_bytes())
    content[place if place >= 0 else len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_config(bundle: Path, key: str, value: Any) -> None:
    change_json(bundle / "configs" / "inference.json", lambda config: config.__setitem__(key, value))


def edit_metadata(bundle: Path, key: str, value: Any) -> None:
    change_json(bundle / "configs" / "metadata.json", lambda config: config.__setitem__(key, value))


def edit_target(bundle: Path) -> None:
    change_json(
        bundle / "configs" / "inference.json",
        lambda config: config["inferer"].update(_target_="torch.os.system", command="true"),
    )


def unpickle_something(bundle: Path, member: str, content: bytes = SYSTEM_CALL, *, name: str) -> None:
    change_archive(bundle / "models" / name, lambda members: members.__setitem__(member, content))


def hide_code(bundle: Path) -> None:
    """Let the scripted model write a file."""

    def change(members: dict[str, bytes]) -> None:
        name = next(name for name in members if name.endswith(".py") and ("networks/vit" in name or "cinema" in name))
        members[name] += b"\ndef leak(x: Tensor) -> Tensor:\n  torch.save(x, '/tmp/leak')\n  return x\n"

    change_archive(bundle / "models" / "model.ts", change)


def raw_zip(members: dict[str, bytes]) -> bytes:
    """A zip file of members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def link(bundle: Path) -> None:
    os.symlink("/etc/hostname", bundle / "docs" / "more.md")


RESEALED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "python file": (lambda b: (b / "configs" / "net.py").write_text("x = 1"), "files", "is code"),
    "unknown file": (lambda b: (b / "notes.txt").write_text("x"), "files", "is no file of an exported bundle"),
    "hidden folder": (
        lambda b: (b / ".git").mkdir() or (b / ".git" / "config").write_text("x"),
        "files",
        "is no file of an exported bundle",
    ),
    "second config": (lambda b: (b / "configs" / "train.json").write_text("{}"), "files", "is no file of an exported"),
    "missing licence": (lambda b: (b / "LICENSE").unlink(), "files", "is missing"),
    "missing script": (lambda b: (b / "models" / "model.ts").unlink(), "files", "is missing"),
    "target": (edit_target, "configuration", "inferer::_target_ is 'torch.os.system', which no export writes"),
    "target of an override": (
        lambda b: edit_config(b, "inferer::_target_", "os.system"),
        "configuration",
        "'inferer::_target_' is 'os.system', which no export writes",
    ),
    "target of this package": (
        lambda b: edit_config(b, "run", [{"_target_": "monai_fedlora.files.write_text"}]),
        "configuration",
        "'monai_fedlora.files.write_text'}], which no export writes",
    ),
    "table elsewhere": (
        lambda b: edit_config(b, "table", "$pathlib.Path('/root/.ssh') / 'predictions.csv'"),
        "configuration",
        "table is \"$pathlib.Path('/root/.ssh') / 'predictions.csv'\", which no export writes; it is ",
    ),
    "table of another name": (
        lambda b: edit_config(b, "table", "$pathlib.Path(@output_dir) / 'authorized_keys'"),
        "configuration",
        "table is \"$pathlib.Path(@output_dir) / 'authorized_keys'\"",
    ),
    "second table": (
        lambda b: edit_config(b, "other", {"_target_": "monai.data.CSVSaver", "output_dir": "/", "filename": "x"}),
        "configuration",
        "'other' is {",
    ),
    "table moved by an override": (
        lambda b: edit_config(b, "table::output_dir", "/root"),
        "configuration",
        "table::output_dir' is '/root', which no export writes",
    ),
    "folder of results": (
        lambda b: edit_config(b, "output_dir", "/root"),
        "configuration",
        "output_dir is '/root', which no export writes; it is 'predictions'",
    ),
    "argument": (
        lambda b: change_json(
            b / "configs" / "inference.json", lambda config: config["dataloader"].update(worker_init_fn="@refuse")
        ),
        "configuration",
        "dataloader::worker_init_fn' is '@refuse', which no export writes",
    ),
    "import": (lambda b: edit_config(b, "imports", ["$import os"]), "configuration", "which no export writes"),
    "expression": (
        lambda b: edit_config(b, "run", ["$__import__('os').system('true')"]),
        "configuration",
        "which no export writes",
    ),
    "model from elsewhere": (
        lambda b: edit_config(b, "network_def", "$torch.jit.load('/tmp/model.ts')"),
        "configuration",
        "network_def is",
    ),
    "macro": (
        lambda b: edit_config(b, "device", "%/etc/passwd"),
        "configuration",
        "device is '%/etc/passwd', which no export writes",
    ),
    "debugger": (
        lambda b: edit_config(b, "inferer", {"_target_": "SimpleInferer", "_mode_": "debug"}),
        "configuration",
        "inferer::_mode_' is 'debug'",
    ),
    "reader": (
        lambda b: edit_config(b, "load", {"_target_": "LoadImaged", "keys": "image", "reader": "os.system"}),
        "configuration",
        "load' is {",
    ),
    "expression in the metadata": (
        lambda b: edit_metadata(b, "description", "$print(1)"),
        "configuration",
        "is an expression, of which this file has none",
    ),
    "schema": (lambda b: edit_metadata(b, "supported_apps", []), "metadata", "does not fit the schema"),
    "missing key": (
        lambda b: change_json(b / "configs" / "metadata.json", lambda m: m.pop("copyright")),
        "metadata",
        "does not fit the schema",
    ),
    "clinical use": (
        lambda b: change_json(
            b / "configs" / "metadata.json", lambda m: m["provenance"].update(not_for_clinical_use=False)
        ),
        "metadata",
        "not_for_clinical_use",
    ),
    "metadata of another model": (
        lambda b: edit_metadata(b, "name", "other"),
        "models",
        "carries another metadata.json than the bundle",
    ),
    "weights of another model": (
        lambda b: flip(b / "models" / "model.pt", 5000),
        "metadata",
        "names another SHA-256 for models/model.pt",
    ),
    "pickle in the weights": (
        lambda b: unpickle_something(b, "data.pkl", name="model.pt"),
        "models",
        "names 'os.system', which is no part of a tensor",
    ),
    "second pickle in the weights": (
        lambda b: unpickle_something(b, "more.pkl", name="model.pt"),
        "models",
        "holds more.pkl",
    ),
    "pickle in the script": (
        lambda b: unpickle_something(b, "constants.pkl", name="model.ts"),
        "models",
        "names 'os.system', which is no part of a tensor",
    ),
    "legacy pickle": (lambda b: (b / "models" / "model.pt").write_bytes(SYSTEM_CALL), "models", "is not a sound zip"),
    "code in the script": (hide_code, "models", "calls torch.save, which is no arithmetic"),
    "library in the script": (
        lambda b: unpickle_something(b, "lib/evil.so", b"\x7fELF", name="model.ts"),
        "models",
        "holds lib/evil.so",
    ),
    "truncated script": (
        lambda b: (b / "models" / "model.ts").write_bytes((b / "models" / "model.ts").read_bytes()[:-100]),
        "models",
        "is not a sound zip",
    ),
    "bytes before the weights": (
        lambda b: (b / "models" / "model.pt").write_bytes(b"#!/bin/sh\n" + (b / "models" / "model.pt").read_bytes()),
        "models",
        "hidden bytes",
    ),
    "link": (link, "container", "is a symbolic link"),
    "pipe": (lambda b: os.mkfifo(b / "docs" / "pipe.md"), "container", "is a special file"),
}
"""What is changed before the checksums are written anew, with the rule that finds it and what it says."""

UNSEALED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weight": (lambda b: flip(b / "models" / "model.pt"), "was changed or damaged"),
    "document": (lambda b: flip(b / "docs" / "README.md"), "was changed or damaged"),
    "added": (lambda b: (b / "docs" / "more.md").write_text("x"), "is not listed: it was added"),
    "missing": (lambda b: (b / "docs" / "README.md").unlink(), "is listed but missing"),
    "list": (lambda b: (b / "checksums.json").write_text("[]"), "is not"),
    "list of itself": (
        lambda b: change_json(
            b / "checksums.json", lambda content: content["files"].update({"checksums.json": "0" * 64})
        ),
        "lists itself",
    ),
}
"""What is changed while the checksums stay."""


def reseal(bundle: Path) -> None:
    """Write the checksums of what is there now, as somebody would who hides a change; a link or pipe has none."""
    if all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in bundle.rglob("*")):
        write_checksums(bundle)
