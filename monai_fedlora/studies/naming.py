"""What studies are called: names that every table, page and terminal can hold, no two alike."""

from __future__ import annotations

import contextlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from monai_fedlora.formats.rows import Row


def printable(text: str) -> str:
    r"""The text with ``\xe9`` for each byte that is no UTF-8, and ``\x1b`` or ``\u202e`` for what steers a terminal."""
    with contextlib.suppress(UnicodeEncodeError):  # of a lone surrogate that stands for no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        character.encode("unicode_escape").decode() if _steers(character) else character for character in text
    )


def names_of_file(path: PurePath, ending: str) -> tuple[str, ...]:
    """What the study of a file may be called, shortest first: without ending, with it, with ever more folders.

    Args:
        path: the file, below as many folders as may be part of its name.
        ending: of the file's name, or of what is beside the study's name in it.
    """
    parts = [printable(part) for part in path.parts if part not in (path.anchor, "..")]
    short, name = printable(path.name.removesuffix(ending)) or parts[-1], parts[-1]
    longer = ["/".join([*parts[-count:-1], last]) for count in range(2, len(parts) + 1) for last in (short, name)]
    return (short, name, *longer)


def names_of_folder(path: PurePath) -> tuple[str, ...]:
    """What the study of a folder may be called, shortest first: the folder's name, with ever more folders."""
    parts = [printable(part) for part in path.parts if part not in (path.anchor, "..")] or ["study"]
    return tuple("/".join(parts[-count:]) for count in range(1, len(parts) + 1))


def names_of_row(row: Row) -> tuple[str, ...]:
    """What the study of a table's line may be called: as its column says, or with the line too."""
    table, _, line = row.origin.rpartition(":")
    study = printable(row.cells.get("study", ""))
    place = f"{printable(PurePath(table).name)}, line {line}"
    return (study, f"{study} ({place})") if study else (place,)


def comparable(name: str) -> str:
    """The same for names that look alike or that a file system holds for one: in capitals or not, composed or not."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def told_apart(choices: Sequence[Sequence[str]]) -> list[str]:
    """Choose a name for each study, no two alike, see :func:`comparable`.

    Studies whose names are the same get their next longer ones; where none are left, or longer ones are the same too,
    the later get a number.

    Args:
        choices: names of each, shortest first, one at least.
    """
    depth = [0] * len(choices)
    while True:
        names = [names[depth[index]] for index, names in enumerate(choices)]
        groups: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            groups[comparable(name)].append(index)
        different = [group for group in groups.values() if len({tuple(choices[index]) for index in group}) > 1]
        clashing = [index for group in different for index in group if depth[index] + 1 < len(choices[index])]
        if not clashing:
            return _numbered(names)
        for index in clashing:
            depth[index] += 1


def _numbered(names: Sequence[str]) -> list[str]:
    taken, given = {comparable(name) for name in names}, []
    seen: set[str] = set()
    for name in names:
        chosen, number = name, 1
        while comparable(chosen) in seen or (number > 1 and comparable(chosen) in taken):
            number += 1
            chosen = f"{name} ({number})"
        seen.add(comparable(chosen))
        given.append(chosen)
    return given


def _steers(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind[0] == "C" or kind in ("Zl", "Zp")
