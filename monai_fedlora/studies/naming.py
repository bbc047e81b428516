"""Names of studies: printable in tables, pages and terminals, and different from each other."""

from __future__ import annotations

import contextlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from monai_fedlora.formats.rows import Row


def printable(text: str) -> str:
    r"""Escape bytes that are not UTF-8 (``\xe9``) and characters that control a terminal (``\x1b``, ``\u202e``)."""
    with contextlib.suppress(UnicodeEncodeError):  # raised for a surrogate that stands for no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        character.encode("unicode_escape").decode() if _steers(character) else character for character in text
    )


def names_of_file(path: PurePath, ending: str) -> tuple[str, ...]:
    """Possible names for the study of a file, shortest first: without the ending, with it, with more and more folders.

    Args:
        path: the file, with the folders that may become part of the name.
        ending: the part of the file's name that follows the name of the study.
    """
    parts = [printable(part) for part in path.parts if part not in (path.anchor, "..")]
    short, name = printable(path.name.removesuffix(ending)) or parts[-1], parts[-1]
    longer = ["/".join([*parts[-count:-1], last]) for count in range(2, len(parts) + 1) for last in (short, name)]
    return (short, name, *longer)


def names_of_folder(path: PurePath) -> tuple[str, ...]:
    """Possible names for the study of a folder, shortest first: the folder's name, then with more and more folders."""
    parts = [printable(part) for part in path.parts if part not in (path.anchor, "..")] or ["study"]
    return tuple("/".join(parts[-count:]) for count in range(1, len(parts) + 1))


def names_of_row(row: Row) -> tuple[str, ...]:
    """Possible names for the study of a line of a csv: that of its column, and the same with the number of the line."""
    table, _, line = row.origin.rpartition(":")
    study = printable(row.cells.get("study", ""))
    place = f"{printable(PurePath(table).name)}, line {line}"
    return (study, f"{study} ({place})") if study else (place,)


def comparable(name: str) -> str:
    """A key that is equal for names which look alike or which a file system does not distinguish."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def told_apart(choices: Sequence[Sequence[str]]) -> list[str]:
    """Choose a name for each study so that no two are equal by :func:`comparable`.

    Studies with equal names get their next longer ones; where there are no longer ones, or these are equal too, the
    later studies get a number.

    Args:
        choices: possible names of each study, shortest first; at least one.
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
