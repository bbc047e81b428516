"""Checks of DICOM objects by the tables of the standard, and by other toolkits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def output_of(tool: str, *arguments: str | Path) -> str:
    """What a tool says, which the extra ``test`` installs where there is one for the platform."""
    command = shutil.which(tool, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if command is None and sys.platform != "linux":
        pytest.skip(f"there is no {tool} for this platform")
    assert command, f"{tool} is missing"
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def references(dataset: Dataset) -> Iterator[str]:
    """Every instance that a dataset refers to, at any depth."""
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield element.value


@cache
def tables() -> list[Any]:
    """The tables of the standard that come with highdicom."""
    names = ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    return [json.loads(resources.files("highdicom").joinpath(f"_standard/{name}.json").read_text()) for name in names]


def required(folder: Path) -> list[tuple[str, str]]:
    """(file, attribute) of every attribute that the standard requires at the top of an object and that is not there.

    Type 1 must have a value, type 2 must be there. What content items need depends on their kind; a reader of reports
    checks that.
    """
    kinds, modules_of, attributes = tables()
    missing = []
    for path in files(folder):
        dataset = pydicom.dcmread(path)
        modules = [module["key"] for module in modules_of[kinds[dataset.SOPClassUID]] if module["usage"] == "M"]
        for module in modules:
            for attribute in attributes[module] if module != "sr-document-content" else ():
                keyword, kind = attribute["keyword"], attribute["type"]
                if attribute["path"] or kind not in ("1", "2"):
                    continue
                if keyword not in dataset or (kind == "1" and dataset[keyword].is_empty):
                    missing.append((path.name, keyword))
    return missing
