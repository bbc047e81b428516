"""Keep readers' opinions on results of ``predict``, and count agreement by model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.clinic.many import find_result
from monai_fedlora.clinic.reader_feedback import (
    DISAGREE,
    Agreement,
    Opinion,
    agreements,
    keep_opinion,
    last_opinions,
    opinion_on,
    read_opinions,
)


@dataclass(frozen=True, kw_only=True)
class ModelOpinions:
    """Readers' opinions on the answers of one model.

    Attributes:
        name, version, sha256: of the model.
        agreements: how often readers agreed, over all answers and by group.
        disagreeing: the opinions that disagree.
    """

    name: str
    version: str
    sha256: str
    agreements: tuple[Agreement, ...]
    disagreeing: tuple[Opinion, ...]


def keep_opinion_on(study: str, results: Path, *, agrees: bool, because: str, instead: str) -> tuple[Opinion, Path]:
    """Keep a reader's opinion on a study's answer, in the folder of the results.

    Args:
        study: its name in the results.
        results: the output folder of ``predict``.
        agrees: whether the reader agrees with the most probable class.
        because: the reason; required if the reader disagrees.
        instead: the class that the reader would have given; empty for none.

    Returns:
        The opinion, and the path of its table.

    Raises:
        ConfigError: the reason is missing, or cannot be kept.
        DataError: there is no such result, or it has no answer.
    """
    opinion = opinion_on(find_result(results, study), agrees=agrees, because=because, instead=instead)
    return opinion, keep_opinion(opinion, results)


def counted_opinions(tables: Sequence[Path]) -> list[ModelOpinions]:
    """Count how often readers agreed, model by model; of several opinions on an answer the last counts.

    Args:
        tables: of opinions, or folders that hold one.

    Raises:
        DataError: one does not exist, or cannot be read.
    """
    found: dict[str, list[Opinion]] = {}
    for opinion in (opinion for table in tables for opinion in last_opinions(read_opinions(table))):
        found.setdefault(opinion.sha256, []).append(opinion)
    return [
        ModelOpinions(
            name=opinions[0].model,
            version=opinions[0].version,
            sha256=sha256,
            agreements=tuple(agreements(opinions)),
            disagreeing=tuple(opinion for opinion in opinions if opinion.opinion == DISAGREE),
        )
        for sha256, opinions in found.items()
    ]
