"""What is kept is found by the code that computed it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import monai_fedlora
from monai_fedlora import source_digest as module
from monai_fedlora.source_digest import COMPUTING, source_digest

PACKAGE = Path(monai_fedlora.__file__).parent
FILES = sorted(
    file.relative_to(PACKAGE).as_posix()
    for place in COMPUTING
    for file in ([PACKAGE / place] if place.endswith(".py") else (PACKAGE / place).rglob("*.py"))
)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / file, tmp_path / file)
    source_digest.cache_clear()
    return tmp_path


def digest_of(folder: Path) -> str:
    source_digest.cache_clear()
    return source_digest(package=folder)


def test_networks_and_transforms_are_among_what_computes() -> None:
    assert {"networks/vit.py", "networks/one_query.py", "transforms/photograph.py", "engines/frozen.py"} <= set(FILES)


def test_every_byte_and_name_of_what_computes_counts_and_nothing_else(copied: Path) -> None:
    before = digest_of(copied)
    assert before == digest_of(PACKAGE)
    (copied / "notes.txt").write_text("x")
    assert digest_of(copied) == before
    for file in FILES:
        content = (copied / file).read_bytes()
        (copied / file).write_bytes(content + b"#")
        assert digest_of(copied) != before, file
        (copied / file).write_bytes(content)
    (copied / "networks/vit.py").rename(copied / "networks/vit2.py")
    assert digest_of(copied) != before


@pytest.mark.parametrize("library", module.LIBRARIES)
def test_another_version_of_what_reads_files_counts(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(PACKAGE)
    own = module.installed_version
    monkeypatch.setattr(module, "installed_version", lambda name: "0" if name == library else own(name))
    assert digest_of(PACKAGE) != before
    source_digest.cache_clear()


def test_it_is_computed_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest_of(PACKAGE)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("the code was read again"))
    assert source_digest(package=PACKAGE) == first
