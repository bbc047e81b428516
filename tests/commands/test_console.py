"""What is piped is whole."""

from __future__ import annotations

import pytest
from rich.table import Table

from monai_fedlora import cli
from monai_fedlora.commands.console import drawn, open_console, pairs
from monai_fedlora.methods import get_method, method_names


def wide() -> Table:
    table = Table("name", "words")
    table.add_row("n" * 90, "w " * 60 + "end")
    return table


def test_piped_table_cuts_and_wraps_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    open_console().print(wide())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "nnn" in line]
    assert "n" * 90 in line
    assert "w w end" in line


def test_a_width_that_is_asked_for_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    open_console().print(wide())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.mark.slow
def test_every_method_is_named_in_full_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert cli.main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in method_names():
        (row,) = [line for line in lines if line.startswith(f"│ {name} ")]
        assert get_method(name).summary in row
        assert get_method(name).source in row


def test_what_looks_like_markup_is_shown_as_it_is_and_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console = open_console()
    console.print(drawn(["name", "[head]"], [["[bold]a[/bold]", 5], ["b" * 60, 6]], title="[red]title[/red]"))
    console.print(pairs([("what", "[x] " + "c" * 60)], title="[y]"))
    console.print("[red]said[/red] :smile:")
    said = capsys.readouterr().out
    for text in ("[bold]a[/bold]", "[head]", "[red]title[/red]", "[x]", "[y]", "[red]said[/red] :smile:"):
        assert text in said
    assert said.count("b") == 60 + 2 and said.count("c") == 60
    assert max(map(len, said.splitlines())) <= 40


def test_a_title_stands_in_the_middle_and_a_long_one_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for title in ("cases", "long " * 20):
        open_console().print(drawn(["a" * 20, "b"], [["x", 1]], title=title))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("   ") and lines[0].strip() == "cases"
    assert sum(line.count("long") for line in lines) == 20 and max(map(len, lines)) <= 40


def test_a_method_is_named_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    open_console().print(drawn(["method", *"abcdef"], [["centralised", *["0.658 ± 0.031"] * 6]]))
    lines = capsys.readouterr().out.splitlines()
    assert any("centralised" in line for line in lines) and max(map(len, lines)) <= 60
