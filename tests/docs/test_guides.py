"""Every command of the guides runs, in the order of the page, and prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import NOT_RUN, Block, command_lines, shell_blocks

FOLDER = Path(__file__).resolve().parents[2] / "docs"
GUIDES = ("researcher", "hospital-engineer", "clinician", "audit", "privacy-officer")
LONGEST = 172
"""Lines that are not empty: a page of about 160."""
MARK = "::: block "
HELPFUL = {"nvflare": re.compile(r"[a-z][a-z-]*"), "pip": re.compile(r"[a-z]+")}
"""Programs whose help lists their options, and what a word that chooses a sub-command looks like."""


@pytest.fixture(params=GUIDES)
def guide(request: pytest.FixtureRequest) -> Path:
    return FOLDER / f"{request.param}.md"


def in_one_shell(blocks: list[Block], folder: Path) -> tuple[int, dict[int, str]]:
    """Run blocks one after the other as a reader types them.

    Returns:
        Exit status, and the output by the block's line; of blocks behind a failing one there is none.
    """
    script = "\n".join(f"printf '\\n{MARK}{block.line}\\n'\n{block.code}" for block in blocks)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MONAI_FEDLORA_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment |= {"PATH": path, "HOME": str(folder), "COLUMNS": "140"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    parts = re.split(rf"^{MARK}(\d+)\n", done.stdout, flags=re.MULTILINE)[1:]
    return done.returncode, dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


def unknown_options(words: list[str]) -> list[str]:
    """The options of a command that its program's help does not list."""
    chosen: list[str] = []
    for word in words[1:]:
        if not HELPFUL[words[0]].fullmatch(word):
            break
        chosen.append(word)
    command = [sys.executable, "-m", "pip"] if words[0] == "pip" else [str(Path(sys.executable).parent / words[0])]
    shown = subprocess.run([*command, *chosen, "--help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", shown.stdout + shown.stderr))
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]


@pytest.mark.slow
def test_the_commands_run_in_order_and_print_what_the_page_says(guide: Path, tmp_path: Path) -> None:
    blocks = [block for block in shell_blocks(guide) if block.reason is None]
    status, outputs = in_one_shell(blocks, tmp_path)
    last = max(outputs, default=0)
    assert status == 0, f"{guide.name}, the block at line {last}:\n{outputs.get(last, '')}"
    for block in blocks:
        assert block.missing_from(outputs[block.line]) == [], f"line {block.line}:\n{outputs[block.line]}"


@pytest.mark.slow
def test_what_is_not_run_has_options_that_exist(guide: Path) -> None:
    for block in shell_blocks(guide):
        for words in command_lines(block.code):
            if words[0] in HELPFUL:
                assert unknown_options(words) == [], " ".join(words)


def test_a_guide_is_one_page_that_says_why_it_leaves_a_block_out(guide: Path) -> None:
    lines = guide.read_text(encoding="utf-8").splitlines()
    assert sum(bool(line) for line in lines) <= LONGEST
    blocks = shell_blocks(guide)
    assert sum(block.reason is None for block in blocks) > sum(block.reason is not None for block in blocks)
    assert all(block.reason for block in blocks if block.code.startswith(NOT_RUN.strip()))


# ---- the shell itself -----------------------------------------------------------------------------------


def test_what_one_block_sets_the_next_one_has(tmp_path: Path) -> None:
    blocks = [Block(line=1, code="export WORD=said\n"), Block(line=9, code="echo $WORD | tee file >&2\n")]
    assert in_one_shell(blocks, tmp_path) == (0, {1: "\n", 9: "said\n"})
    assert (tmp_path / "file").read_text() == "said\n"


@pytest.mark.parametrize("code", ["false", "false | cat", 'echo "$UNSET_BY_ALL"'])
def test_a_block_that_fails_ends_the_page(tmp_path: Path, code: str) -> None:
    status, outputs = in_one_shell([Block(line=1, code=f"{code}\n"), Block(line=5, code="echo on\n")], tmp_path)
    assert status != 0
    assert set(outputs) == {1}


@pytest.mark.slow
def test_an_option_that_does_not_exist_is_found() -> None:
    assert unknown_options(["pip", "install", "--no-deps", "--constrain=x", "-c"]) == ["--constrain=x"]
