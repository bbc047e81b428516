"""How an answer is displayed: whether it is decided, with how many digits, and whether it can be relied on.

An answer is in one of three states. *Doubtful* comes with reasons. *No doubt found* means that all checks were made and
found nothing. *Cannot tell* means that some checks could not be made, because the bundle lacks the data for them.
"""

from __future__ import annotations

from collections.abc import Sequence

NO_DOUBT_FOUND, DOUBTFUL, CANNOT_TELL = "no_doubt_found", "doubtful", "cannot_tell"

CLOSE = 0.10
"""The answer is undecided if the probabilities of the two most probable classes differ by this or less (ours)."""


def most_probable(probabilities: Sequence[float]) -> int:
    """Index of the most probable class; of equal ones the first."""
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def state_of(doubts: Sequence[str], blind: Sequence[str]) -> str:
    """One of the three states; a doubt counts more than a check that could not be made.

    Args:
        doubts: reasons why the answer may be wrong.
        blind: reasons why checks could not be made; empty if all were.
    """
    if doubts:
        return DOUBTFUL
    return CANNOT_TELL if blind else NO_DOUBT_FOUND


def state_sentences(doubts: Sequence[str], blind: Sequence[str]) -> tuple[str, ...]:
    """The state in words, with all its reasons; arguments as of :func:`state_of`."""
    reasons, word = (doubts, "Doubtful because ") if doubts else (blind, "Cannot tell: ")
    if not reasons:
        return ("No doubt found.",)
    first, *others = reasons
    also = "Also because " if doubts else "Also: "
    return (f"{word}{first}.", *(f"{also}{reason}." for reason in others))


def is_undecided(probabilities: Sequence[float], answers: Sequence[int] = ()) -> bool:
    """Whether no class can be called the answer.

    This is so if the two most probable classes differ by :data:`CLOSE` or less, or if another class becomes the most
    probable one after a small change of the image.

    Args:
        probabilities: of the classes; one class alone is always decided.
        answers: index of the most probable class for each changed image.
    """
    best = most_probable(probabilities)
    rest = [share for index, share in enumerate(probabilities) if index != best]
    near = bool(rest) and probabilities[best] - max(rest) <= CLOSE
    return near or any(answer != best for answer in answers)


def contenders(probabilities: Sequence[float], answers: Sequence[int] = ()) -> list[int]:
    """Indices of the classes that an undecided answer names, most probable first."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)
    near = {index for index in order if probabilities[order[0]] - probabilities[index] <= CLOSE} | set(answers)
    return [index for place, index in enumerate(order) if place == 0 or index in near]


def span(low: float, high: float, *, calibrated: bool) -> str:
    """A range of probabilities for display, with digits as of :func:`percent`."""
    ends = [percent(end, calibrated=calibrated) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix(' %')} to {ends[1]}"


def percent(share: float, *, calibrated: bool) -> str:
    """A probability for display in percent, with one decimal if the probabilities are calibrated.

    A probability above 0 is never rounded to "0 %" and one below 1 never to "100 %": these are "<1 %" and ">99 %".
    """
    decimals = 1 if calibrated else 0
    step = 10.0**-decimals
    if share > 0 and 100 * share < step / 2:
        return f"<{step:.{decimals}f} %"
    if share < 1 and 100 * share >= 100 - step / 2:
        return f">{100 - step:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"
