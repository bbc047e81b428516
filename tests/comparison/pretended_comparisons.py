"""Comparisons whose truth is known: patients, classes, sites and runs as those of real ones, drawn many times at once.

A method is right in a case with a probability whose logit adds up what is of the patient (shared by both methods and
all runs), and the luck of a run: everywhere, in a class (more of one is less of another) and at a site.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_fedlora.comparison.paired_difference import Cell

DERMATOSCOPY = (
    (20, 2977, 2, 0, 96, 23, 45, 0),
    (306, 850, 100, 12, 225, 24, 38, 5),
    (203, 466, 173, 65, 301, 15, 2, 116),
    (40, 191, 4, 0, 6, 2, 2, 0),
)
"""Lesions by centre and class of centres 1, 2, 3 and 5 of Fed-ISIC2019's training part: 8,012 images."""
HEARTS = ((12, 12, 12, 12, 12), (8, 8, 8, 8, 8))
"""100 patients in five groups at two sites, every one tested."""
SPLIT = ((2, 10), (2, 6))
"""The test split of 100 patients in two classes at two sites: four normal hearts."""
SINGLE = ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2), (1, 1, 1, 1, 1))
"""Test splits with one patient of a class at a site."""


def compared(
    patients: Sequence[Sequence[int]],
    *,
    runs: int,
    draws: int,
    seed: int,
    better: float = 0.0,
    luck: float = 0.15,
    difficulty: float = 1.5,
    level: float = 0.5,
) -> list[Cell]:
    """Draw comparisons of two methods.

    Args:
        patients: number by site and class.
        runs: of each method.
        draws: number of comparisons.
        seed: of the numbers.
        better: by how much the second method is right more often, on average about.
        luck: standard deviation of the logit over runs, in a class and at a site; a third of it everywhere.
        difficulty: of the logit over patients.
        level: probability of a usual patient.
    """
    rng = np.random.default_rng(seed)
    sites, classes = len(patients), len(patients[0])
    of_run = [
        (rng.normal(0, luck / 3, (1, 1, runs, draws)), rng.normal(0, luck, (1, classes, runs, draws))) for _ in range(2)
    ]
    of_site = [rng.normal(0, luck, (sites, 1, runs, draws)) for _ in range(2)]
    lucky = [(run + group + site).astype(np.float32) for (run, group), site in zip(of_run, of_site, strict=True)]
    cells = []
    for site, row in enumerate(patients):
        for group, n in enumerate(row):
            if n:
                easy = rng.standard_normal((n, 1, draws), dtype=np.float32) * difficulty + np.log(level / (1 - level))
                right = [
                    rng.random((n, runs, draws), dtype=np.float32) < 1 / (1 + np.exp(-easy - lucky[m][site, group]))
                    for m in range(2)
                ]
                if better:
                    right[1] |= rng.random((n, runs, draws), dtype=np.float32) < better / (1 - level)
                weight = 1 / sites / sum(map(bool, row))
                cells.append(Cell(weight=weight, group=str(group), scores=right[1], reference=right[0]))
    return cells
