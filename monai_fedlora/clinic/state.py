"""What people are told of an answer: whether there is one, in how many digits, and whether it can be relied on.

An answer is in one of three states. *Doubtful* has reasons. *No doubt found* says that what can be looked at was looked
at. *Cannot tell* says that it was not, because the bundle lacks what that takes; having no doubts then means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

NO_DOUBT_FOUND, DOUBTFUL, CANNOT_TELL = "no_doubt_found", "doubtful", "cannot_tell"

CLOSE = 0.10
"""The two most probable classes are this near or nearer: the answer is undecided (ours)."""


def state_of(doubts: Sequence[str], blind: Sequence[str]) -> str:
    """One of the three states; a doubt that was found counts more than one that could not be looked for.

    Args:
        doubts: that were found.
        blind: why others may have escaped; empty if nothing is known to be missing.
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
    """Whether a prediction is too near an even split to be called an answer.

    So it is where the two most probable classes differ by :data:`CLOSE` or less, and where the answers to what might
    have been shown just as well are not all the same.

    Args:
        probabilities: of the classes; one class alone is always decided.
        answers: index of the most probable class for each of these images.
    """
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    rest = [share for index, share in enumerate(probabilities) if index != best]
    near = bool(rest) and probabilities[best] - max(rest) <= CLOSE
    return near or any(answer != best for answer in answers)


def contenders(probabilities: Sequence[float], answers: Sequence[int] = ()) -> list[int]:
    """The classes between which an undecided prediction lies, most probable first; at least two, if there are two."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)
    near = {index for index in order if probabilities[order[0]] - probabilities[index] <= CLOSE} | set(answers)
    return [index for place, index in enumerate(order) if place == 0 or index in near]


def span(low: float, high: float, *, calibrated: bool) -> str:
    """A range of probabilities for people, digits as of :func:`percent`."""
    ends = [percent(end, calibrated=calibrated) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix(' %')} to {ends[1]}"


def percent(share: float, *, calibrated: bool) -> str:
    """A probability for people: whole percents, with one decimal where probabilities are calibrated.

    What rounds to none or all of the cases without being so is shown as less or more than the last step.
    """
    decimals = 1 if calibrated else 0
    step = 10.0**-decimals
    if share > 0 and 100 * share < step / 2:
        return f"<{step:.{decimals}f} %"
    if share < 1 and 100 * share >= 100 - step / 2:
        return f">{100 - step:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"
