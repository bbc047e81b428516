from __future__ import annotations

import pytest

from monai_fedlora.commands.progress import _Lines, counting_bars


def test_without_a_terminal_lines_are_half_a_minute_apart_and_leave_standard_output_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = _Lines(lambda: now[0])
    for second, call in ((29, (1, 8)), (31, (2, 8, "loss 0.5")), (50, (3, 8)), (62, (4, None))):
        now[0] = second
        lines.say("epochs", *call)
    told = capsys.readouterr()
    assert told.err.splitlines() == ["epochs: 2 of 8 loss 0.5", "epochs: 4"] and not told.out


def test_short_work_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with counting_bars("images", "studies") as (images, _):
        images(1, 2)
        images(2, 2, "done")
    told = capsys.readouterr()
    assert not told.out and not told.err
