"""The documents' commands are ones that this version knows, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from monai_fedlora.cli import build_parser
from tests.docs.commands import Block, anchors, command_lines, relative_links, shell_blocks

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "bundles").glob("*/docs/*.md")),
]
VARIABLE = re.compile(r"MONAI_FEDLORA_[A-Z_]+")


def named(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


def unknown_commands(code: str) -> list[str]:
    """The lines that call ``monai-fedlora`` in a way it does not understand."""
    wrong = []
    for words in command_lines(code):
        if words[0] == "monai-fedlora":
            try:
                build_parser().parse_args(words[1:])
            except SystemExit as error:
                wrong += [" ".join(words)] if error.code else []
    return wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_are_understood(document: Path) -> None:
    assert [line for block in shell_blocks(document) for line in unknown_commands(block.code)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_blocks_are_shell(document: Path) -> None:
    for block in shell_blocks(document):
        parsed = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True)
        assert parsed.returncode == 0, f"line {block.line}: {parsed.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    for link in relative_links(document):
        target, _, anchor = link.partition("#")
        found = document.parent / target if target else document
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_environment_variables_are_read_somewhere(document: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "monai_fedlora").rglob("*.py"))
    known = set(VARIABLE.findall(text)) | {"MONAI_FEDLORA_REAL_DATA"}  # of the tests
    assert set(VARIABLE.findall(document.read_text(encoding="utf-8"))) <= known


# ---- the search itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("monai-fedlora methods --size small && monai-fedlora methods --sice small", ["--sice"]),
        ("monai-fedlora job dual_lora \\\n    --ouput J | cat", ["--ouput"]),
        ("echo; monai-fedlora simlate J  # a comment", ["simlate"]),
        ("monai-fedlora simulate J --workspace W --in-process --threads 2", ["--in-process"]),
        ("monai-fedlora check --help", []),
        ("cat monai-fedlora --sice", []),
    ],
)
def test_a_command_that_is_not_understood_is_found(code: str, wrong: list[str]) -> None:
    found = unknown_commands(code)
    assert len(found) == len(wrong)
    assert all(word in line for word, line in zip(wrong, found, strict=True))


def test_blocks_are_found_with_what_stands_below_them(tmp_path: Path) -> None:
    document = tmp_path / "guide.md"
    document.write_text(
        "# One\n\n```bash\nfirst\n```\n```text\n3 cases\n```\n\n```python\nx\n```\n\n"
        "```bash\n# not run by the tests: needs a GPU\nsecond\n```\n\n```text\nof nothing\n```\n"
    )
    assert shell_blocks(document) == [
        Block(line=4, code="first\n", expected=("3 cases",)),
        Block(line=15, code="# not run by the tests: needs a GPU\nsecond\n"),
    ]
    assert [block.reason for block in shell_blocks(document)] == [None, "needs a GPU"]


def test_lines_are_expected_word_for_word_but_for_dots() -> None:
    block = Block(line=1, code="", expected=("3 cases", "accuracy ... (... to ...)", "4 rounds"))
    assert block.missing_from("│ 3\n  cases │ accuracy │ 0.5 (0.1 to 0.9) │ 14 round") == ["4 rounds"]


def test_anchors_are_made_as_the_forge_makes_them(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# Which method?\n\n```bash\n# a comment\n```\n\n## 2. On `real` data\n")
    assert anchors(document) == {"which-method", "2-on-real-data"}
