"""What may be committed."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LARGEST_FILE = 5 * 2**20  # bytes
UNSAFE_WEIGHTS = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
IMAGES_OF_PEOPLE = {".nii", ".dcm", ".mha", ".mhd", ".nrrd"}
# A path of somebody's machine, then words that mark unfinished work.
FORBIDDEN_TEXT = re.compile(r"(?<![\w.~}])/(work|root|home|Users)/\w|\b(todo|fixme|xxx|wip)\b", re.IGNORECASE)
THIS_FILE = Path(__file__).resolve()


def tracked() -> list[Path]:
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := REPOSITORY / name).is_file()]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def test_no_file_is_large() -> None:
    assert names([path for path in tracked() if path.stat().st_size > LARGEST_FILE]) == []


def test_data_lie_in_folders() -> None:
    top = {path.name for path in tracked() if path.parent == REPOSITORY}
    assert {
        name for name in top if Path(name).suffix not in {".md", ".cff", ".toml", ".cfg", ".txt", ".yml", ""}
    } == set()


def test_no_file_is_an_image_of_a_person_or_needs_unpickling() -> None:
    refused = UNSAFE_WEIGHTS | IMAGES_OF_PEOPLE
    assert names([path for path in tracked() if refused & set(path.suffixes)]) == []


def test_no_file_is_a_pickle_under_another_name() -> None:
    def pickled(path: Path) -> bool:
        if zipfile.is_zipfile(path):
            return any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
        return re.match(rb"\x80[\x02-\x05]", path.read_bytes()[:2]) is not None

    assert names([path for path in tracked() if pickled(path)]) == []


@pytest.mark.slow
def test_text_names_no_machine_and_no_unfinished_work() -> None:
    found = []
    for path in tracked():
        data = path.read_bytes()
        if path.resolve() == THIS_FILE or b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            if match := FORBIDDEN_TEXT.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {match.group()}")
    assert found == []


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("see /home/someone/x", True),
        ("'/work/main'", True),
        ("# TODO later", True),
        ("https://example.org/home/page", False),
        ("$XDG_CACHE_HOME/home", False),
        ("to_do", False),
    ],
)
def test_forbidden_text_is_recognised(text: str, forbidden: bool) -> None:
    assert (FORBIDDEN_TEXT.search(text) is not None) is forbidden


def test_no_two_modules_have_the_same_file_name() -> None:
    """A traceback, a search and an editor's tab name the file alone; a command's module is named as it is called."""
    package = REPOSITORY / "monai_fedlora"
    modules = [path for path in tracked() if path.suffix == ".py" and package in path.parents]
    counted = Counter(path.name for path in modules if path.name != "__init__.py" and path.parent.name != "commands")
    assert [name for name, count in counted.items() if count > 1] == []
