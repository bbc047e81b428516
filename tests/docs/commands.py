"""Commands in the project's documents: where they stand, and what their lines say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = "# not run by the tests: "
"""First line of a block that a guide shows and the tests do not run; a reason follows."""

_FENCE = re.compile(r"^```(\w*)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of shell commands in a document.

    Args:
        line: number of its first line.
        code: what stands in it.
        expected: lines that its output has to hold, ``...`` standing for anything; from a ``text`` block right below.
    """

    line: int
    code: str
    expected: tuple[str, ...] = ()

    @property
    def reason(self) -> str | None:
        """Why it is not run; None if it is."""
        return self.code.splitlines()[0].removeprefix(NOT_RUN) if self.code.startswith(NOT_RUN) else None

    def missing_from(self, output: str) -> list[str]:
        """The expected lines that an output does not hold, whatever its spaces and line breaks."""
        found = " ".join(output.split())
        patterns = {line: ".*".join(map(re.escape, " ".join(line.split()).split("..."))) for line in self.expected}
        return [line for line, pattern in patterns.items() if not re.search(pattern, found)]


def shell_blocks(document: Path) -> list[Block]:
    """The ``bash`` blocks of a document, in order."""
    blocks: list[Block] = []
    ended = -1
    for kind, line, text in _fenced(document.read_text(encoding="utf-8")):
        if kind == "bash":
            blocks.append(Block(line=line, code=text))
        elif kind == "text" and line == ended + 2:
            blocks[-1] = Block(line=blocks[-1].line, code=blocks[-1].code, expected=tuple(text.splitlines()))
        ended = line + text.count("\n") if kind == "bash" else -1
    return blocks


def _fenced(text: str) -> Iterator[tuple[str, int, str]]:
    """Kind, first line and text of every fenced block."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        if opened := _FENCE.match(lines[number]):
            end = lines.index("```", number + 1)
            yield opened[1], number + 2, "".join(f"{line}\n" for line in lines[number + 1 : end])
            number = end
        number += 1


def command_lines(code: str) -> list[list[str]]:
    """The words of every simple command, without redirections' targets being told apart from arguments."""
    commands: list[list[str]] = [[]]
    for line in code.replace("\\\n", " ").splitlines():
        for word in _words(line):
            if set(word) <= set("|&;()"):
                commands.append([])
            else:
                commands[-1].append(word)
        commands.append([])
    return [command for command in commands if command]


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()")
    lexer.whitespace_split = True
    return list(lexer)


def relative_links(document: Path) -> list[str]:
    """Targets of a document's links within the repository, with their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(document: Path) -> set[str]:
    """The names by which links lead to a document's headings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
